/** Devices nobody has decided about yet: how fast strangers are let onto the list, and who was let in beforehand. */
import { Effect, Result } from "effect"
import { verifyPreauthorisation } from "../crypto/Trust.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { FleetStore } from "../ports/FleetStore.ts"
import type { FleetRoot } from "../ports/FleetTrust.ts"
import { Identity } from "../ports/Identity.ts"
import type { EnrolmentRequest, Preauthorisation, PreauthorisedSubject } from "../schemas/Enrolment.ts"
import { Limits } from "../schemas/Limits.ts"

/**
 * Whether a request may be written down now. Devices that are known, and those with a valid invitation, always; strangers at
 * a bounded rate, so that they neither fill the disk nor push out a stranger who waits and keeps asking.
 */
export const makeTurnstile = Effect.map(FleetStore, (store) => {
  let tokens: number = Limits.enrolmentBurst
  let filledAtMs = 0
  return Effect.fnUntraced(function* (request: EnrolmentRequest, nowMs: number) {
    if ((yield* store.device(request.device)) !== null) return true
    if (request.invitation !== null && (yield* store.invitationValid(request.invitation.id, nowMs)))
      return true
    const elapsedMs = Math.max(0, nowMs - filledAtMs)
    tokens = Math.min(Limits.enrolmentBurst, tokens + (elapsedMs * Limits.enrolmentsPerSecond) / 1_000)
    filledAtMs = nowMs
    if (tokens < 1) return false
    tokens -= 1
    return true
  })
})

/** Why a pre-authorisation does not hold for this fleet now, or null. */
export const preauthorisationFlaw = (
  document: Preauthorisation,
  root: FleetRoot,
  server: string,
  nowMs: number
): string | null => {
  if (document.server !== server) return `it is for the server ${document.server}`
  if (document.root_digest !== root.firstDigest) return "it is for the fleet of another first root"
  if (document.expires_at_ms <= nowMs) return "it has expired"
  return document.expires_at_ms > nowMs + Limits.invitationLifetimeMs ? "it expires too late" : null
}

/** Accepts a device that waits, where an operator signed beforehand that it may come in. */
export const makePreauthorised = Effect.gen(function* () {
  const store = yield* FleetStore
  const engine = yield* CryptoEngine
  const identity = yield* Identity

  const accept = Effect.fnUntraced(function* (
    request: EnrolmentRequest,
    subject: PreauthorisedSubject,
    root: FleetRoot,
    nowMs: number
  ) {
    const envelope = yield* store.preauthorisation(subject, nowMs)
    if (envelope === null) return
    // Judged again: the operator who signed it may have been revoked since.
    const verified = verifyPreauthorisation(engine, root.root, envelope)
    const flaw = Result.isFailure(verified)
      ? verified.failure.message
      : preauthorisationFlaw(verified.success.document, root, identity.id, nowMs)
    if (Result.isFailure(verified) || flaw !== null)
      return yield* Effect.logWarning(`the pre-authorisation of ${subject} does not hold any more: ${flaw}`)
    const { name, root_version } = verified.success.document
    const { device, incarnation, recipient, server, signing_key } = request
    const outcome = yield* store.admitBeforehand(
      {
        type: "postern/admission/v1",
        decision: "accept",
        device,
        name,
        signing_key,
        recipient,
        server,
        incarnation,
        root_version,
        sequence: 0,
        issued_at_ms: nowMs
      },
      subject,
      envelope,
      nowMs
    )
    yield* outcome === "name_taken"
      ? Effect.logWarning(`the pre-authorised ${device} waits: another accepted device is called ${name}`)
      : Effect.logInfo(`${device} was pre-authorised as ${name}: ${outcome}`)
  })

  return Effect.fnUntraced(function* (request: EnrolmentRequest, root: FleetRoot, nowMs: number) {
    yield* accept(request, request.device, root, nowMs)
    // Its proof was verified with the request.
    if (request.invitation !== null) yield* accept(request, request.invitation.id, root, nowMs)
  })
})
