/** The signed answer: what the server signs over every answer to a device. Travels in the header `Postern-Statement`. */
import { Schema } from "effect"
import { DeviceId, Digest, intBetween, Nonce, RootVersion, ServerId, TimestampMs } from "./Ids.ts"

export const Statement = Schema.Struct({
  type: Schema.Literal("postern/statement/v1"),
  server: ServerId,
  device: DeviceId,
  /** The nonce of the request this answers. */
  nonce: Nonce,
  at_ms: TimestampMs,
  /** HTTP status. */
  status: intBetween(100, 599),
  /** SHA-256 of the answer's body as sent. */
  body_digest: Digest,
  /** The newest root the server holds; null before it has one. */
  root_version: Schema.NullOr(RootVersion)
})
export type Statement = typeof Statement.Type

/** Name of the header: base64 of the DSSE envelope's JSON. */
export const statementHeader = "postern-statement"
