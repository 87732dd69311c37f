/**
 * Broker services' own keys at work. The work costs processor time, so an adapter may do it in other threads; no actor ever
 * holds a private key.
 */
import type { Effect } from "effect"
import { Context, Schema } from "effect"
import type { Judged } from "../crypto/Messages.ts"
import type { Accepted, Arrival, Outgoing, RelayRecipient } from "../crypto/Relay.ts"
import type { SignedJson, Unsigned } from "../crypto/SignedJson.ts"
import type { Agreement } from "../schemas/Agents.ts"
import type { SigningKey } from "../schemas/Ids.ts"

/** The work could not be done now: too much of it waits, or whoever did it died over it. Nothing is known of its outcome. */
export class RelayCryptoError extends Schema.TaggedError<RelayCryptoError>()("RelayCryptoError", {
  code: Schema.Literals(["overloaded", "died", "failed", "closed"]),
  reason: Schema.String
}) {
  override get message(): string {
    return `broker services' cryptography: ${this.reason}`
  }
}

export class RelayCrypto extends Context.Service<
  RelayCrypto,
  {
    /** The key broker services sign with; agents believe it if the trust root names it. */
    readonly signingKey: SigningKey
    /** The key to seal to now. */
    readonly agreement: Effect.Effect<Agreement>
    readonly judge: (arrival: Arrival) => Effect.Effect<Judged<Accepted>, RelayCryptoError>
    readonly outgoing: (
      accepted: Accepted,
      recipients: ReadonlyArray<RelayRecipient>,
      nowMs: number
    ) => Effect.Effect<ReadonlyArray<Outgoing>, RelayCryptoError>
    readonly sign: <A extends SignedJson>(unsigned: Unsigned<A>) => Effect.Effect<A, RelayCryptoError>
  }
>()("postern/ports/RelayCrypto") {}
