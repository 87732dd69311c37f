/** A device as an agent: sends, takes and answers messages over MQTT. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { DirectoryEntry, Handshake } from "../Agents.ts"
import { Count, labelUpTo } from "../Ids.ts"
import { MessageId, MessageRefusal, SecureLevel } from "../Message.ts"
import { AgentName } from "../Topics.ts"
import { Ticket } from "./Ticket.ts"

/** A message cannot be sent as it is. */
export class CannotSend extends Schema.TaggedError<CannotSend>()("CannotSend", {
  code: Schema.Literals([
    "body_too_large",
    "no_json",
    "no_recipient",
    "too_many_recipients",
    "too_long_a_life",
    "malformed_letter",
    "full",
    /** It could not be kept, or nobody knows whether it was. */
    "failed"
  ]),
  reason: Schema.String
}) {
  override get message(): string {
    return this.reason
  }
}

/** There is no broker at the moment. */
export class NoBus extends Schema.TaggedError<NoBus>()("NoBus", { reason: Schema.String }) {
  override get message(): string {
    return this.reason
  }
}

/** What came could not be kept: it must come again. */
export class NotKept extends Schema.TaggedError<NotKept>()("NotKept", {
  reason: Schema.String,
  /** There is no room for it now. */
  isFull: Schema.Boolean
}) {
  override get message(): string {
    return this.reason
  }
}

/** What the agent keeps cannot be read. */
export class CannotRead extends Schema.TaggedError<CannotRead>()("CannotRead", { reason: Schema.String }) {
  override get message(): string {
    return this.reason
  }
}

/** How good the way to a peer is, by the last pings. */
export const LinkQuality = Schema.Struct({
  agent: AgentName,
  pings: Count,
  lost: Count,
  last_rtt_ms: Schema.NullOr(Schema.Finite),
  /** Smoothed as in RFC 6298. */
  smoothed_rtt_ms: Schema.NullOr(Schema.Finite)
})
export type LinkQuality = typeof LinkQuality.Type

export const AgentReport = Schema.Struct({
  name: Schema.NullOr(AgentName),
  /**
   * `no_trust`: the device is not accepted, or its root names no broker services. `no_messaging`: the server has no broker.
   * `connected`: not answered by broker services yet. `waiting`, `refused`, `known`: what they answered.
   */
  state: Schema.Literals([
    "no_trust",
    "no_messaging",
    "offline",
    "connecting",
    "connected",
    "waiting",
    "refused",
    "known"
  ]),
  /** Why it is so, for people. */
  detail: Schema.String,
  /** Messages that wait to be sent. */
  queued: Count,
  /** Messages that wait for the application. */
  waiting: Count,
  refused: Schema.Record(MessageRefusal, Count),
  links: Schema.Array(LinkQuality)
})
export type AgentReport = typeof AgentReport.Type

/** Where an agent stands, as a word. */
export const AgentStandingWord = Schema.Struct({
  state: AgentReport.fields.state,
  detail: AgentReport.fields.detail,
  /** For how long it has lacked a session with broker services that it should have; 0 where it lacks none. */
  lacking_ms: Count,
  /** As many messages wait for the application as may wait: what comes stays with the broker. */
  inbox_full: Schema.Boolean,
  /** As many ids of messages are remembered as may be: what comes stays with the broker. */
  ids_full: Schema.Boolean
})
export type AgentStandingWord = typeof AgentStandingWord.Type

export const SmartAgentProtocol = RpcGroup.make(
  /** Takes a message for sending. It is on disk when this is answered, and goes out when the broker is there. */
  Rpc.make("Send", {
    payload: {
      level: Schema.Literals(["public", ...SecureLevel.literals]),
      to: Schema.Array(AgentName),
      subject: labelUpTo(128),
      body: Schema.Json,
      /** Null: a day. */
      lifetimeMs: Schema.NullOr(Count)
    },
    success: MessageId,
    error: CannotSend
  }),
  /** Whether a message still waits to be sent. */
  Rpc.make("Unsent", { payload: { id: MessageId }, success: Schema.Boolean, error: CannotRead }),
  /** Asks a peer whether it is there; the ticket gives the round-trip time in milliseconds, null where no answer came. */
  Rpc.make("Ping", { payload: { to: AgentName }, success: Ticket<number | null>(), error: NoBus }),
  /** Whom the signed list of broker services names. */
  Rpc.make("Peers", { success: Schema.Array(DirectoryEntry) }),
  Rpc.make("Report", { success: AgentReport }),
  /** The same in brief, at no cost. */
  Rpc.make("Standing", { success: AgentStandingWord }),
  /** What others may know of this agent. */
  Rpc.make("Show", {
    payload: { visible: Schema.Boolean, edgeDevices: Handshake.fields.edge_devices }
  }),
  /** The key that others seal to has changed: broker services and peers are told at once. */
  Rpc.make("Rotated"),
  /** It is time. To itself. */
  Rpc.make("Due"),
  /** Something said in the background was said. To itself. */
  Rpc.make("Said"),
  /** A connection has ended, or never stood. */
  Rpc.make("Ended", {
    payload: { code: Schema.Literals(["none", "refused", "unreachable", "changed"]), reason: Schema.String }
  }),
  /** Drafts that the broker has. */
  Rpc.make("Flushed", { payload: { sent: Schema.Array(MessageId), failed: Schema.Boolean } }),
  /** Something came from the broker. */
  Rpc.make("Came", {
    payload: { topic: Schema.String, payload: Schema.Uint8Array },
    error: NotKept
  })
)
