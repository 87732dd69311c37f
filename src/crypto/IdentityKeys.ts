/**
 * Who somebody is: two keys, and the id and the claim code that follow from them.
 *
 * @module
 */
import { Redacted } from "effect"
import type { DeviceId, Digest, ServerId, ServicesId } from "../schemas/Ids.ts"
import { encodeBase32 } from "./Base32.ts"
import { concatBytes, utf8 } from "./Bytes.ts"
import { type Engine, ed25519KeyBytes, requireLength, x25519KeyBytes } from "./Engine.ts"

/** What an id may stand for. An operator has no id of this kind: roles name its signing key (`key_…`). */
export type IdentityKind = "device" | "server" | "broker-services"

/** The id of each kind. */
export interface IdentityIds {
  readonly device: DeviceId
  readonly server: ServerId
  readonly "broker-services": ServicesId
}

const prefixes: Record<IdentityKind, string> = { device: "dev", server: "srv", "broker-services": "svc" }

/**
 * `dev_`, `srv_` or `svc_` and base32 of SHA-256 over `postern/<kind>-id/v1`, a zero byte, the Ed25519 key and the first X25519
 * key (32 bytes each). The id names both keys, so neither can be exchanged under it.
 */
export const deriveId = <Kind extends IdentityKind>(
  engine: Engine,
  kind: Kind,
  signingKey: Uint8Array,
  encryptionKey: Uint8Array
): IdentityIds[Kind] => {
  requireLength("An Ed25519 public key", signingKey, ed25519KeyBytes)
  requireLength("An X25519 public key", encryptionKey, x25519KeyBytes)
  const digest = engine.sha256(concatBytes(utf8(`postern/${kind}-id/v1\0`), signingKey, encryptionKey))
  return `${prefixes[kind]}_${encodeBase32(digest)}` as IdentityIds[Kind]
}

/** The private half of an identity. */
export interface SecretKeys {
  /** 32-byte Ed25519 seed. */
  readonly signingSeed: Redacted.Redacted<Uint8Array>
  /** 32-byte X25519 secret (age). */
  readonly encryptionSecret: Redacted.Redacted<Uint8Array>
}

/** The public half of an identity: 32 bytes each. */
export interface PublicKeys {
  readonly signingKey: Uint8Array
  readonly encryptionKey: Uint8Array
}

/** Bytes of entropy that {@link makeSecretKeys} takes. */
export const secretKeysEntropyBytes = ed25519KeyBytes + x25519KeyBytes

/** New keys from exactly {@link secretKeysEntropyBytes} fresh bytes of the Entropy port. */
export const makeSecretKeys = (entropyBytes: Uint8Array): SecretKeys => {
  requireLength("The entropy of new keys", entropyBytes, secretKeysEntropyBytes)
  return {
    signingSeed: Redacted.make(entropyBytes.slice(0, ed25519KeyBytes)),
    encryptionSecret: Redacted.make(entropyBytes.slice(ed25519KeyBytes))
  }
}

/** The public keys that belong to secret ones. */
export const publicKeysOf = (engine: Engine, secrets: SecretKeys): PublicKeys => ({
  signingKey: engine.ed25519.publicKey(Redacted.value(secrets.signingSeed)),
  encryptionKey: engine.x25519.publicKey(Redacted.value(secrets.encryptionSecret))
})

const claimCodeBytes = 10

/**
 * The code a device shows when it has no invitation, and the operator's CLI computes for itself; a person compares.
 * 80 bits of SHA-256 over a tag, device id, digest of the first root and server id, as `ABCD-EFGH-IJKL-MNOP`.
 */
export const claimCode = (
  engine: Engine,
  claim: { readonly device: DeviceId; readonly rootDigest: Digest; readonly server: ServerId }
): string => {
  // None of the three can hold a zero byte: their schemas allow letters, digits, `_` and `:` only.
  const message = utf8(`postern/claim-code/v1\0${claim.device}\0${claim.rootDigest}\0${claim.server}`)
  const code = encodeBase32(engine.sha256(message).subarray(0, claimCodeBytes)).toUpperCase()
  return (code.match(/.{4}/g) ?? []).join("-")
}
