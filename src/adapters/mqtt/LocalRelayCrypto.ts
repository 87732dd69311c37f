/** The port `RelayCrypto` in the calling thread: for simulation, tests and small servers. */
import { Effect, Layer } from "effect"
import { judgeArrival, makeOutgoing, outgoingEntropyBytes, type RelayKeys } from "../../crypto/Relay.ts"
import { signJson } from "../../crypto/SignedJson.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { Entropy } from "../../ports/Entropy.ts"
import { RelayCrypto } from "../../ports/RelayCrypto.ts"
import type { Agreement } from "../../schemas/Agents.ts"
import type { SigningKey } from "../../schemas/Ids.ts"

/** Broker services' keys. Whoever rotates them gives new values here, and a new map, which is how that is noticed. */
export interface RelayIdentity extends RelayKeys {
  /** The key to seal to now; one of the agreements. */
  readonly agreement: Agreement
}

export const LocalRelayCrypto = (
  keys: RelayIdentity
): Layer.Layer<RelayCrypto, never, CryptoEngine | Entropy> =>
  Layer.effect(
    RelayCrypto,
    Effect.gen(function* () {
      const engine = yield* CryptoEngine
      const entropy = yield* Entropy
      return {
        signingKey: keys.signer.signingKey as SigningKey,
        agreement: Effect.sync(() => keys.agreement),
        judge: (arrival) => Effect.sync(() => judgeArrival(engine, keys, arrival)),
        outgoing: (accepted, recipients, nowMs) =>
          Effect.map(entropy.bytes(recipients.length * outgoingEntropyBytes), (fresh) =>
            makeOutgoing(engine, keys, accepted, recipients, nowMs, fresh)
          ),
        sign: (unsigned) => Effect.sync(() => signJson(engine, keys.signer, unsigned))
      }
    })
  )
