/**
 * Signed documents: canonical JSON of a known kind inside a DSSE envelope. Signatures are judged before the content is
 * looked at; a document that is not byte for byte its own canonical form, or has a member its schema does not know,
 * is refused.
 *
 * @module
 */
import { Predicate, Result, Schema } from "effect"
import { DsseEnvelope, PayloadTypes, type SignedKind } from "../schemas/Dsse.ts"
import type { Digest } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import { decodeBase64 } from "./Base64.ts"
import { canonicalBytes, parseCanonical } from "./CanonicalJson.ts"
import { type EnvelopeSigner, type EnvelopeVerifier, signEnvelope, verifyEnvelope } from "./Dsse.ts"
import type { Engine } from "./Engine.ts"
import { encodeHex } from "./Hex.ts"

/** Why a signed document is not taken, from the envelope's size to the last member. */
export const DistrustCode = Schema.Literals([
  "too_large",
  "malformed",
  "unknown_key",
  "bad_signature",
  "threshold_not_met"
])
export type DistrustCode = typeof DistrustCode.Type

/** A signed document was not taken. `code` for programs, `detail` for people; it may quote untrusted text. */
export class Distrust extends Schema.TaggedError<Distrust>()("Distrust", {
  code: DistrustCode,
  detail: Schema.String
}) {
  override get message() {
    return `${this.code}: ${this.detail}`
  }
}

/** A document and the digest of its payload bytes: the name by which other documents refer to it. */
export interface Opened<A> {
  readonly document: A
  readonly digest: Digest
}

/** SHA-256 in the form documents carry it. */
export const digestOf = (engine: Engine, bytes: Uint8Array): Digest =>
  `sha256:${encodeHex(engine.sha256(bytes))}` as Digest

/** Signs a document of a kind. The document must already be the encoded (JSON) form its schema describes. */
export const signDocument = (
  engine: Engine,
  kind: SignedKind,
  document: unknown,
  signers: ReadonlyArray<EnvelopeSigner>
): { readonly envelope: DsseEnvelope; readonly digest: Digest } => {
  const payload = canonicalBytes(document)
  return {
    envelope: signEnvelope(engine, PayloadTypes[kind].payloadType, payload, signers),
    digest: digestOf(engine, payload)
  }
}

const distrust = (code: DistrustCode, detail: string) => Result.fail(new Distrust({ code, detail }))

const decodeEnvelope = Schema.decodeUnknownResult(DsseEnvelope, { onExcessProperty: "error" })

/** The bytes an envelope carries, checked for size, kind and shape but not for signatures. */
const payloadOf = (
  kind: SignedKind,
  envelope: unknown
): Result.Result<[DsseEnvelope, Uint8Array], Distrust> => {
  if (Predicate.hasProperty(envelope, "payload") && Predicate.isString(envelope.payload)) {
    // Said before the schema says it, since "too large" has a code of its own.
    if (envelope.payload.length > Limits.envelopeBytes) {
      return distrust("too_large", `its payload has ${envelope.payload.length} characters of base64`)
    }
  }
  const decoded = decodeEnvelope(envelope)
  if (Result.isFailure(decoded)) return distrust("malformed", "it is not a DSSE envelope")
  const expected = PayloadTypes[kind].payloadType
  if (decoded.success.payloadType !== expected) {
    return distrust("malformed", `it is a ${decoded.success.payloadType}, not a ${expected}`)
  }
  const payload = decodeBase64(decoded.success.payload)
  if (payload === undefined) return distrust("malformed", "its payload is not strict base64")
  if (payload.length > Limits.envelopeBytes)
    return distrust("too_large", `its payload has ${payload.length} bytes`)
  return Result.succeed([decoded.success, payload])
}

const decodePayload = <A>(
  engine: Engine,
  schema: Schema.Codec<A, unknown>,
  payload: Uint8Array
): Result.Result<Opened<A>, Distrust> => {
  const json = parseCanonical(payload)
  if (Result.isFailure(json)) return distrust("malformed", json.failure.message)
  const decoded = Schema.decodeUnknownResult(schema, { onExcessProperty: "error" })(json.success)
  if (Result.isFailure(decoded)) return distrust("malformed", decoded.failure.message)
  return Result.succeed({ document: decoded.success, digest: digestOf(engine, payload) })
}

/**
 * Reads a document without asking who signed it: for showing, for finding the key a document claims as its own, and
 * for the digest of what came. Never act on it.
 */
export const openUnverified = <A>(
  engine: Engine,
  kind: SignedKind,
  schema: Schema.Codec<A, unknown>,
  envelope: unknown
): Result.Result<Opened<A>, Distrust> => {
  const payload = payloadOf(kind, envelope)
  return Result.isFailure(payload)
    ? Result.fail(payload.failure)
    : decodePayload(engine, schema, payload.success[1])
}

/** The digest of the payload bytes of anything that came as an envelope, even a broken one (then of its JSON text). */
export const digestOfEnvelope = (engine: Engine, envelope: DsseEnvelope): Digest =>
  digestOf(engine, decodeBase64(envelope.payload) ?? canonicalBytes(envelope))

/** Checks that at least `threshold` different `verifiers` signed a document of the kind, then reads it. */
export const verifyDocument = <A>(
  engine: Engine,
  kind: SignedKind,
  schema: Schema.Codec<A, unknown>,
  envelope: unknown,
  verifiers: ReadonlyArray<EnvelopeVerifier>,
  threshold: number
): Result.Result<Opened<A> & { readonly signers: ReadonlySet<string> }, Distrust> => {
  const payload = payloadOf(kind, envelope)
  if (Result.isFailure(payload)) return Result.fail(payload.failure)
  const [decoded, bytes] = payload.success
  const known = new Set(verifiers.map((verifier) => verifier.keyId))
  const signers = verifyEnvelope(engine, decoded, verifiers)
  if (signers.size < threshold || threshold < 1) {
    const fromKnown = decoded.signatures.filter((signature) => known.has(signature.keyid))
    if (fromKnown.length === 0)
      return distrust("unknown_key", "none of its signatures is by a key that may sign it")
    if (fromKnown.some((signature) => !signers.has(signature.keyid))) {
      return distrust("bad_signature", "a signature does not fit its content")
    }
    return distrust("threshold_not_met", `it has ${signers.size} good signatures and needs ${threshold}`)
  }
  const opened = decodePayload(engine, schema, bytes)
  return Result.isFailure(opened)
    ? Result.fail(opened.failure)
    : Result.succeed({ ...opened.success, signers })
}
