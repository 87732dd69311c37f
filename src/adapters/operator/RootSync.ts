/**
 * Keeping the operator's copy of the trust root abreast of what a server carries. Every step is verified from the root
 * that is already held; a lower version is never taken, and another chain is refused.
 *
 * @module
 */
import { Effect, Result, Schema } from "effect"
import type { Opened } from "../../crypto/Documents.ts"
import { verifyFirstRoot, verifyNextRoot } from "../../crypto/Trust.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import type { DsseEnvelope } from "../../schemas/Dsse.ts"
import type { Digest } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import type { TrustRoot } from "../../schemas/TrustRoot.ts"
import { ManagementClient } from "./ManagementClient.ts"
import { keepRoot, trustedRoot } from "./TrustStore.ts"

/** A server carries a root that does not come from the one held here. */
export class ForeignRoot extends Schema.TaggedError<ForeignRoot>()("ForeignRoot", {
  address: Schema.String,
  version: Schema.Finite,
  reason: Schema.String
}) {
  override get message(): string {
    return `ALARM: the trust root ${this.version} that ${this.address} carries does not come from yours (${this.reason}). Nothing of it was taken. It belongs to somebody else, or the server lies`
  }
}

const rootsFrom = (from: number) =>
  Effect.flatMap(ManagementClient, (client) =>
    Effect.map(
      client.call("ask for the trust roots", ({ server }) => server.roots({ query: { from } })),
      ({ roots }) => roots
    )
  )

/** Follows the chain of a server from a root on, and keeps each version. */
const follow = (start: TrustRoot) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const { address } = yield* ManagementClient
    let root = start
    while (root.version < Limits.rootChain) {
      const page: ReadonlyArray<DsseEnvelope> = yield* rootsFrom(root.version + 1)
      if (page.length === 0) return root
      for (const envelope of page) {
        const next: Result.Result<Opened<TrustRoot>, Error> = verifyNextRoot(engine, root, envelope)
        if (Result.isFailure(next)) {
          return yield* new ForeignRoot({ address, version: root.version + 1, reason: next.failure.message })
        }
        root = next.success.document
        yield* keepRoot(root.version, envelope)
      }
    }
    return root
  })

/**
 * Takes in what the server has beyond the operator's root. Gives the versions taken in; undefined where there is no root
 * here yet. Fails where the server's chain is another one.
 */
export const catchUp = Effect.gen(function* () {
  const trusted = yield* trustedRoot
  if (trusted === undefined) return undefined
  const { address } = yield* ManagementClient
  const { version } = trusted.root
  const same = (yield* rootsFrom(version))[0]
  // A server that is behind has nothing to say; that it is, `status` tells.
  if (same === undefined) return { from: version, to: version }
  if (same.payload !== trusted.envelope.payload)
    return yield* new ForeignRoot({ address, version, reason: "it has another content" })
  const { version: to } = yield* follow(trusted.root)
  return { from: version, to }
})

/** What proves a first root to somebody who has none: its digest, or a key that must have signed it. */
export type FirstRootProof =
  | { readonly kind: "digest"; readonly digest: Digest }
  | { readonly kind: "signer"; readonly keyId: string }

/** Takes the whole chain of a server into a home that has none, once its first root is proved. */
export const adoptChain = (proof: FirstRootProof) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const { address } = yield* ManagementClient
    const first = (yield* rootsFrom(1))[0]
    const foreign = (reason: string) => new ForeignRoot({ address, version: 1, reason })
    if (first === undefined) return yield* foreign("it carries none yet")
    const verified = verifyFirstRoot(engine, first, proof.kind === "digest" ? proof.digest : null)
    if (Result.isFailure(verified)) return yield* foreign(verified.failure.message)
    if (proof.kind === "signer" && !verified.success.signers.has(proof.keyId))
      return yield* foreign(`the key ${proof.keyId} did not sign it`)
    const root = verified.success.document
    if (root.version !== 1) return yield* foreign(`its first version is ${root.version}`)
    yield* keepRoot(1, first)
    return yield* follow(root)
  })
