/**
 * Judgement on everything signed, as pure functions from a trust root and bytes to a verdict. What a program does with
 * the verdict is its own business; nobody decides about signatures anywhere else.
 *
 * @module
 */
import { Result, type Schema } from "effect"
import { DeviceStatement } from "../schemas/DeviceStatement.ts"
import {
  Admission,
  BrokerServicesKey,
  EnrolmentRequest,
  Preauthorisation,
  type ServerIdentity
} from "../schemas/Enrolment.ts"
import type { DeviceId, Digest, KeyId, Recipient, ServerId, SigningKey } from "../schemas/Ids.ts"
import { Receipt } from "../schemas/Receipt.ts"
import { RolloutControl, RolloutPlan } from "../schemas/Rollout.ts"
import { Statement } from "../schemas/Statement.ts"
import { type RoleName, TrustRoot } from "../schemas/TrustRoot.ts"
import { CancelOrder, WorkOrder } from "../schemas/WorkOrder.ts"
import { parseRecipient } from "./AgeKeys.ts"
import { encodeBase32 } from "./Base32.ts"
import { decodeBase64 } from "./Base64.ts"
import { concatBytes, utf8 } from "./Bytes.ts"
import { Distrust, type Opened, openUnverified, verifyDocument } from "./Documents.ts"
import type { EnvelopeVerifier } from "./Dsse.ts"
import type { Engine } from "./Engine.ts"
import { deriveId } from "./IdentityKeys.ts"
import { invitationProofFits } from "./Invitations.ts"
import { parseEd25519PublicKey } from "./Keys.ts"

type Verdict<A> = Result.Result<A, Distrust>
type Verified<A> = Opened<A> & { readonly signers: ReadonlySet<string> }

const refuse = (code: Distrust["code"], detail: string) => Result.fail(new Distrust({ code, detail }))

/** The raw Ed25519 key behind its base64, or undefined where it is no acceptable key. */
export const signingKeyBytes = (key: SigningKey): Uint8Array | undefined => {
  const bytes = decodeBase64(key)
  if (bytes === undefined) return undefined
  const parsed = parseEd25519PublicKey(bytes)
  return Result.isSuccess(parsed) ? parsed.success : undefined
}

/** The id under which a role names an Ed25519 key (32 bytes). */
export const keyIdOf = (engine: Engine, publicKey: Uint8Array): KeyId =>
  `key_${encodeBase32(engine.sha256(concatBytes(utf8("postern/key/v1\0"), publicKey)))}` as KeyId

/** A root's keys of a role, and how many of them must sign. */
const roleOf = (
  root: TrustRoot,
  name: RoleName
): { verifiers: ReadonlyArray<EnvelopeVerifier>; threshold: number } => {
  const role = root.roles[name]
  const verifiers = role.keys.flatMap((keyId) => {
    const key = root.keys[keyId]
    const publicKey = key === undefined ? undefined : signingKeyBytes(key.public_key)
    return publicKey === undefined ? [] : [{ keyId, publicKey }]
  })
  return { verifiers, threshold: role.threshold }
}

/** What the schema cannot see: every key is a good one and stands under its own id; servers likewise. */
export const checkKeys = (engine: Engine, root: TrustRoot): Verdict<TrustRoot> => {
  for (const [keyId, key] of Object.entries(root.keys)) {
    const publicKey = signingKeyBytes(key.public_key)
    if (publicKey === undefined)
      return refuse("malformed", `the root's key ${keyId} is not an acceptable Ed25519 key`)
    if (keyIdOf(engine, publicKey) !== keyId)
      return refuse("malformed", `the root's key ${keyId} does not have that id`)
    if (key.recipient !== null && Result.isFailure(parseRecipient(key.recipient))) {
      return refuse("malformed", `the root's key ${keyId} has an unusable recipient`)
    }
  }
  for (const server of root.servers) {
    if (Result.isFailure(parseRecipient(server.recipient))) {
      return refuse("malformed", `the server ${server.id} has an unusable recipient`)
    }
  }
  return Result.succeed(root)
}

const verifyRootWith = (
  engine: Engine,
  envelope: unknown,
  judge: TrustRoot | null
): Verdict<Verified<TrustRoot>> => {
  const claimed = openUnverified(engine, "root", TrustRoot, envelope)
  if (Result.isFailure(claimed)) return Result.fail(claimed.failure)
  const keys = checkKeys(engine, claimed.success.document)
  if (Result.isFailure(keys)) return Result.fail(keys.failure)
  const { threshold, verifiers } = roleOf(judge ?? claimed.success.document, "root")
  return verifyDocument(engine, "root", TrustRoot, envelope, verifiers, threshold)
}

/**
 * A root taken as the first: it must be signed by its own root role and, where a digest is pinned (an invitation), be
 * that very root. Without a pin the caller must have a person compare a claim code, which binds the digest.
 */
export const verifyFirstRoot = (
  engine: Engine,
  envelope: unknown,
  pinned: Digest | null
): Verdict<Verified<TrustRoot>> => {
  const root = verifyRootWith(engine, envelope, null)
  if (Result.isFailure(root)) return root
  return pinned === null || root.success.digest === pinned
    ? root
    : refuse("unknown_key", `its digest is ${root.success.digest}, not the ${pinned} that was named`)
}

/** The root after `current`: the next version, signed by the root thresholds of both. Expiry is not judged here. */
export const verifyNextRoot = (
  engine: Engine,
  current: TrustRoot,
  envelope: unknown
): Verdict<Verified<TrustRoot>> => {
  const byCurrent = verifyRootWith(engine, envelope, current)
  if (Result.isFailure(byCurrent)) return byCurrent
  const next = byCurrent.success.document
  if (next.version !== current.version + 1) {
    return refuse("malformed", `it is version ${next.version} where ${current.version + 1} comes next`)
  }
  return verifyRootWith(engine, envelope, null)
}

/** What the operators role signs: orders, cancels, admissions, rollouts. */
const verifyByOperators = <A>(
  engine: Engine,
  root: TrustRoot,
  kind: "order" | "cancel" | "admission" | "preauthorisation" | "rollout" | "rolloutControl",
  schema: Schema.Codec<A, unknown>,
  envelope: unknown
): Verdict<Verified<A>> => {
  const { threshold, verifiers } = roleOf(root, "operators")
  return verifyDocument(engine, kind, schema, envelope, verifiers, threshold)
}

export const verifyOrder = (
  engine: Engine,
  root: TrustRoot,
  envelope: unknown
): Verdict<Verified<WorkOrder>> => verifyByOperators(engine, root, "order", WorkOrder, envelope)

export const verifyCancel = (
  engine: Engine,
  root: TrustRoot,
  envelope: unknown
): Verdict<Verified<CancelOrder>> => verifyByOperators(engine, root, "cancel", CancelOrder, envelope)

export const verifyAdmission = (
  engine: Engine,
  root: TrustRoot,
  envelope: unknown
): Verdict<Verified<Admission>> => verifyByOperators(engine, root, "admission", Admission, envelope)

export const verifyRollout = (
  engine: Engine,
  root: TrustRoot,
  envelope: unknown
): Verdict<Verified<RolloutPlan>> => verifyByOperators(engine, root, "rollout", RolloutPlan, envelope)

export const verifyRolloutControl = (
  engine: Engine,
  root: TrustRoot,
  envelope: unknown
): Verdict<Verified<RolloutControl>> =>
  verifyByOperators(engine, root, "rolloutControl", RolloutControl, envelope)

export const verifyPreauthorisation = (
  engine: Engine,
  root: TrustRoot,
  envelope: unknown
): Verdict<Verified<Preauthorisation>> =>
  verifyByOperators(engine, root, "preauthorisation", Preauthorisation, envelope)

/** Whether an id belongs to a signing key and the first recipient, as both devices and servers derive it. */
const idFits = (
  engine: Engine,
  kind: "device" | "server",
  id: string,
  signingKey: SigningKey,
  recipient: Recipient
): Verdict<Uint8Array> => {
  const publicKey = signingKeyBytes(signingKey)
  if (publicKey === undefined) return refuse("malformed", "its signing key is not an acceptable Ed25519 key")
  const parsed = parseRecipient(recipient)
  if (Result.isFailure(parsed)) return refuse("malformed", "its recipient is not an acceptable age key")
  return deriveId(engine, kind, publicKey, parsed.success) === id
    ? Result.succeed(publicKey)
    : refuse("malformed", `its id ${id} does not belong to its keys`)
}

/** A device's request to be let in, signed by the key it names; its id must belong to its keys, its invitation be proved. */
export const verifyEnrolment = (engine: Engine, envelope: unknown): Verdict<Verified<EnrolmentRequest>> => {
  const claimed = openUnverified(engine, "enrolment", EnrolmentRequest, envelope)
  if (Result.isFailure(claimed)) return Result.fail(claimed.failure)
  const { device, invitation, recipient, root_digest, server, signing_key } = claimed.success.document
  const key = idFits(engine, "device", device, signing_key, recipient)
  if (Result.isFailure(key)) return Result.fail(key.failure)
  if (
    invitation !== null &&
    !invitationProofFits(engine, { device, server, rootDigest: root_digest }, invitation)
  )
    return refuse("bad_signature", "it names an invitation and cannot prove that it has it")
  return verifyDocument(
    engine,
    "enrolment",
    EnrolmentRequest,
    envelope,
    [{ keyId: device, publicKey: key.success }],
    1
  )
}

/** The key of a server's broker services, by its own word; null where it carries no messages. */
export const brokerServicesOf = (engine: Engine, identity: ServerIdentity): Verdict<SigningKey | null> => {
  const { broker_services: envelope, server } = identity
  if (envelope === undefined) return Result.succeed(null)
  const publicKey = signingKeyBytes(identity.signing_key)
  if (publicKey === undefined) return refuse("malformed", "the server's signing key is not acceptable")
  const verifiers = [{ keyId: server, publicKey }]
  const verified = verifyDocument(engine, "broker_services", BrokerServicesKey, envelope, verifiers, 1)
  if (Result.isFailure(verified)) return Result.fail(verified.failure)
  const { server: speaker, signing_key: key } = verified.success.document
  if (speaker !== server) return refuse("malformed", `its broker services are those of ${speaker}`)
  return signingKeyBytes(key) === undefined
    ? refuse("malformed", "the key of its broker services is not acceptable")
    : Result.succeed(key)
}

/** Whether a server's public identity holds together. It proves nothing about who runs it. */
export const verifyServerIdentity = (engine: Engine, identity: ServerIdentity): Verdict<ServerIdentity> =>
  Result.flatMap(idFits(engine, "server", identity.server, identity.signing_key, identity.recipient), () =>
    Result.map(brokerServicesOf(engine, identity), () => identity)
  )

/** What a device signs with its own key: `signingKey` is from the device book, never from the server. */
const verifyByDevice = <A extends { readonly device: DeviceId }>(
  engine: Engine,
  kind: "receipt" | "device_statement",
  schema: Schema.Codec<A, unknown>,
  owner: { readonly device: DeviceId; readonly signingKey: SigningKey },
  envelope: unknown
): Verdict<Verified<A>> => {
  const publicKey = signingKeyBytes(owner.signingKey)
  if (publicKey === undefined) return refuse("malformed", "the device's signing key is not acceptable")
  const verified = verifyDocument(engine, kind, schema, envelope, [{ keyId: owner.device, publicKey }], 1)
  if (Result.isFailure(verified)) return verified
  return verified.success.document.device === owner.device
    ? verified
    : refuse("malformed", `it speaks of ${verified.success.document.device}`)
}

/** A receipt by the device that owns `signingKey` (from the device book, never from the server). */
export const verifyReceipt = (
  engine: Engine,
  device: DeviceId,
  signingKey: SigningKey,
  envelope: unknown
): Verdict<Verified<Receipt>> => verifyByDevice(engine, "receipt", Receipt, { device, signingKey }, envelope)

/** What a device says of itself; that its key can be encrypted to is checked too. */
export const verifyDeviceStatement = (
  engine: Engine,
  device: DeviceId,
  signingKey: SigningKey,
  envelope: unknown
): Verdict<Verified<DeviceStatement>> => {
  const owner = { device, signingKey }
  const verified = verifyByDevice(engine, "device_statement", DeviceStatement, owner, envelope)
  if (Result.isFailure(verified)) return verified
  return Result.isSuccess(parseRecipient(verified.success.document.recipient))
    ? verified
    : refuse("malformed", "its recipient is not an acceptable age key")
}

/** What a statement must say to be the answer to a request. */
export interface ExpectedStatement {
  readonly server: ServerId
  readonly device: DeviceId
  readonly nonce: string
  readonly status: number
  readonly bodyDigest: Digest
}

/** The server's signed answer: by a key of the servers role that the root gives this very server, and about this request. */
export const verifyStatement = (
  engine: Engine,
  root: TrustRoot,
  envelope: unknown,
  expected: ExpectedStatement
): Verdict<Verified<Statement>> => {
  const server = root.servers.find((candidate) => candidate.id === expected.server)
  const key = server === undefined ? undefined : root.keys[server.key]
  const publicKey = key === undefined ? undefined : signingKeyBytes(key.public_key)
  if (publicKey === undefined) return refuse("unknown_key", `the root knows no server ${expected.server}`)
  const verified = verifyDocument(
    engine,
    "statement",
    Statement,
    envelope,
    [{ keyId: expected.server, publicKey }],
    1
  )
  if (Result.isFailure(verified)) return verified
  const statement = verified.success.document
  const mismatch =
    statement.server !== expected.server
      ? "server"
      : statement.device !== expected.device
        ? "device"
        : statement.nonce !== expected.nonce
          ? "nonce"
          : statement.status !== expected.status
            ? "status"
            : statement.body_digest !== expected.bodyDigest
              ? "body"
              : undefined
  return mismatch === undefined
    ? verified
    : refuse("bad_signature", `its ${mismatch} is not that of this answer`)
}
