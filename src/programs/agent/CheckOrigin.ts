/** Checking a message's proof of origin with nothing but the message itself. */
import { Result } from "effect"
import { NativeCrypto } from "../../adapters/NativeCrypto.ts"
import { canonicalBytes } from "../../crypto/CanonicalJson.ts"
import { readMessage } from "../../crypto/Messages.ts"
import { isSignedByItsKey } from "../../crypto/SignedJson.ts"
import type { OriginCheck } from "./Api.ts"

const bytesOf = (proof: unknown): Uint8Array | undefined => {
  try {
    return canonicalBytes(proof)
  } catch {
    return undefined
  }
}

/** Whether a document is a message that carries the signature of the key it names, or of a given one. Never throws. */
export const checkOrigin = (proof: unknown, signingKey?: string): OriginCheck => {
  const bytes = bytesOf(proof)
  const read = bytes === undefined ? undefined : readMessage(bytes)
  if (read === undefined) return { valid: false, reason: "it is no interoperable JSON" }
  if (Result.isFailure(read)) return { valid: false, reason: `it is no message: ${read.failure.detail}` }
  const message = read.success
  if (signingKey !== undefined && message.signing_key !== signingKey)
    return { valid: false, reason: "it names another signing key" }
  return isSignedByItsKey(NativeCrypto, message)
    ? { valid: true, from: message.from, signingKey: message.signing_key }
    : { valid: false, reason: "its signature does not fit" }
}
