/**
 * What operators are shown of messages between devices: the broker, the agents, what waits, and what was refused. No
 * message's content is in any of it.
 */
import { Schema } from "effect"
import { Agreement, EdgeDeviceName, Presence } from "./Agents.ts"
import { Count, DeviceId, KeyId, Name, SigningKey, TimestampMs } from "./Ids.ts"
import { MessageRefusal } from "./Message.ts"

/**
 * Why something was refused: a message, as `MessageRefusal` says; or by the broker itself: `bad_credentials` (nobody who may
 * come) and `too_many` (connections).
 */
export const RefusalCode = Schema.Literals([...MessageRefusal.literals, "bad_credentials", "too_many"])
export type RefusalCode = typeof RefusalCode.Type

/** Refusals of one agent's messages for one reason. */
export const RefusalView = Schema.Struct({
  /** Null: all together who are no agents. */
  agent: Schema.NullOr(Name),
  code: RefusalCode,
  count: Count,
  last_at_ms: TimestampMs
})
export type RefusalView = typeof RefusalView.Type

/** An agent that has shaken hands, with this server's broker services. */
export const AgentView = Schema.Struct({
  agent: Name,
  device: DeviceId,
  signing_key: SigningKey,
  /** Its X25519 key, and which one it is. */
  agreement: Agreement,
  /** By its own word, or by its last will: C, DG (gone, having said so), DU (gone without a word). */
  status: Presence,
  status_at_ms: TimestampMs,
  /** Whether others are told of it. */
  visible: Schema.Boolean,
  edge_devices: Schema.Array(EdgeDeviceName),
  /** Messages for it that its session does not hold yet, and that its session holds. */
  undelivered: Count,
  queued: Count
})
export type AgentView = typeof AgentView.Type

export const AgentPage = Schema.Struct({
  agents: Schema.Array(AgentView),
  /** The next page begins behind this name; null on the last one. */
  next: Schema.NullOr(Name)
})

export const AgentDetail = Schema.Struct({ agent: AgentView, refusals: Schema.Array(RefusalView) })
export type AgentDetail = typeof AgentDetail.Type

/** The broker as broker services see it. */
export const BrokerView = Schema.Struct({
  state: Schema.Literals(["open", "down"]),
  /** Places of its own; devices reach it at the server's addresses too. */
  addresses: Schema.Array(Schema.String),
  /** Connections, strangers' included; null where it is down. */
  connected: Schema.NullOr(Count)
})
export type BrokerView = typeof BrokerView.Type

/** Broker services at a glance. */
export const MessagingStatus = Schema.Struct({
  broker: BrokerView,
  /** What they sign with, and the key's id as the trust root has it. */
  signing_key: SigningKey,
  key_id: KeyId,
  /** Whether the trust root's role names it: without that no agent believes them. */
  in_root: Schema.Boolean,
  /** Agents by status. */
  agents: Schema.Struct({ C: Count, DG: Count, DU: Count }),
  visible: Count,
  undelivered: Count,
  queued: Count,
  /** Refusals by reason since the counts began, and when the last one was. */
  refusals: Schema.Record(Schema.String, Count),
  last_refusal_at_ms: Schema.NullOr(TimestampMs)
})
export type MessagingStatus = typeof MessagingStatus.Type
