/**
 * Broker services' own keys at work. The work costs processor time, so an adapter may do it in other threads; no actor ever
 * holds a private key.
 */
import type { Effect } from "effect"
import { Context } from "effect"
import type { Judged } from "../crypto/Messages.ts"
import type { Accepted, Arrival, Outgoing, RelayRecipient } from "../crypto/Relay.ts"
import type { SignedJson, Unsigned } from "../crypto/SignedJson.ts"
import type { Agreement } from "../schemas/Agents.ts"
import type { SigningKey } from "../schemas/Ids.ts"

export class RelayCrypto extends Context.Service<
  RelayCrypto,
  {
    /** The key broker services sign with; agents believe it if the trust root names it. */
    readonly signingKey: SigningKey
    /** The key to seal to now. */
    readonly agreement: Effect.Effect<Agreement>
    readonly judge: (arrival: Arrival) => Effect.Effect<Judged<Accepted>>
    readonly outgoing: (
      accepted: Accepted,
      recipients: ReadonlyArray<RelayRecipient>,
      nowMs: number
    ) => Effect.Effect<ReadonlyArray<Outgoing>>
    readonly sign: <A extends SignedJson>(unsigned: Unsigned<A>) => Effect.Effect<A>
  }
>()("postern/ports/RelayCrypto") {}
