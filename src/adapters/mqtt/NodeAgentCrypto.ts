/** The port `AgentCrypto` on the node's own keys. */
import { Effect, Layer, Redacted } from "effect"
import { hpkeEntropyBytes } from "../../crypto/Hpke.ts"
import { sealMessage } from "../../crypto/Messages.ts"
import { receive } from "../../crypto/Reception.ts"
import { signJson } from "../../crypto/SignedJson.ts"
import { AgentCrypto } from "../../ports/AgentCrypto.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { Entropy } from "../../ports/Entropy.ts"
import { NodeKeys } from "../NodeKeys.ts"

export const NodeAgentCrypto: Layer.Layer<AgentCrypto, never, NodeKeys | CryptoEngine | Entropy> =
  Layer.effect(
    AgentCrypto,
    Effect.gen(function* () {
      const engine = yield* CryptoEngine
      const entropy = yield* Entropy
      const keys = yield* NodeKeys
      const signer = { seed: Redacted.value(keys.signingSeed), signingKey: keys.signingKey }
      return {
        signingKey: keys.signingKey,
        agreement: Effect.sync(() => ({ key: keys.agreementKey, version: keys.encryption.version })),
        sign: (unsigned) => Effect.sync(() => signJson(engine, signer, unsigned)),
        seal: (header, document, recipientKey) =>
          Effect.map(entropy.bytes(hpkeEntropyBytes), (fresh) =>
            sealMessage(engine, signer, header, document, recipientKey, fresh)
          ),
        receive: (receiver, inbox, wire, nowMs) =>
          Effect.sync(() => receive(engine, { ...receiver, agreements: keys.agreements }, inbox, wire, nowMs))
      }
    })
  )
