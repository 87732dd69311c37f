/**
 * Private keys at rest, as one file.
 *
 * - **Protected**: an age file under a passphrase (scrypt), holding the JSON below. `age -d FILE` shows it, so nobody
 *   depends on this program to get at their keys.
 * - **Unprotected**: the same JSON with a `type` that says so, for devices and servers, which must start alone. Its
 *   protection is the file's mode (0600).
 *
 * A file holding the inner JSON bare is refused: it is a protected file that somebody decrypted and left lying about.
 *
 *     { "type", "kind", "label", "created_at_ms",
 *       "signing_seed": base64, "encryption_secrets": ["AGE-SECRET-KEY-1…", …] }
 *
 * `encryption_secrets` are in order of age; an id is derived from the first one, and what is sent goes to the last.
 *
 * @module
 */
import { Redacted, Result, Schema } from "effect"
import { labelUpTo, TimestampMs } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import { formatIdentity, parseIdentity, passphraseIdentity } from "./AgeKeys.ts"
import { decodeBase64, encodeBase64 } from "./Base64.ts"
import { concatBytes, equalBytes, utf8 } from "./Bytes.ts"
import { canonicalBytes, parseStrict } from "./CanonicalJson.ts"
import { type Engine, ed25519KeyBytes } from "./Engine.ts"
import { decryptBytes, passphraseEncryptor } from "./PackageCipher.ts"

export { passphraseEntropyBytes } from "./PackageCipher.ts"

/** A key file was not opened. `reason` is for programs, `message` for people; neither tells anything of the keys. */
export class KeyVaultError extends Schema.TaggedError<KeyVaultError>()("KeyVaultError", {
  reason: Schema.Literals(["passphrase_needed", "passphrase_wrong", "damaged", "exposed"]),
  message: Schema.String
}) {}

/** Whose keys they are. A recovery key is kept offline and only signs roots. */
export const KeyKind = Schema.Literals(["device", "server", "operator", "recovery", "broker-services"])
export type KeyKind = typeof KeyKind.Type

const protectedType = "postern/keys/v1"
const unprotectedType = "postern/unprotected-keys/v1"

const KeyDocument = Schema.Struct({
  type: Schema.Literals([protectedType, unprotectedType]),
  kind: KeyKind,
  label: labelUpTo(Limits.labelLength),
  created_at_ms: TimestampMs,
  signing_seed: Schema.String,
  encryption_secrets: Schema.Array(Schema.String).check(Schema.isMaxLength(Limits.encryptionKeys))
})

/** Keys with what is to be known of them. */
export interface StoredKeys {
  readonly kind: KeyKind
  /** For people: whose, what for. */
  readonly label: string
  readonly createdAtMs: number
  /** 32-byte Ed25519 seed. */
  readonly signingSeed: Redacted.Redacted<Uint8Array>
  /** 32-byte X25519 secrets, oldest first; none for keys that only sign. */
  readonly encryptionSecrets: ReadonlyArray<Redacted.Redacted<Uint8Array>>
}

const documentBytes = (type: typeof KeyDocument.Type.type, keys: StoredKeys): Uint8Array =>
  canonicalBytes({
    type,
    kind: keys.kind,
    label: keys.label,
    created_at_ms: keys.createdAtMs,
    signing_seed: encodeBase64(Redacted.value(keys.signingSeed)),
    encryption_secrets: keys.encryptionSecrets.map((secret) => Redacted.value(formatIdentity(secret)))
  })

/** The file of keys that must be usable without a person. Write it with mode 0600. */
export const unprotectedKeyFile = (keys: StoredKeys): Uint8Array =>
  concatBytes(documentBytes(unprotectedType, keys), utf8("\n"))

/**
 * The file of keys under a passphrase. `entropyBytes` are exactly `passphraseEntropyBytes` fresh bytes of the Entropy
 * port. Takes 128 MiB and some tenths of a second with the default cost of 2^17. An empty passphrase is a `RangeError`.
 */
export const protectedKeyFile = (
  engine: Engine,
  keys: StoredKeys,
  protection: {
    readonly passphrase: Redacted.Redacted
    readonly entropyBytes: Uint8Array
    readonly logN?: number
  }
): Uint8Array => {
  if (Redacted.value(protection.passphrase) === "") throw new RangeError("A passphrase must not be empty")
  const running = passphraseEncryptor(engine, { logN: Limits.scryptLogN, ...protection })
  return concatBytes(running.header, running.push(documentBytes(protectedType, keys)), running.end())
}

const agePrefix = utf8("age-encryption.org/")

/** Whether a key file wants a passphrase. */
export const isProtectedKeyFile = (file: Uint8Array): boolean =>
  equalBytes(file.subarray(0, agePrefix.length), agePrefix)

const refusals: Record<KeyVaultError["reason"], string> = {
  passphrase_needed: "The key file is protected: give its passphrase",
  passphrase_wrong: "The passphrase does not open the key file",
  damaged: "The file is not a sound key file: it was damaged, or made by another program",
  exposed:
    "The key file was decrypted and left without protection: put the protected file back, or make new keys"
}

const refuse = (reason: KeyVaultError["reason"]) =>
  Result.fail(new KeyVaultError({ reason, message: refusals[reason] }))

const readDocument = (
  bytes: Uint8Array,
  type: typeof KeyDocument.Type.type
): Result.Result<StoredKeys, KeyVaultError> => {
  const json = parseStrict(bytes)
  if (Result.isFailure(json)) return refuse("damaged")
  const decoded = Schema.decodeUnknownResult(KeyDocument, { onExcessProperty: "error" })(json.success)
  if (Result.isFailure(decoded)) return refuse("damaged")
  const document = decoded.success
  if (document.type !== type) return refuse(type === unprotectedType ? "exposed" : "damaged")
  const signingSeed = decodeBase64(document.signing_seed)
  const encryptionSecrets = document.encryption_secrets.flatMap((text) => parseIdentity(text) ?? [])
  const isWhole = encryptionSecrets.length === document.encryption_secrets.length
  if (signingSeed?.length !== ed25519KeyBytes || !isWhole) return refuse("damaged")
  return Result.succeed({
    kind: document.kind,
    label: document.label,
    createdAtMs: document.created_at_ms,
    signingSeed: Redacted.make(signingSeed),
    encryptionSecrets
  })
}

/**
 * Opens a key file of either form. A passphrase given for an unprotected file is not used. The work a file may ask for is
 * bounded by `Limits.scryptMaximumLogN`; a file that asks for more counts as damaged.
 */
export const openKeyFile = (
  engine: Engine,
  file: Uint8Array,
  passphrase: Redacted.Redacted | null
): Result.Result<StoredKeys, KeyVaultError> => {
  if (!isProtectedKeyFile(file)) return readDocument(file, unprotectedType)
  if (passphrase === null) return refuse("passphrase_needed")
  const opened = decryptBytes(engine, [passphraseIdentity(passphrase)], file)
  if (Result.isSuccess(opened)) return readDocument(opened.success, protectedType)
  return refuse(opened.failure.reason === "no_match" ? "passphrase_wrong" : "damaged")
}
