/**
 * Recipients and identities of age files: X25519 keys, and passphrases for keys at rest.
 *
 * @module
 */
import { Redacted, Result } from "effect"
import { Limits } from "../schemas/Limits.ts"
import { type AgeStanza, ageFileKeyBytes, DecryptError, malformedHeader } from "./AgeHeader.ts"
import { decodeBase64Unpadded, encodeBase64Unpadded } from "./Base64.ts"
import { decodeBech32, encodeBech32 } from "./Bech32.ts"
import { concatBytes, utf8 } from "./Bytes.ts"
import { chachaNonceBytes, chachaTagBytes, type Engine, x25519KeyBytes } from "./Engine.ts"
import { InvalidKey, parseX25519PublicKey, type X25519PublicKey } from "./Keys.ts"

const x25519Info = utf8("age-encryption.org/v1/X25519")
const scryptLabel = utf8("age-encryption.org/v1/scrypt")
const scryptSaltBytes = 16
const wrappedKeyBytes = ageFileKeyBytes + chachaTagBytes
/** Legal, since each wrapping key serves once. */
const zeroNonce = new Uint8Array(chachaNonceBytes)

/** `age1…` of an X25519 public key. */
export const formatRecipient = (publicKey: Uint8Array): string => encodeBech32("age", publicKey)

/** The X25519 public key of an `age1…` recipient (lower case only). */
export const parseRecipient = (text: string): Result.Result<X25519PublicKey, InvalidKey> => {
  const bytes = text === text.toLowerCase() ? decodeBech32("age", text) : undefined
  return bytes === undefined
    ? Result.fail(
        new InvalidKey({
          algorithm: "X25519",
          reason: "encoding",
          message: "The age recipient is refused: it is not an age1… text with a right checksum"
        })
      )
    : parseX25519PublicKey(bytes)
}

/** `AGE-SECRET-KEY-1…` of an X25519 secret: the form the `age` tool reads with `-i`. */
export const formatIdentity = (secret: Redacted.Redacted<Uint8Array>): Redacted.Redacted<string> =>
  Redacted.make(encodeBech32("age-secret-key-", Redacted.value(secret)).toUpperCase())

/** The X25519 secret of an `AGE-SECRET-KEY-1…` text (upper case only), or `undefined`. */
export const parseIdentity = (text: string): Redacted.Redacted<Uint8Array> | undefined => {
  const bytes = text === text.toUpperCase() ? decodeBech32("age-secret-key-", text) : undefined
  return bytes?.length === x25519KeyBytes ? Redacted.make(bytes) : undefined
}

/** Something that may open an age file. */
export interface AgeIdentity {
  /**
   * The file key (16 bytes), or `undefined` where no stanza is for this identity.
   *
   * @throws DecryptError where a stanza of its kind is malformed, or asks for too much work
   */
  readonly unwrap: (engine: Engine, stanzas: ReadonlyArray<AgeStanza>) => Uint8Array | undefined
}

/** Wraps the file key to an X25519 key. `ephemeral` are 32 fresh secret bytes, never used again. */
export const x25519Stanza = (
  engine: Engine,
  recipient: X25519PublicKey,
  fileKey: Uint8Array,
  ephemeral: Uint8Array
): AgeStanza => {
  const share = engine.x25519.publicKey(ephemeral)
  const shared = engine.x25519.sharedSecret(ephemeral, recipient)
  // A parsed key has no small order, so there always is a secret.
  if (shared === undefined) throw new RangeError("An accepted X25519 key gave no shared secret")
  const key = engine.hkdfSha256(shared, concatBytes(share, recipient), x25519Info, 32)
  return {
    arguments: ["X25519", encodeBase64Unpadded(share)],
    body: engine.chacha20poly1305.seal(key, zeroNonce, fileKey)
  }
}

const x25519Share = (stanza: AgeStanza): Uint8Array => {
  const share =
    stanza.arguments.length === 2 ? decodeBase64Unpadded(stanza.arguments[1] as string) : undefined
  if (share?.length !== x25519KeyBytes || stanza.body.length !== wrappedKeyBytes) {
    throw malformedHeader("an X25519 stanza has a wrong form")
  }
  return share
}

/** The identity of an X25519 secret. */
export const x25519Identity = (secret: Redacted.Redacted<Uint8Array>): AgeIdentity => ({
  unwrap: (engine, stanzas) => {
    const scalar = Redacted.value(secret)
    const publicKey = engine.x25519.publicKey(scalar)
    for (const stanza of stanzas) {
      if (stanza.arguments[0] !== "X25519") continue
      const share = x25519Share(stanza)
      const shared = engine.x25519.sharedSecret(scalar, share)
      if (shared === undefined) throw malformedHeader("an X25519 stanza holds a key of small order")
      const key = engine.hkdfSha256(shared, concatBytes(share, publicKey), x25519Info, 32)
      const fileKey = engine.chacha20poly1305.open(key, zeroNonce, stanza.body)
      if (fileKey !== undefined) return fileKey
    }
    return undefined
  }
})

const passphraseKey = (
  engine: Engine,
  passphrase: Redacted.Redacted,
  salt: Uint8Array,
  logN: number
): Uint8Array =>
  engine.scrypt(utf8(Redacted.value(passphrase)), concatBytes(scryptLabel, salt), { logN, r: 8, p: 1 }, 32)

/** Wraps the file key under a passphrase. `salt` are 16 fresh bytes; 2^logN is scrypt's N. */
export const passphraseStanza = (
  engine: Engine,
  passphrase: Redacted.Redacted,
  fileKey: Uint8Array,
  salt: Uint8Array,
  logN: number
): AgeStanza => ({
  arguments: ["scrypt", encodeBase64Unpadded(salt), String(logN)],
  body: engine.chacha20poly1305.seal(passphraseKey(engine, passphrase, salt, logN), zeroNonce, fileKey)
})

const scryptParameters = (stanza: AgeStanza): { readonly salt: Uint8Array; readonly logN: number } => {
  const [, saltText, logNText, ...rest] = stanza.arguments
  const salt = decodeBase64Unpadded(saltText ?? "")
  const logN = /^[1-9][0-9]*$/.test(logNText ?? "") ? Number(logNText) : undefined
  const sound = salt?.length === scryptSaltBytes && logN !== undefined && rest.length === 0
  if (!sound || stanza.body.length !== wrappedKeyBytes)
    throw malformedHeader("its passphrase stanza has a wrong form")
  if (logN > Limits.scryptMaximumLogN) {
    throw new DecryptError({
      reason: "work_factor",
      message: `The file's passphrase asks for 2^${logN} steps of work; at most 2^${Limits.scryptMaximumLogN} are done`
    })
  }
  return { salt, logN }
}

/** The identity of a passphrase. The work it does is bounded by `Limits.scryptMaximumLogN`. */
export const passphraseIdentity = (passphrase: Redacted.Redacted): AgeIdentity => ({
  unwrap: (engine, stanzas) => {
    const stanza = stanzas.find((each) => each.arguments[0] === "scrypt")
    if (stanza === undefined) return undefined
    const { logN, salt } = scryptParameters(stanza)
    return engine.chacha20poly1305.open(passphraseKey(engine, passphrase, salt, logN), zeroNonce, stanza.body)
  }
})

/**
 * The file key of a header.
 *
 * @throws DecryptError `no_match` where no identity opens it, or `header_malformed`; a passphrase stanza must stand
 * alone, or somebody who merely knows a recipient could pass as somebody who knows the passphrase
 */
export const unwrapFileKey = (
  engine: Engine,
  identities: ReadonlyArray<AgeIdentity>,
  stanzas: ReadonlyArray<AgeStanza>
): Uint8Array => {
  if (stanzas.length > 1 && stanzas.some((stanza) => stanza.arguments[0] === "scrypt")) {
    throw malformedHeader("its passphrase stanza does not stand alone")
  }
  for (const identity of identities) {
    const fileKey = identity.unwrap(engine, stanzas)
    if (fileKey !== undefined) return fileKey
  }
  throw new DecryptError({ reason: "no_match", message: "None of the keys at hand opens the age file" })
}
