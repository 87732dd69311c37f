/**
 * What operators are shown of messages between devices: the broker, the agents, what waits, and what was refused. No
 * message's content is in any of it.
 */
import { Schema } from "effect"
import { Agreement, EdgeDeviceName, Presence } from "./Agents.ts"
import { Count, DeviceId, Name, SigningKey, TimestampMs } from "./Ids.ts"
import { MessageRefusal } from "./Message.ts"

/** Refusals of one agent's messages for one reason. */
export const RefusalView = Schema.Struct({
  /** Null: all together who are no agents. */
  agent: Schema.NullOr(Name),
  code: MessageRefusal,
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

/** What broker services know of all agents together. */
export const AgentsOverview = Schema.Struct({
  /** What broker services sign with. */
  signing_key: SigningKey,
  /** Agents by status. */
  agents: Schema.Struct({ C: Count, DG: Count, DU: Count }),
  visible: Count,
  /** As in {@link AgentView}. */
  undelivered: Count,
  queued: Count,
  /** Refusals by reason, since they are counted. */
  refusals: Schema.Record(Schema.String, Count),
  last_refusal_at_ms: Schema.NullOr(TimestampMs)
})
export type AgentsOverview = typeof AgentsOverview.Type

/** Broker services at a glance. */
export const MessagingStatus = Schema.Struct({
  ...AgentsOverview.fields,
  /** Whether the trust root's role names the signing key: without that no agent believes it. */
  in_root: Schema.Boolean,
  broker: BrokerView
})
export type MessagingStatus = typeof MessagingStatus.Type
