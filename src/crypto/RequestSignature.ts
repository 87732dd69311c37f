/**
 * Signatures on requests (RFC 9421, HTTP Message Signatures) with a Content-Digest (RFC 9530), in exactly one form:
 *
 *     Content-Digest: sha-256=:<base64>:
 *     Signature-Input: postern=("@method" "@authority" "@path" "@query" "content-digest" "content-type")
 *         ;created=<seconds>;nonce="<26 characters>";keyid="<id>";alg="ed25519";tag="postern-v1"
 *     Signature: postern=:<base64>:
 *
 * RFC 9421 leaves much to choose; every choice left open is one more way to sign less than was meant. So any other
 * component, order, parameter, label, spacing or second signature is refused.
 *
 * Left to the caller, because it needs state: whether `created` is near, whether the nonce is new, whose the key is,
 * and whether `authority` is one of the server's own.
 *
 * @module
 */
import { Result, Schema } from "effect"
import { decodeBase64, encodeBase64 } from "./Base64.ts"
import { equalBytes, utf8 } from "./Bytes.ts"
import { type Engine, ed25519SignatureBytes, sha256Bytes } from "./Engine.ts"

/**
 * A request was refused.
 *
 * - `request_malformed`: method, authority, path, query or content type cannot be signed unambiguously
 * - `header_missing`: one of the three headers is not there
 * - `digest_malformed`, `input_malformed`, `signature_malformed`: a header is not of the one form
 * - `components_wrong`, `parameters_wrong`: it signs something else, or says something else about it
 * - `signature_wrong`: the signature does not fit request and key
 * - `digest_wrong`: the body is not the one that was signed
 */
export class RequestRefused extends Schema.TaggedError<RequestRefused>()("RequestRefused", {
  reason: Schema.Literals([
    "request_malformed",
    "header_missing",
    "digest_malformed",
    "input_malformed",
    "signature_malformed",
    "components_wrong",
    "parameters_wrong",
    "signature_wrong",
    "digest_wrong"
  ]),
  message: Schema.String
}) {}

/** What of a request is signed, but for its body. */
export interface RequestParts {
  /** In upper case. */
  readonly method: string
  /** Host, and port where it is not the scheme's own; lower case (`URL.host` gives it). */
  readonly authority: string
  /** From the first slash on, as sent, without query. */
  readonly path: string
  /** As sent, with its question mark; `""` where there is none. */
  readonly query: string
  readonly contentType: string
}

/** Who signs, and when. */
export interface RequestSigner {
  /** `dev_…`, `srv_…` or `key_…`. */
  readonly keyId: string
  /** 32-byte Ed25519 seed. */
  readonly seed: Uint8Array
  /** Seconds since the Unix epoch. */
  readonly createdSeconds: number
  /** 128 random bits in base32, never used before. */
  readonly nonce: string
}

/** The headers of a signed request, by lower-case name. */
export interface SignatureHeaders {
  readonly "content-digest": string
  readonly "content-type": string
  readonly signature: string
  readonly "signature-input": string
}

/** A request whose signature has the right form, and nothing more: nothing in it is proved yet. */
export interface ClaimedRequest {
  readonly keyId: string
  readonly nonce: string
  readonly createdSeconds: number
  /** SHA-256 that the body must have. */
  readonly bodyDigest: Uint8Array
  readonly signature: Uint8Array
  /** The bytes that were signed. */
  readonly base: Uint8Array
}

const components = '"@method" "@authority" "@path" "@query" "content-digest" "content-type"'
const parametersPattern =
  /^;created=(0|[1-9][0-9]{0,11});nonce="([a-z2-7]{26})";keyid="((?:dev|srv|key)_[a-z2-7]{52})";alg="ed25519";tag="postern-v1"$/

const partPatterns: Record<keyof RequestParts, RegExp> = {
  method: /^[A-Z]{1,16}$/,
  authority: /^(?:[a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[1-9][0-9]{0,4})?$/,
  // Printable ASCII; a question mark or hash would move the border between path and query.
  path: /^\/(?:(?![?#])[!-~])*$/,
  query: /^(?:\?(?:(?!#)[!-~])*)?$/,
  contentType: /^[!-~]+\/[!-~]+(?: [!-~]+)*$/
}

const refusal = (reason: RequestRefused["reason"], message: string): RequestRefused =>
  new RequestRefused({ reason, message: `The request's signature is refused: ${message}` })

const flawOf = (parts: RequestParts): keyof RequestParts | undefined =>
  (Object.keys(partPatterns) as Array<keyof RequestParts>).find(
    (name) => !partPatterns[name].test(parts[name])
  )

/** The signature base of RFC 9421, 2.5. An absent query counts as a lone question mark (2.2.7). */
const signatureBase = (parts: RequestParts, contentDigest: string, input: string): Uint8Array =>
  utf8(
    [
      `"@method": ${parts.method}`,
      `"@authority": ${parts.authority}`,
      `"@path": ${parts.path}`,
      `"@query": ${parts.query === "" ? "?" : parts.query}`,
      `"content-digest": ${contentDigest}`,
      `"content-type": ${parts.contentType}`,
      `"@signature-params": ${input}`
    ].join("\n")
  )

/**
 * The headers that sign a request with this body. A request without body signs the digest of no bytes, and has a
 * content type too.
 *
 * @throws RangeError where a part, the nonce or the key id is not of the form verifiers ask for
 */
export const signRequest = (
  engine: Engine,
  parts: RequestParts,
  body: Uint8Array,
  signer: RequestSigner
): SignatureHeaders => {
  const flaw = flawOf(parts)
  if (flaw !== undefined)
    throw new RangeError(`A request with the ${flaw} ${JSON.stringify(parts[flaw])} cannot be signed`)
  const { createdSeconds, keyId, nonce, seed } = signer
  const parameters = `;created=${createdSeconds};nonce="${nonce}";keyid="${keyId}";alg="ed25519";tag="postern-v1"`
  if (!parametersPattern.test(parameters)) {
    throw new RangeError(
      `A request cannot be signed at ${createdSeconds} with the nonce ${nonce} by ${keyId}`
    )
  }
  const contentDigest = `sha-256=:${encodeBase64(engine.sha256(body))}:`
  const input = `(${components})${parameters}`
  const signature = engine.ed25519.sign(signatureBase(parts, contentDigest, input), seed)
  return {
    "content-digest": contentDigest,
    "content-type": parts.contentType,
    "signature-input": `postern=${input}`,
    signature: `postern=:${encodeBase64(signature)}:`
  }
}

/** The bytes of a structured field's byte sequence behind a label, if the field holds exactly that. */
const byteSequence = (field: string, label: string, lengthBytes: number): Uint8Array | undefined => {
  const bytes =
    field.startsWith(`${label}=:`) && field.endsWith(":")
      ? decodeBase64(field.slice(label.length + 2, -1))
      : undefined
  return bytes?.length === lengthBytes ? bytes : undefined
}

/** The headers to look at, by lower-case name; a header sent twice must come joined (`a, b`) and is then refused. */
export type RequestHeaders = Readonly<Partial<Record<keyof SignatureHeaders, string | undefined>>>

/**
 * Reads what a request claims about its signature, so that the key can be looked up. Judge it with
 * {@link verifyClaim} before believing any of it, and the body with {@link isBodyOf}.
 */
export const readClaim = (
  request: Omit<RequestParts, "contentType">,
  headers: RequestHeaders
): Result.Result<ClaimedRequest, RequestRefused> => {
  const {
    "content-digest": contentDigest,
    "content-type": contentType,
    signature,
    "signature-input": input
  } = headers
  if (
    contentDigest === undefined ||
    contentType === undefined ||
    signature === undefined ||
    input === undefined
  ) {
    const message = "it needs the headers Content-Digest, Content-Type, Signature-Input and Signature"
    return Result.fail(refusal("header_missing", message))
  }
  const parts = { ...request, contentType }
  const flaw = flawOf(parts)
  if (flaw !== undefined)
    return Result.fail(refusal("request_malformed", `its ${flaw} is not of a form that can be signed`))
  const bodyDigest = byteSequence(contentDigest, "sha-256", sha256Bytes)
  if (bodyDigest === undefined)
    return Result.fail(refusal("digest_malformed", "its Content-Digest is not one SHA-256"))
  const signatureBytes = byteSequence(signature, "postern", ed25519SignatureBytes)
  if (signatureBytes === undefined) {
    return Result.fail(
      refusal("signature_malformed", "its Signature is not one of 64 bytes labelled postern")
    )
  }
  const [, signedComponents, parameters] = /^postern=\(([^()]*)\)(.*)$/.exec(input) ?? []
  if (signedComponents === undefined || parameters === undefined) {
    return Result.fail(refusal("input_malformed", "its Signature-Input is not one list labelled postern"))
  }
  if (signedComponents !== components) {
    return Result.fail(refusal("components_wrong", `it must cover exactly ${components}, in this order`))
  }
  const [, created, nonce, keyId] = parametersPattern.exec(parameters) ?? []
  if (created === undefined || nonce === undefined || keyId === undefined) {
    const message = "its parameters must be created, nonce, keyid, alg and tag, in this order and form"
    return Result.fail(refusal("parameters_wrong", message))
  }
  const base = signatureBase(parts, contentDigest, input.slice("postern=".length))
  return Result.succeed({
    keyId,
    nonce,
    createdSeconds: Number(created),
    bodyDigest,
    signature: signatureBytes,
    base
  })
}

/** Whether the claim was signed with the key. */
export const verifyClaim = (engine: Engine, claim: ClaimedRequest, publicKey: Uint8Array): boolean =>
  engine.ed25519.verify(claim.signature, claim.base, publicKey)

/** Whether the body is the one the claim was made for. */
export const isBodyOf = (engine: Engine, claim: ClaimedRequest, body: Uint8Array): boolean =>
  equalBytes(engine.sha256(body), claim.bodyDigest)

/** All of it at once, where key and body are at hand: form, signature, body. */
export const verifyRequest = (
  engine: Engine,
  request: Omit<RequestParts, "contentType">,
  headers: RequestHeaders,
  body: Uint8Array,
  publicKey: Uint8Array
): Result.Result<ClaimedRequest, RequestRefused> =>
  Result.flatMap(readClaim(request, headers), (claim) => {
    if (!verifyClaim(engine, claim, publicKey)) {
      return Result.fail(refusal("signature_wrong", `it does not fit the key of ${claim.keyId}`))
    }
    return isBodyOf(engine, claim, body)
      ? Result.succeed(claim)
      : Result.fail(refusal("digest_wrong", "the body is not the one that was signed"))
  })
