/**
 * The trust keeper's talks with the server, one step at a time: get the first root, follow the chain, ask to be let in.
 * A step changes nothing but the link's trust; what it brings is taken in by the keeper.
 */
import { Effect, Redacted, Result } from "effect"
import { proveInvitation } from "../crypto/Invitations.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { Identity } from "../ports/Identity.ts"
import { Ledger } from "../ports/Ledger.ts"
import { type LinkError, ServerLink } from "../ports/ServerLink.ts"
import type { EnrolmentRequest } from "../schemas/Enrolment.ts"
import type { DeviceId, Digest, Name, ServerId } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import type { HeldRoot, TrustPhase, TrustStep } from "../schemas/protocols/TrustKeeper.ts"
import type { RouteFailure } from "../schemas/RouteFailure.ts"
import { software } from "../schemas/Version.ts"
import { onionKeyMember } from "./SignStatement.ts"
import { checkServer, firstRoot, followRoots } from "./TrustState.ts"

/** How this device is to be let in. */
export interface TrustOptions {
  /** What an invitation pins and proves; null for the claim code. */
  readonly invitation: {
    readonly server: ServerId
    readonly rootDigest: Digest
    readonly secret: Redacted.Redacted<string>
  } | null
  /** The name it asks for. */
  readonly name: Name | null
}

/** The link's error in a sentence. */
export const linkProblem = (error: LinkError): string => {
  switch (error._tag) {
    case "ServerUnreachable":
      return `the server ${error.address} is not reached: ${error.reason}`
    case "ServerRefused":
      return `the server refuses (${error.code}): ${error.message}`
    case "ServerUntrusted":
      return `what answers at ${error.address} is not trusted: ${error.reason}`
  }
}

/** What failed on the way to the server, where that is known. */
export const routeFailureOf = (error: LinkError): RouteFailure | null =>
  error._tag === "ServerUnreachable" ? (error.code ?? null) : null

const nothing: TrustStep = {
  held: null,
  admission: null,
  onionShared: null,
  status: null,
  failed: false,
  reached: true,
  code: null,
  detail: ""
}
const failed = (detail: string): TrustStep => ({ ...nothing, failed: true, detail })
const failedWith = (error: LinkError): TrustStep => ({
  ...failed(linkProblem(error)),
  // What answers in its place is not it.
  reached: error._tag === "ServerRefused",
  code: routeFailureOf(error)
})

/** All roots after the held one that the server has, as far as they hold. */
const follow = Effect.fnUntraced(function* (start: HeldRoot) {
  const link = yield* ServerLink
  const engine = yield* CryptoEngine
  let held = start
  for (let version = start.root.version; held.root.version < start.root.version + Limits.rootChain; ) {
    const { roots } = yield* link.roots(version + 1)
    if (roots.length === 0) break
    const followed = followRoots(engine, held, roots)
    held = followed.held
    if (followed.doubt !== null) yield* Effect.logError(followed.doubt)
    // A chain that does not grow would be asked for again and again.
    if (followed.doubt !== null || held.root.version === version) break
    version = held.root.version
  }
  return held
})

/** The newest root. Who has to enrol goes on with the one at hand: it may reach the address for enrolment alone. */
const renew = (held: HeldRoot, mustEnrol: boolean) =>
  Effect.catchIf(
    follow(held),
    (error) => mustEnrol && error._tag === "ServerUnreachable",
    () => Effect.succeed(held)
  )

/** The first root, or why there is none yet. */
const acquire = Effect.fnUntraced(function* (options: TrustOptions) {
  const link = yield* ServerLink
  const engine = yield* CryptoEngine
  const identity = yield* link.identity
  const { roots } = yield* link.roots(1)
  const first = roots[0]
  if (first === undefined)
    return "the server has no trust root yet: an operator must publish one (`postern keys publish`)"
  const taken = firstRoot(engine, identity, first, options.invitation)
  if (Result.isFailure(taken)) return taken.failure
  const held = yield* follow(taken.success)
  return checkServer(engine, held, identity) ?? held
})

/** Asks to be let in, with the invitation's proof where there is one. */
const enrol = Effect.fnUntraced(function* (options: TrustOptions, held: HeldRoot) {
  const link = yield* ServerLink
  const engine = yield* CryptoEngine
  const identity = yield* Identity
  const ledger = yield* Ledger
  const clock = yield* DeviceClock
  const device = identity.id as DeviceId
  const { invitation, name } = options
  const bound = { device, server: held.server, rootDigest: held.firstDigest }
  const secret = invitation === null ? null : Redacted.value(invitation.secret)
  const request: EnrolmentRequest = {
    type: "postern/enrolment/v1",
    device,
    name,
    signing_key: identity.signingKey,
    recipient: identity.recipient,
    server: held.server,
    root_digest: held.firstDigest,
    incarnation: ledger.incarnation,
    invitation: secret === null ? null : proveInvitation(engine, secret, bound),
    software,
    issued_at_ms: yield* clock.nowMs,
    ...(yield* onionKeyMember)
  }
  const { envelope } = yield* identity.sign("enrolment", request)
  const answer = yield* link.enrol(envelope)
  yield* clock.accept(answer.serverTimeMs)
  return answer.body
})

/** One step: get or renew the root, then, unless accepted, ask to be let in. Never fails: the step says what happened. */
export const trustStep = (
  options: TrustOptions,
  before: { readonly held: HeldRoot | null; readonly phase: TrustPhase; readonly enrol: boolean }
) =>
  Effect.gen(function* () {
    const link = yield* ServerLink
    const got = before.held === null ? yield* acquire(options) : yield* renew(before.held, before.enrol)
    if (typeof got === "string") return failed(got)
    yield* link.trust({ root: got.root, server: got.server })
    const step: TrustStep = { ...nothing, held: got }
    if (before.phase === "accepted" && !before.enrol) return step
    const answer = yield* Effect.result(enrol(options, got))
    return Result.isSuccess(answer)
      ? {
          ...step,
          admission: answer.success.admission ?? answer.success.preauthorisation,
          onionShared: answer.success.onion_shared ?? null,
          status: answer.success.status
        }
      : { ...failedWith(answer.failure), held: got }
  }).pipe(Effect.catch((error: LinkError) => Effect.succeed(failedWith(error))))
