/**
 * How programs of one machine speak to the agent that runs there: lines of JSON over a Unix socket in its state folder
 * (`adapters/agent/AgentSocket`). Every request names an `id` of the asker's choice, and the answer carries it; several may
 * be under way at once.
 *
 *     → {"request":"send","id":1,"level":"private","to":["bob"],"subject":"","body":{"hello":1},"lifetime_ms":null}
 *     ← {"id":1,"ok":true,"value":"k3…"}
 *     → {"request":"take","id":2,"maximum":16,"wait_ms":30000}
 *     ← {"id":2,"ok":true,"value":[{"place":7,"received_at_ms":…,"message":{…}}]}
 *     → {"request":"done","id":3,"places":[7]}
 *     ← {"id":3,"ok":true,"value":null}
 *
 * Who asks with `take` is a listener for as long as its connection lasts. A message is with one listener at a time, and is
 * forgotten only when a listener says that it is done with it; what a listener had in hand when its connection ended goes to
 * the next one that asks. So several listeners share the work, each message is handled at least once, and one listener alone
 * gets them in the order in which they came.
 */
import { Schema } from "effect"
import { DirectoryEntry, Handshake } from "./Agents.ts"
import { Count, intBetween, labelUpTo, TimestampMs } from "./Ids.ts"
import { Message, MessageId, MessageLimits, PublicMessage, SecureLevel } from "./Message.ts"
import { AgentReport } from "./protocols/SmartAgent.ts"
import { TrustPhase } from "./protocols/TrustKeeper.ts"
import { AgentName } from "./Topics.ts"

export const AgentLocalLimits = {
  /** One request: a body with every character escaped. */
  requestBytes: 8 * MessageLimits.bodyBytes,
  /** One answer: as many messages as a listener may hold, or a long list of agents. */
  answerBytes: 32 * 1024 * 1024,
  connections: 32,
  /** Requests of one connection under way. */
  underWay: 32,
  listeners: 64,
  /** Messages that one listener may have in hand. */
  window: 64,
  /** How long a `take` may wait for a message. */
  waitMs: 60_000
} as const

/** A message that came, until a listener is done with it. */
export const InboxMessage = Schema.Struct({
  /** Names it to `done`. Rises. */
  place: Count,
  received_at_ms: TimestampMs,
  message: Schema.Union([Message, PublicMessage])
})
export type InboxMessage = typeof InboxMessage.Type

/** What an application wants to be sent. */
export const LocalLetter = Schema.Struct({
  level: Schema.Literals(["public", ...SecureLevel.literals]),
  to: Schema.Array(AgentName),
  subject: labelUpTo(128),
  body: Schema.Json,
  /** Null: a day. */
  lifetime_ms: Schema.NullOr(Count)
})
export type LocalLetter = typeof LocalLetter.Type

/** What others may know of an agent. */
export const LocalAppearance = Schema.Struct({
  visible: Schema.Boolean,
  edge_devices: Handshake.fields.edge_devices
})
export type LocalAppearance = typeof LocalAppearance.Type

/** How an agent stands: with its operators, and with broker services. */
export const LocalReport = Schema.Struct({
  enrolment: Schema.Struct({
    phase: TrustPhase,
    /** For an operator to compare; null where none is needed. */
    claim_code: Schema.NullOr(Schema.String),
    detail: Schema.String
  }),
  agent: Schema.Struct({
    ...AgentReport.fields,
    /** By reason, those that occurred. */
    refused: Schema.Record(Schema.String, Count)
  })
})
export type LocalReport = typeof LocalReport.Type

const id = { id: Count }

export const LocalRequest = Schema.Union([
  Schema.Struct({ request: Schema.Literal("send"), ...id, ...LocalLetter.fields }),
  Schema.Struct({ request: Schema.Literal("unsent"), ...id, message: MessageId }),
  Schema.Struct({ request: Schema.Literal("ping"), ...id, to: AgentName }),
  Schema.Struct({ request: Schema.Literal("peers"), ...id }),
  Schema.Struct({ request: Schema.Literal("report"), ...id }),
  Schema.Struct({ request: Schema.Literal("show"), ...id, ...LocalAppearance.fields }),
  Schema.Struct({
    request: Schema.Literal("take"),
    ...id,
    maximum: intBetween(1, AgentLocalLimits.window),
    wait_ms: intBetween(0, AgentLocalLimits.waitMs)
  }),
  Schema.Struct({
    request: Schema.Literal("done"),
    ...id,
    places: Schema.Array(Count).check(Schema.isMaxLength(AgentLocalLimits.window))
  })
])
export type LocalRequest = typeof LocalRequest.Type

/** Why an agent did not do what it was asked. */
export const AgentTroubleCode = Schema.Literals([
  // what is wrong with a message
  "malformed_letter",
  "body_too_large",
  "no_json",
  "no_recipient",
  "too_many_recipients",
  "too_long_a_life",
  "full",
  // what is wrong with the agent or the way to it
  "no_broker",
  "too_many_listeners",
  "malformed",
  "not_running",
  "timed_out",
  "gone",
  "failed"
])
export type AgentTroubleCode = typeof AgentTroubleCode.Type

/** The agent could not do what it was asked. */
export class AgentTrouble extends Schema.TaggedError<AgentTrouble>()("AgentTrouble", {
  code: AgentTroubleCode,
  reason: Schema.String
}) {
  override get message(): string {
    return this.reason
  }
}

export const LocalAnswer = Schema.Union([
  Schema.Struct({ id: Count, ok: Schema.Literal(true), value: Schema.Unknown }),
  Schema.Struct({
    /** Null where the request could not be read so far. */
    id: Schema.NullOr(Count),
    ok: Schema.Literal(false),
    code: AgentTroubleCode,
    error: Schema.String
  })
])
export type LocalAnswer = typeof LocalAnswer.Type

/** What the values of answers are. */
export const LocalValues = {
  peers: Schema.Array(DirectoryEntry),
  take: Schema.Array(InboxMessage)
} as const
