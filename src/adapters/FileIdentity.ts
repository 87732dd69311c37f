/**
 * The port `Identity` over the keys of this node.
 *
 * @module
 */
import { Effect, Layer, Redacted } from "effect"
import { signDocument } from "../crypto/Documents.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import type { Entropy } from "../ports/Entropy.ts"
import { Identity } from "../ports/Identity.ts"
import { type KeyFileError, type KeyRotation, NodeKeys, NodeKeysFile, type NodeKind } from "./NodeKeys.ts"

/** Signs with the keys at hand, which may come from a file or, in a simulation, from memory. */
export const IdentityOfNodeKeys: Layer.Layer<Identity, never, NodeKeys | CryptoEngine> = Layer.effect(
  Identity,
  Effect.gen(function* () {
    const keys = yield* NodeKeys
    const engine = yield* CryptoEngine
    return {
      id: keys.id,
      signingKey: keys.signingKey,
      recipient: keys.recipient,
      encryption: Effect.sync(() => keys.encryption),
      sign: (kind, document) =>
        Effect.sync(() =>
          signDocument(engine, kind, document, [{ keyId: keys.id, seed: Redacted.value(keys.signingSeed) }])
        )
    }
  })
)

/** The node's identity and, for other adapters, its keys; made on the first start. */
export const FileIdentity = (options: {
  readonly stateFolder: string
  readonly kind: NodeKind
}): Layer.Layer<Identity | NodeKeys | KeyRotation, KeyFileError, Entropy | CryptoEngine> =>
  IdentityOfNodeKeys.pipe(Layer.provideMerge(NodeKeysFile(options)))
