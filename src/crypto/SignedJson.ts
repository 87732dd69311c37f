/**
 * JSON that carries its own signature: Ed25519 over the canonical form of all other members, `type` among them. What travels
 * between agents is of this kind, so that a person can read it and any language can make it.
 *
 * @module
 */
import { Result, Schema } from "effect"
import { decodeBase64, encodeBase64 } from "./Base64.ts"
import { canonicalBytes, type JsonBounds, parseCanonical } from "./CanonicalJson.ts"
import type { Engine } from "./Engine.ts"

/** Whose signature goes under a document: an Ed25519 seed and its public key in base64. */
export interface JsonSigner {
  readonly seed: Uint8Array
  readonly signingKey: string
}

/** What every document of this kind has. */
export interface SignedJson {
  readonly type: string
  readonly signing_key: string
  readonly signature: string
}

export type Unsigned<A> = Omit<A, "signature" | "signing_key">

/** Signs a document. Throws a TypeError for what is no interoperable JSON (`canonicalBytes`). */
export const signJson = <A extends SignedJson>(
  engine: Engine,
  { seed, signingKey }: JsonSigner,
  unsigned: Unsigned<A>
): A => {
  const document = { ...unsigned, signing_key: signingKey }
  const signature = encodeBase64(engine.ed25519.sign(canonicalBytes(document), seed))
  return { ...document, signature } as unknown as A
}

/** Whether a document carries a good signature by the very key it names. Whose key that is must be judged apart. */
export const isSignedByItsKey = (engine: Engine, document: SignedJson): boolean => {
  const { signature, ...signed } = document
  const [bytes, key] = [decodeBase64(signature), decodeBase64(document.signing_key)]
  return bytes !== undefined && key !== undefined && engine.ed25519.verify(bytes, canonicalBytes(signed), key)
}

/** A reader of documents of one schema: strict, canonical, bounded. What it gives is not known to be signed yet. */
export const readerOf = <A>(
  schema: Schema.Codec<A, unknown>,
  bounds: JsonBounds & { readonly maximumBytes: number }
) => {
  const decode = Schema.decodeUnknownResult(schema, { onExcessProperty: "error" })
  return (bytes: Uint8Array): Result.Result<A, string> => {
    const json = parseCanonical(bytes, bounds)
    if (Result.isFailure(json)) return Result.fail(json.failure.message)
    return Result.mapError(decode(json.success), (error) => error.message.slice(0, 300))
  }
}
