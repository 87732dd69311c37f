/**
 * How agents and broker services come to know each other: documents beside the messages themselves. All are canonical JSON,
 * signed as messages are (`schemas/Message`).
 */
import { Schema } from "effect"
import { Count, DeviceId, intBetween, labelUpTo, Name, ServerId, SigningKey, TimestampMs } from "./Ids.ts"
import { AgreementKey, MessageId, Signature } from "./Message.ts"
import { AgentName } from "./Topics.ts"

/** Random name of one connection of an agent. */
export const SessionId = Schema.String.check(Schema.isPattern(/^[a-z2-7]{26}$/)).pipe(
  Schema.brand("SessionId")
)
export type SessionId = typeof SessionId.Type

export const DocumentLimits = {
  /** Any of the documents here but the list of agents. */
  documentBytes: 16 * 1024,
  directoryBytes: 240 * 1024,
  /** Of that, what is not entries. */
  directoryHeadBytes: 1024,
  directoryAgents: 256,
  directoryParts: 10_000,
  edgeDevices: 32
} as const

const signed = { signing_key: SigningKey, signature: Signature }

/** The key to seal to, and which one of its owner's it is. */
export const Agreement = Schema.Struct({
  key: AgreementKey,
  version: intBetween(1, 1_000_000)
})
export type Agreement = typeof Agreement.Type

/** An edge device that an agent speaks for. */
export const EdgeDeviceName = labelUpTo(64)

/** What stands in the place of a password at the embedded broker: good once, and for some seconds. */
export const ConnectProof = Schema.Struct({
  type: Schema.Literal("postern/mqtt-connect/v1"),
  agent: Name,
  device: DeviceId,
  server: ServerId,
  session: SessionId,
  issued_at_ms: TimestampMs,
  ...signed
})
export type ConnectProof = typeof ConnectProof.Type

/** An agent's keys, told to broker services and to everybody. */
export const Handshake = Schema.Struct({
  type: Schema.Literal("postern/handshake/v1"),
  agent: Name,
  device: DeviceId,
  session: SessionId,
  /** The answer carries it. */
  nonce: MessageId,
  agreement: Agreement,
  /** Whether others may be told of it. */
  visible: Schema.Boolean,
  edge_devices: Schema.Array(EdgeDeviceName).check(
    Schema.isMaxLength(DocumentLimits.edgeDevices),
    Schema.isUnique()
  ),
  issued_at_ms: TimestampMs,
  ...signed
})
export type Handshake = typeof Handshake.Type

/**
 * - `known`: an accepted device, with the keys it was accepted with
 * - `waiting`: nobody has decided about it yet
 * - `refused`: the name is another's, or the device was turned away
 */
export const HandshakeVerdict = Schema.Literals(["known", "waiting", "refused"])

/** Broker services' keys, told to one agent. Signed with a key of the root's role. */
export const HandshakeAnswer = Schema.Struct({
  type: Schema.Literal("postern/handshake-answer/v1"),
  agent: AgentName,
  session: SessionId,
  nonce: MessageId,
  verdict: HandshakeVerdict,
  detail: labelUpTo(200),
  agreement: Agreement,
  issued_at_ms: TimestampMs,
  ...signed
})
export type HandshakeAnswer = typeof HandshakeAnswer.Type

/** C: connected. DG: gone, having said so. DU: gone, and the broker said so (the last will). */
export const Presence = Schema.Literals(["C", "DG", "DU"])
export type Presence = typeof Presence.Type

/** Of one session: the will of an older one says nothing of a newer. */
export const AgentStatus = Schema.Struct({
  type: Schema.Literal("postern/status/v1"),
  agent: Name,
  session: SessionId,
  status: Presence,
  /** When it was signed: of a will, when its session began. */
  issued_at_ms: TimestampMs,
  ...signed
})
export type AgentStatus = typeof AgentStatus.Type

/** Asks whether somebody is there, or answers that. */
export const Ping = Schema.Struct({
  type: Schema.Literals(["postern/ping/v1", "postern/pong/v1"]),
  from: AgentName,
  to: AgentName,
  nonce: MessageId,
  issued_at_ms: TimestampMs,
  ...signed
})
export type Ping = typeof Ping.Type

/** One agent as others may know it. */
export const DirectoryEntry = Schema.Struct({
  agent: Name,
  device: DeviceId,
  signing_key: SigningKey,
  agreement: Agreement,
  status: Presence,
  edge_devices: Handshake.fields.edge_devices
})
export type DirectoryEntry = typeof DirectoryEntry.Type

/** The agents that chose to be visible; signed with a key of the root's role. In parts where they are many. */
export const Directory = Schema.Struct({
  type: Schema.Literal("postern/directory/v1"),
  /** Rises with every publication. All parts of one publication have the same. */
  version: Count,
  part: intBetween(1, DocumentLimits.directoryParts),
  parts: intBetween(1, DocumentLimits.directoryParts),
  agents: Schema.Array(DirectoryEntry).check(Schema.isMaxLength(DocumentLimits.directoryAgents)),
  issued_at_ms: TimestampMs,
  /** When newer ones must have come: whoever brings it later may want keys to be believed that are retired. */
  expires_at_ms: TimestampMs,
  ...signed
})
export type Directory = typeof Directory.Type
