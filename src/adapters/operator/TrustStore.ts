/**
 * The operator's own copy of the trust root: every version from the first, verified as a chain whenever it is read.
 *
 * @module
 */
import { Effect, Result } from "effect"
import type { Distrust, Opened } from "../../crypto/Documents.ts"
import type { Engine } from "../../crypto/Engine.ts"
import {
  verifyAdmission,
  verifyFirstRoot,
  verifyNextRoot,
  verifyOrder,
  verifyRollout,
  verifyRolloutControl
} from "../../crypto/Trust.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { DsseEnvelope } from "../../schemas/Dsse.ts"
import type { Admission } from "../../schemas/Enrolment.ts"
import type { Digest } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import type { RolloutControl, RolloutPlan } from "../../schemas/Rollout.ts"
import type { TrustRoot } from "../../schemas/TrustRoot.ts"
import type { WorkOrder } from "../../schemas/WorkOrder.ts"
import { HomeError, OperatorHome, readJson, writeJson } from "./OperatorHome.ts"
import { rootFile } from "./Records.ts"

/** The newest root, and the digest of the first: claim codes and invitations name that one. */
export interface TrustedRoot {
  readonly root: TrustRoot
  readonly envelope: DsseEnvelope
  readonly firstDigest: Digest
  /** Envelopes of all versions, from 1. */
  readonly chain: ReadonlyArray<DsseEnvelope>
  /** What is in them. */
  readonly history: ReadonlyArray<TrustRoot>
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
    const history = [root]
    for (let version = 2; version <= Limits.rootChain; version++) {
      const envelope = yield* readJson(rootFile(version), DsseEnvelope)
      if (envelope === undefined) break
      const next = verifyNextRoot(engine, root, envelope)
      if (Result.isFailure(next)) return yield* damaged(version, next.failure.message)
      root = next.success.document
      chain.push(envelope)
      history.push(root)
    }
    const envelope = chain.at(-1) as DsseEnvelope
    return { root, envelope, firstDigest: verified.success.digest, chain, history }
  })

/** The first verdict that is good, of the newest root and then the older ones down to the version a document names. */
const underPastRoots = <A extends { readonly root_version: number }, E>(
  { history, root }: TrustedRoot,
  verify: (root: TrustRoot) => Result.Result<Opened<A>, E>
): Result.Result<Opened<A>, E> => {
  const byNewest = verify(root)
  if (Result.isSuccess(byNewest)) return byNewest
  for (const past of history.toReversed()) {
    const verified = verify(past)
    if (Result.isSuccess(verified) && verified.success.document.root_version <= past.version) return verified
  }
  return byNewest
}

/**
 * Whether an order was signed by those who were operators when it may have been: under any version from the one it names
 * on. For judging what happened; whether it may happen still is for the devices, by the newest root alone.
 */
export const verifyPastOrder = (
  engine: Engine,
  trusted: TrustedRoot,
  envelope: unknown
): Result.Result<Opened<WorkOrder>, Distrust> =>
  underPastRoots(trusted, (root) => verifyOrder(engine, root, envelope))

/**
 * The same for a decision about a device. A key that was stolen can sign in the past's name: only for a person who knows
 * that it was not.
 */
export const verifyPastAdmission = (
  engine: Engine,
  trusted: TrustedRoot,
  envelope: unknown
): Result.Result<Opened<Admission>, Distrust> =>
  underPastRoots(trusted, (root) => verifyAdmission(engine, root, envelope))

/** The same for a plan of a rollout, which may have been signed before the newest root. */
export const verifyPastRollout = (
  engine: Engine,
  trusted: TrustedRoot,
  envelope: unknown
): Result.Result<Opened<RolloutPlan>, Distrust> =>
  underPastRoots(trusted, (root) => verifyRollout(engine, root, envelope))

/** The same for a word to a rollout. */
export const verifyPastRolloutControl = (
  engine: Engine,
  trusted: TrustedRoot,
  envelope: unknown
): Result.Result<Opened<RolloutControl>, Distrust> =>
  underPastRoots(trusted, (root) => verifyRolloutControl(engine, root, envelope))

/** Keeps a root this operator made or verified: as its version, and as the newest. */
export const keepRoot = (
  version: number,
  envelope: DsseEnvelope
): Effect.Effect<void, HomeError, OperatorHome> =>
  Effect.andThen(
    writeJson(rootFile(version), DsseEnvelope, envelope),
    writeJson(rootFile("newest"), DsseEnvelope, envelope)
  )
