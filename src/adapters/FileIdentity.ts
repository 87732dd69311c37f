/**
 * The ports `Identity` and `GroupKeys` over the keys of this node.
 *
 * @module
 */
import { Effect, Layer, Redacted } from "effect"
import { signDocument } from "../crypto/Documents.ts"
import { groupSecret, onionKeyOf, sealSharedKey, sharedKeyEntropyBytes } from "../crypto/OnionKeys.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { Entropy } from "../ports/Entropy.ts"
import { GroupKeys } from "../ports/GroupKeys.ts"
import { Identity } from "../ports/Identity.ts"
import type { ServerId } from "../schemas/Ids.ts"
import { type KeyFileError, type KeyRotation, NodeKeys, NodeKeysFile, type NodeKind } from "./NodeKeys.ts"

/** Signs with the keys at hand, which may come from a file or, in a simulation, from memory. */
const SigningOfNode: Layer.Layer<Identity, never, NodeKeys | CryptoEngine> = Layer.effect(
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

/** What follows from the server's own keys for groups of devices. */
const GroupKeysOfNode: Layer.Layer<GroupKeys, never, NodeKeys | CryptoEngine | Entropy> = Layer.effect(
  GroupKeys,
  Effect.gen(function* () {
    const keys = yield* NodeKeys
    const engine = yield* CryptoEngine
    const entropy = yield* Entropy
    return {
      publicKey: (salt) => onionKeyOf(engine, groupSecret(engine, keys.signingSeed, salt)),
      seal: (salt, device, recipient) =>
        Effect.map(entropy.bytes(sharedKeyEntropyBytes), (entropyBytes) => {
          const secret = groupSecret(engine, keys.signingSeed, salt)
          return sealSharedKey(engine, {
            secret,
            device,
            server: keys.id as ServerId,
            recipient,
            entropyBytes
          })
        })
    }
  })
)

/** What the keys at hand can do without being given out. */
export const IdentityOfNodeKeys = Layer.merge(SigningOfNode, GroupKeysOfNode)

/** The node's identity and, for other adapters, its keys; made on the first start. */
export const FileIdentity = (options: {
  readonly stateFolder: string
  readonly kind: NodeKind
}): Layer.Layer<Identity | GroupKeys | NodeKeys | KeyRotation, KeyFileError, Entropy | CryptoEngine> =>
  IdentityOfNodeKeys.pipe(Layer.provideMerge(NodeKeysFile(options)))
