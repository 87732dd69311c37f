/**
 * DSSE envelopes (https://github.com/secure-systems-lab/dsse): signatures over payload type and payload bytes. What the
 * payload says is not looked at here.
 *
 * @module
 */
import { Result, Schema } from "effect"
import { DsseEnvelope } from "../schemas/Dsse.ts"
import { Limits } from "../schemas/Limits.ts"
import { decodeBase64, encodeBase64 } from "./Base64.ts"
import { concatBytes, utf8 } from "./Bytes.ts"
import { type JsonBounds, parseStrict } from "./CanonicalJson.ts"
import type { Engine } from "./Engine.ts"
import { encodeHex } from "./Hex.ts"

/** A key that signs: the id verifiers know it by, and its 32-byte Ed25519 seed. */
export interface EnvelopeSigner {
  readonly keyId: string
  readonly seed: Uint8Array
}

/** A key signatures are checked with: 32 bytes, Ed25519. */
export interface EnvelopeVerifier {
  readonly keyId: string
  readonly publicKey: Uint8Array
}

/** Bytes were not taken as an envelope: no sound JSON, or not of its shape. */
export class InvalidEnvelope extends Schema.TaggedError<InvalidEnvelope>()("InvalidEnvelope", {
  message: Schema.String
}) {}

/** DSSE's pre-authentication encoding: lengths in front, so that no two pairs of type and payload look alike. */
export const preAuthentication = (payloadType: string, payload: Uint8Array): Uint8Array => {
  const type = utf8(payloadType)
  return concatBytes(utf8(`DSSEv1 ${type.length} `), type, utf8(` ${payload.length} `), payload)
}

/** An envelope with one signature by each of the signers, in their order. */
export const signEnvelope = (
  engine: Engine,
  payloadType: string,
  payload: Uint8Array,
  signers: ReadonlyArray<EnvelopeSigner>
): DsseEnvelope => {
  const message = preAuthentication(payloadType, payload)
  const signatures = signers.map(({ keyId, seed }) => ({
    keyid: keyId as DsseEnvelope["signatures"][number]["keyid"],
    sig: encodeBase64(engine.ed25519.sign(message, seed))
  }))
  return { payloadType, payload: encodeBase64(payload), signatures }
}

/**
 * The ids of all verifiers that have a good signature on the envelope. A key counts once, however often it signed and
 * under however many ids it is listed; signatures by keys that are not listed are passed over. An envelope with more
 * signatures than `Limits.envelopeSignatures`, or whose payload is not strict base64, has none. Never throws.
 */
export const verifyEnvelope = (
  engine: Engine,
  envelope: DsseEnvelope,
  verifiers: ReadonlyArray<EnvelopeVerifier>
): ReadonlySet<string> => {
  const good = new Set<string>()
  const payload = decodeBase64(envelope.payload)
  if (payload === undefined || envelope.signatures.length > Limits.envelopeSignatures) return good
  const message = preAuthentication(envelope.payloadType, payload)
  const countedKeys = new Set<string>()
  for (const { keyId, publicKey } of verifiers) {
    const key = encodeHex(publicKey)
    if (good.has(keyId) || countedKeys.has(key)) continue
    const isSigned = envelope.signatures.some((signature) => {
      const bytes = signature.keyid === keyId ? decodeBase64(signature.sig) : undefined
      return bytes !== undefined && engine.ed25519.verify(bytes, message, publicKey)
    })
    if (!isSigned) continue
    good.add(keyId)
    countedKeys.add(key)
  }
  return good
}

/** Whether at least `threshold` (1 or more) different keys of the list signed the envelope. */
export const hasThreshold = (
  engine: Engine,
  envelope: DsseEnvelope,
  verifiers: ReadonlyArray<EnvelopeVerifier>,
  threshold: number
): boolean => threshold >= 1 && verifyEnvelope(engine, envelope, verifiers).size >= threshold

const decodeEnvelope = Schema.decodeUnknownResult(DsseEnvelope, { onExcessProperty: "error" })

/** Reads an envelope from strict JSON (it need not be canonical). Unknown members are refused. */
export const parseEnvelope = (
  bytes: Uint8Array,
  bounds?: JsonBounds
): Result.Result<DsseEnvelope, InvalidEnvelope> => {
  const refuse = (why: string) =>
    Result.fail(new InvalidEnvelope({ message: `The bytes are not a DSSE envelope. ${why}` }))
  const json = parseStrict(bytes, bounds)
  if (Result.isFailure(json)) return refuse(json.failure.message)
  const decoded = decodeEnvelope(json.success)
  return Result.isFailure(decoded) ? refuse(decoded.failure.message) : Result.succeed(decoded.success)
}
