/**
 * Key cards as one word for a terminal or a letter: `postern-key-v1.` and base64url of a DSSE envelope.
 *
 * @module
 */
import { Result } from "effect"
import type { KeyId } from "../schemas/Ids.ts"
import { KeyCard } from "../schemas/KeyCard.ts"
import { decodeBase64Url, encodeBase64Url } from "./Base64.ts"
import { fromUtf8, utf8 } from "./Bytes.ts"
import { openUnverified, signDocument, verifyDocument } from "./Documents.ts"
import { type EnvelopeSigner, parseEnvelope } from "./Dsse.ts"
import type { Engine } from "./Engine.ts"
import { keyIdOf, signingKeyBytes } from "./Trust.ts"

export const keyCardPrefix = "postern-key-v1."

/** A card that was read and whose signature holds. */
export interface ProvedCard {
  readonly keyId: KeyId
  readonly card: KeyCard
}

/** The card of a key, signed by it. */
export const writeKeyCard = (engine: Engine, card: KeyCard, signer: EnvelopeSigner): string => {
  const { envelope } = signDocument(engine, "key", card, [signer])
  return `${keyCardPrefix}${encodeBase64Url(utf8(JSON.stringify(envelope)))}`
}

/** Reads a card; fails with a sentence of what is wrong with it. */
export const readKeyCard = (engine: Engine, text: string): Result.Result<ProvedCard, string> => {
  const word = text.trim()
  const bytes = word.startsWith(keyCardPrefix) ? decodeBase64Url(word.slice(keyCardPrefix.length)) : undefined
  if (bytes === undefined || fromUtf8(bytes) === undefined)
    return Result.fail(`it is no key card (a card begins with ${keyCardPrefix}); perhaps it was cut off`)
  const envelope = parseEnvelope(bytes)
  if (Result.isFailure(envelope)) return Result.fail(envelope.failure.message)
  const claimed = openUnverified(engine, "key", KeyCard, envelope.success)
  if (Result.isFailure(claimed)) return Result.fail(claimed.failure.message)
  const card = claimed.success.document
  const publicKey = signingKeyBytes(card.public_key)
  if (publicKey === undefined) return Result.fail("its key is not an acceptable Ed25519 key")
  const keyId = keyIdOf(engine, publicKey)
  const proved = verifyDocument(engine, "key", KeyCard, envelope.success, [{ keyId, publicKey }], 1)
  return Result.isFailure(proved) ? Result.fail(proved.failure.message) : Result.succeed({ keyId, card })
}
