/**
 * What a device believes about its root and about itself, as plain functions: taking in roots and decisions, and keeping
 * them as text. Everything read back is verified again.
 *
 * @module
 */
import { Result, Schema } from "effect"
import { canonicalBytes } from "../crypto/CanonicalJson.ts"
import { digestOf, openUnverified } from "../crypto/Documents.ts"
import type { Engine } from "../crypto/Engine.ts"
import {
  keyIdOf,
  signingKeyBytes,
  verifyAdmission,
  verifyFirstRoot,
  verifyNextRoot,
  verifyPreauthorisation
} from "../crypto/Trust.ts"
import type { AgentStanding } from "../ports/AgentTrust.ts"
import { HighWater } from "../schemas/DeviceApi.ts"
import { DsseEnvelope, PayloadTypes } from "../schemas/Dsse.ts"
import { Admission, Preauthorisation, type ServerIdentity } from "../schemas/Enrolment.ts"
import {
  Count,
  type DeviceId,
  Digest,
  type Incarnation,
  type InvitationId,
  type Recipient,
  ServerId,
  type SigningKey
} from "../schemas/Ids.ts"
import { type HeldRoot, LedgerObjection, type TrustPhase } from "../schemas/protocols/TrustKeeper.ts"
import type { TrustRoot } from "../schemas/TrustRoot.ts"

/** Why something was not taken in, in a sentence for people. */
export type Doubt = string

const StoredRoot = Schema.fromJsonString(
  Schema.Struct({ first_digest: Digest, server: ServerId, latest: DsseEnvelope })
)
const decodeEnvelope = Schema.decodeUnknownResult(Schema.fromJsonString(DsseEnvelope))
const decodeStored = Schema.decodeUnknownResult(StoredRoot)

/** The text to keep of a root. */
export const storeRoot = (held: HeldRoot): string =>
  JSON.stringify({ first_digest: held.firstDigest, server: held.server, latest: held.envelope })

/** A kept root, checked again: by its own signatures, since the chain to it was checked when it came. */
export const restoreRoot = (engine: Engine, text: string): Result.Result<HeldRoot, Doubt> => {
  const stored = decodeStored(text)
  if (Result.isFailure(stored)) return Result.fail("the stored root cannot be read")
  const { first_digest: firstDigest, latest: envelope, server } = stored.success
  const root = verifyFirstRoot(engine, envelope, null)
  return Result.isFailure(root)
    ? Result.fail(`the stored root is damaged: ${root.failure.message}`)
    : Result.succeed({ firstDigest, server, envelope, root: root.success.document })
}

/** What an invitation names: nothing else may be the device's first root. */
export interface Pin {
  readonly server: ServerId
  readonly rootDigest: Digest
}

/** Whether a kept root is the one an invitation names, or came from it. Without an invitation there is nothing to fit. */
export const fitsPin = (held: HeldRoot, pin: Pin | null): boolean =>
  pin === null || (held.firstDigest === pin.rootDigest && held.server === pin.server)

/** Whether a root knows a server under the key it showed. */
const knows = (engine: Engine, root: TrustRoot, identity: ServerIdentity): boolean => {
  const entry = root.servers.find((server) => server.id === identity.server)
  const key = signingKeyBytes(identity.signing_key)
  return entry !== undefined && key !== undefined && keyIdOf(engine, key) === entry.key
}

/**
 * The first root a device takes: version 1 from the server, pinned by an invitation's digest or, without one, to be
 * compared by a person through the claim code.
 */
export const firstRoot = (
  engine: Engine,
  identity: ServerIdentity,
  envelope: DsseEnvelope,
  pin: Pin | null
): Result.Result<HeldRoot, Doubt> => {
  if (pin !== null && pin.server !== identity.server) {
    return Result.fail(`the invitation is for the server ${pin.server}, but ${identity.server} answered`)
  }
  const first = verifyFirstRoot(engine, envelope, pin?.rootDigest ?? null)
  if (Result.isFailure(first))
    return Result.fail(`the server's root is not acceptable: ${first.failure.message}`)
  const { digest, document: root } = first.success
  if (root.version !== 1) return Result.fail(`the server's first root has the version ${root.version}, not 1`)
  return Result.succeed({ firstDigest: digest, server: identity.server, envelope, root })
}

/** Goes on along a chain of roots, as far as it holds; the doubt says why it ended early. */
export const followRoots = (
  engine: Engine,
  held: HeldRoot,
  chain: ReadonlyArray<DsseEnvelope>
): { readonly held: HeldRoot; readonly doubt: Doubt | null } => {
  let current = held
  for (const envelope of chain) {
    const next = verifyNextRoot(engine, current.root, envelope)
    if (Result.isFailure(next)) {
      return {
        held: current,
        doubt: `the root after version ${current.root.version} is not acceptable: ${next.failure.message}`
      }
    }
    current = { ...current, envelope, root: next.success.document }
  }
  return { held: current, doubt: null }
}

/** Whether the server that answered stands in the root, under its own key. */
export const checkServer = (engine: Engine, held: HeldRoot, identity: ServerIdentity): Doubt | null =>
  knows(engine, held.root, identity)
    ? null
    : `the trust root ${held.root.version} does not name the server ${identity.server} with the key it uses`

/** This device, as a decision must name it. */
export interface Self {
  readonly device: DeviceId
  readonly signingKey: SigningKey
  readonly recipient: Recipient
  readonly incarnation: Incarnation
}

/** A decision taken in. */
export interface HeldAdmission {
  readonly envelope: DsseEnvelope
  readonly admission: Admission
}

/** What a decision must name to be about this device, or why it is not. */
const aboutUs = (admission: Admission, held: HeldRoot, self: Self): Doubt | null => {
  const { device, recipient, signing_key: signingKey } = admission
  if (device !== self.device || signingKey !== self.signingKey || recipient !== self.recipient) {
    return "it is about another device"
  }
  return admission.server === held.server ? null : `it is for the server ${admission.server}`
}

/** Whether a decision is by our operators and about this very device. */
const judgeAdmission = (
  engine: Engine,
  held: HeldRoot,
  self: Self,
  envelope: DsseEnvelope
): Result.Result<HeldAdmission, Doubt> => {
  const verified = verifyAdmission(engine, held.root, envelope)
  if (Result.isFailure(verified))
    return Result.fail(`its signatures are not good: ${verified.failure.message}`)
  const admission = verified.success.document
  const wrong = aboutUs(admission, held, self)
  return wrong === null ? Result.succeed({ envelope, admission }) : Result.fail(wrong)
}

/** An acceptance made beforehand as a decision: below every other one, for the ledger that took it in. */
const asDecision = (
  { issued_at_ms, name, root_version, server }: Preauthorisation,
  self: Self,
  envelope: DsseEnvelope
): HeldAdmission => ({
  envelope,
  admission: {
    type: "postern/admission/v1",
    decision: "accept",
    device: self.device,
    name,
    signing_key: self.signingKey,
    recipient: self.recipient,
    server,
    incarnation: self.incarnation,
    root_version,
    sequence: 0,
    issued_at_ms
  }
})

const isPreauthorisation = (envelope: DsseEnvelope): boolean =>
  envelope.payloadType === PayloadTypes.preauthorisation.payloadType

/** Whether an acceptance made beforehand is by our operators, for this device or the invitation it has, and still good. */
const judgePreauthorisation = (
  engine: Engine,
  held: HeldRoot,
  self: Self,
  envelope: DsseEnvelope,
  came: { readonly invitation: InvitationId | null; readonly nowMs: number }
): Result.Result<HeldAdmission, Doubt> => {
  const verified = verifyPreauthorisation(engine, held.root, envelope)
  if (Result.isFailure(verified))
    return Result.fail(`its signatures are not good: ${verified.failure.message}`)
  const document = verified.success.document
  const { expires_at_ms, root_digest, server, subject } = document
  if (subject !== self.device && subject !== came.invitation) return Result.fail(`it is for ${subject}`)
  if (server !== held.server) return Result.fail(`it is for the server ${server}`)
  if (root_digest !== held.firstDigest) return Result.fail("it is for the fleet of another first root")
  return expires_at_ms <= came.nowMs
    ? Result.fail("it has expired")
    : Result.succeed(asDecision(document, self, envelope))
}

/** Whether a decision, about this very device or made beforehand, is by our operators. */
export const judgeDecision = (
  engine: Engine,
  held: HeldRoot,
  self: Self,
  envelope: DsseEnvelope,
  came: { readonly invitation: InvitationId | null; readonly nowMs: number }
): Result.Result<HeldAdmission, Doubt> =>
  isPreauthorisation(envelope)
    ? judgePreauthorisation(engine, held, self, envelope, came)
    : judgeAdmission(engine, held, self, envelope)

/**
 * A decision this device kept. Its signatures were good under the root of its day, and stay so: a root that takes an
 * operator's key away must not turn out every device that operator ever accepted.
 */
export const restoreAdmission = (
  engine: Engine,
  held: HeldRoot,
  self: Self,
  text: string
): Result.Result<HeldAdmission, Doubt> => {
  const envelope = decodeEnvelope(text)
  if (Result.isFailure(envelope)) return Result.fail("it cannot be read")
  if (isPreauthorisation(envelope.success)) {
    const before = openUnverified(engine, "preauthorisation", Preauthorisation, envelope.success)
    return Result.isFailure(before)
      ? Result.fail(`it is damaged: ${before.failure.message}`)
      : Result.succeed(asDecision(before.success.document, self, envelope.success))
  }
  const opened = openUnverified(engine, "admission", Admission, envelope.success)
  if (Result.isFailure(opened)) return Result.fail(`it is damaged: ${opened.failure.message}`)
  const wrong = aboutUs(opened.success.document, held, self)
  return wrong === null
    ? Result.succeed({ envelope: envelope.success, admission: opened.success.document })
    : Result.fail(wrong)
}

/**
 * The decision that counts of the one held and one that came: the higher sequence. The same decision come again changes
 * nothing; another one of an equal or lower sequence is refused.
 */
export const newerAdmission = (
  engine: Engine,
  held: HeldAdmission | null,
  came: HeldAdmission
): Result.Result<HeldAdmission, Doubt> => {
  if (held === null || came.admission.sequence > held.admission.sequence) return Result.succeed(came)
  const same =
    digestOf(engine, canonicalBytes(came.admission)) === digestOf(engine, canonicalBytes(held.admission))
  return same
    ? Result.succeed(held)
    : Result.fail(`its sequence ${came.admission.sequence} is not above the last, ${held.admission.sequence}`)
}

/** What a decision means for a ledger of this incarnation. */
export const phaseOf = (held: HeldAdmission | null, incarnation: Incarnation): TrustPhase => {
  if (held === null) return "not_enrolled"
  switch (held.admission.decision) {
    case "accept":
      return held.admission.incarnation === incarnation ? "accepted" : "not_enrolled"
    case "reject":
      return "rejected"
    case "revoke":
      return "revoked"
  }
}

/** An objection as it is kept: it counts until a decision with a higher sequence comes. */
export const HeldObjection = Schema.Struct({
  objection: LedgerObjection,
  /** Sequence of the decision that was in force. */
  sequence: Count,
  /** The last order taken until then. */
  mark: Schema.NullOr(HighWater)
})
export type HeldObjection = typeof HeldObjection.Type

const decodeObjection = Schema.decodeUnknownResult(Schema.fromJsonString(HeldObjection))

/** A kept objection, or null where it cannot be read. */
export const restoreObjection = (text: string): HeldObjection | null => {
  const kept = decodeObjection(text)
  return Result.isSuccess(kept) ? kept.success : null
}

/** What is held against the ledger still, after the decision in force. */
export const objectionOf = (
  kept: HeldObjection | null,
  admission: HeldAdmission | null
): LedgerObjection | null =>
  kept !== null && (admission?.admission.sequence ?? 0) <= kept.sequence ? kept.objection : null

/**
 * Who the device is as an agent, and whose word it takes as that of broker services. Null where it is not accepted, or
 * holds no root in force that names any.
 */
export const agentStandingOf = (
  held: HeldRoot | null,
  admission: HeldAdmission | null,
  self: Self,
  nowMs: number
): AgentStanding | null => {
  const isAccepted = phaseOf(admission, self.incarnation) === "accepted"
  if (held === null || admission === null || !isAccepted || held.root.expires_at_ms <= nowMs) return null
  const { keys, roles } = held.root
  const services = new Set(roles.broker_services.keys.flatMap((key) => keys[key]?.public_key ?? []))
  if (services.size === 0) return null
  return { name: admission.admission.name, device: self.device, server: held.server, services }
}
