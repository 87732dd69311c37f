/**
 * The operator's own copy of the trust root: every version from the first, verified as a chain whenever it is read.
 *
 * @module
 */
import { Effect, Result } from "effect"
import { verifyFirstRoot, verifyNextRoot } from "../../crypto/Trust.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { DsseEnvelope } from "../../schemas/Dsse.ts"
import type { Digest } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import type { TrustRoot } from "../../schemas/TrustRoot.ts"
import { HomeError, OperatorHome, readJson, writeJson } from "./OperatorHome.ts"
import { rootFile } from "./Records.ts"

/** The newest root, and the digest of the first: claim codes and invitations name that one. */
export interface TrustedRoot {
  readonly root: TrustRoot
  readonly envelope: DsseEnvelope
  readonly firstDigest: Digest
  /** Envelopes of all versions, from 1. */
  readonly chain: ReadonlyArray<DsseEnvelope>
}

/** The operator's root, or undefined before `keys init`. Fails where the chain on disk does not hold. */
export const trustedRoot: Effect.Effect<TrustedRoot | undefined, HomeError, OperatorHome | CryptoEngine> =
  Effect.gen(function* () {
    const home = yield* OperatorHome
    const engine = yield* CryptoEngine
    const first = yield* readJson(rootFile(1), DsseEnvelope)
    if (first === undefined) return undefined
    const damaged = (version: number, reason: string) =>
      new HomeError({
        path: `${home.folder}/${rootFile(version)}`,
        reason: `this copy of the trust root does not hold (${reason}). Restore it from a backup`
      })
    const verified = verifyFirstRoot(engine, first, null)
    if (Result.isFailure(verified)) return yield* damaged(1, verified.failure.message)
    let root = verified.success.document
    const chain = [first]
    for (let version = 2; version <= Limits.rootChain; version++) {
      const envelope = yield* readJson(rootFile(version), DsseEnvelope)
      if (envelope === undefined) break
      const next = verifyNextRoot(engine, root, envelope)
      if (Result.isFailure(next)) return yield* damaged(version, next.failure.message)
      root = next.success.document
      chain.push(envelope)
    }
    return { root, envelope: chain.at(-1) as DsseEnvelope, firstDigest: verified.success.digest, chain }
  })

/** Keeps a root this operator made or verified: as its version, and as the newest. */
export const keepRoot = (
  version: number,
  envelope: DsseEnvelope
): Effect.Effect<void, HomeError, OperatorHome> =>
  Effect.andThen(
    writeJson(rootFile(version), DsseEnvelope, envelope),
    writeJson(rootFile("newest"), DsseEnvelope, envelope)
  )
