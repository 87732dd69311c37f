/**
 * Keys to onion services (x25519), and those that groups of devices share.
 *
 * A group's secret follows from the server's own signing key and a random salt, so the salt alone is stored: whoever has the
 * database has no key, and another salt is another key.
 *
 * @module
 */
import { Redacted, Result, Schema } from "effect"
import { SharedOnionSecret } from "../schemas/DeviceApi.ts"
import type { DeviceId, ServerId } from "../schemas/Ids.ts"
import { OnionClientKey } from "../schemas/Onion.ts"
import type { AgeIdentity } from "./AgeKeys.ts"
import { decodeBase32, encodeBase32 } from "./Base32.ts"
import { decodeBase64, encodeBase64 } from "./Base64.ts"
import { utf8 } from "./Bytes.ts"
import { canonicalBytes, parseCanonical } from "./CanonicalJson.ts"
import { type Engine, x25519KeyBytes } from "./Engine.ts"
import { parseX25519PublicKey } from "./Keys.ts"
import { cipherEntropyBytes, decryptBytes, encryptBytes } from "./PackageCipher.ts"

/** The text of a public key. */
export const formatOnionKey = (publicKey: Uint8Array): OnionClientKey =>
  OnionClientKey.make(encodeBase32(publicKey).toUpperCase())

/** Whether a key is one that an honest program makes: a point in its only spelling, and not of small order. */
export const isSoundOnionKey = (key: OnionClientKey): boolean => {
  const bytes = decodeBase32(key.toLowerCase())
  return bytes !== undefined && Result.isSuccess(parseX25519PublicKey(bytes))
}

/** The public half of an x25519 secret. */
export const onionKeyOf = (engine: Engine, secret: Redacted.Redacted<Uint8Array>): OnionClientKey =>
  formatOnionKey(engine.x25519.publicKey(Redacted.value(secret)))

const groupInfo = utf8("postern/onion-group/v1")

/** A group's secret, from the server's Ed25519 seed and the group's salt. */
export const groupSecret = (
  engine: Engine,
  signingSeed: Redacted.Redacted<Uint8Array>,
  salt: string
): Redacted.Redacted<Uint8Array> =>
  Redacted.make(engine.hkdfSha256(Redacted.value(signingSeed), utf8(salt), groupInfo, x25519KeyBytes))

/** Bytes of entropy that {@link sealSharedKey} takes. */
export const sharedKeyEntropyBytes = cipherEntropyBytes(1)

/** A shared secret for one device, as an age file in base64; null where the device's key is no key. */
export const sealSharedKey = (
  engine: Engine,
  shared: {
    readonly secret: Redacted.Redacted<Uint8Array>
    readonly device: DeviceId
    readonly server: ServerId
    readonly recipient: string
    readonly entropyBytes: Uint8Array
  }
): string | null => {
  const { device, entropyBytes, recipient, secret, server } = shared
  const content: SharedOnionSecret = {
    type: "postern/shared-onion-key/v1",
    device,
    server,
    secret: encodeBase64(Redacted.value(secret))
  }
  const sealed = encryptBytes(engine, { recipients: [recipient], entropyBytes }, canonicalBytes(content))
  return Result.isSuccess(sealed) ? encodeBase64(sealed.success) : null
}

const decodeSecret = Schema.decodeUnknownResult(SharedOnionSecret, { onExcessProperty: "error" })

/** The secret half of a shared key that came sealed to this device, or why it is not taken. */
export const openSharedKey = (
  engine: Engine,
  identities: ReadonlyArray<AgeIdentity>,
  came: { readonly key: OnionClientKey; readonly sealed: string },
  self: { readonly device: DeviceId; readonly server: ServerId }
): Result.Result<Redacted.Redacted<Uint8Array>, string> => {
  const file = decodeBase64(came.sealed)
  if (file === undefined) return Result.fail("it is not base64")
  const opened = decryptBytes(engine, identities, file)
  if (Result.isFailure(opened)) return Result.fail(opened.failure.message)
  const content = decodeSecret(Result.getOrUndefined(parseCanonical(opened.success)))
  if (Result.isFailure(content)) return Result.fail("its content has not the expected shape")
  const { device, secret: text, server } = content.success
  if (device !== self.device || server !== self.server) return Result.fail("it is for somebody else")
  const bytes = decodeBase64(text)
  if (bytes?.length !== x25519KeyBytes) return Result.fail("its secret has a wrong length")
  const secret = Redacted.make(bytes)
  return onionKeyOf(engine, secret) === came.key
    ? Result.succeed(secret)
    : Result.fail("its secret does not belong to the key it names")
}
