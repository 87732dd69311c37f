/**
 * Hybrid public key encryption, single-shot base mode (RFC 9180, 6.1): DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
 * ChaCha20-Poly1305. One encapsulation serves one message: no context outlives a call, so no nonce can ever serve twice,
 * not even after a restore.
 *
 * @module
 */
import { concatBytes, utf8 } from "./Bytes.ts"
import {
  chachaKeyBytes,
  chachaNonceBytes,
  chachaTagBytes,
  type Engine,
  requireLength,
  sha256Bytes,
  x25519KeyBytes
} from "./Engine.ts"

/** How many bytes a sealed message has beyond its plaintext: the encapsulated key is apart, the tag is within. */
export const hpkeOverheadBytes = chachaTagBytes
/** An encapsulated key is a raw X25519 public key. */
export const hpkeEncapsulatedBytes = x25519KeyBytes
/** Of fresh secret bytes, for each message. */
export const hpkeEntropyBytes = x25519KeyBytes

/** A message sealed to one recipient. */
export interface HpkeBox {
  /** The encapsulated key: 32 bytes. */
  readonly enc: Uint8Array
  /** As long as the plaintext and 16 bytes more. */
  readonly ciphertext: Uint8Array
}

/** What both sides bind: `info` into the keys, `aad` into the tag. Neither is sent. */
export interface HpkeBinding {
  readonly info: Uint8Array
  readonly aad: Uint8Array
}

const uint16 = (value: number): Uint8Array => Uint8Array.of(value >> 8, value & 255)
const kemId = 0x0020
const kdfId = 0x0001
const aeadId = 0x0003
const version = utf8("HPKE-v1")
const kemSuite = concatBytes(utf8("KEM"), uint16(kemId))
const hpkeSuite = concatBytes(utf8("HPKE"), uint16(kemId), uint16(kdfId), uint16(aeadId))
const nothing = new Uint8Array(0)
/** Mode 0: base. */
const baseMode = Uint8Array.of(0)

/** LabeledExtract for one label (RFC 9180, 4), whose bytes are put together once. */
const extracting = (suite: Uint8Array, label: string) => {
  const prefix = concatBytes(version, suite, utf8(label))
  return (engine: Engine, salt: Uint8Array, secret: Uint8Array): Uint8Array =>
    engine.hmacSha256(salt, concatBytes(prefix, secret))
}

const lastBlock = Uint8Array.of(1)

/** LabeledExpand for one label and length. One block of HKDF-Expand is all that this suite ever needs. */
const expanding = (suite: Uint8Array, label: string, lengthBytes: number) => {
  const prefix = concatBytes(uint16(lengthBytes), version, suite, utf8(label))
  return (engine: Engine, key: Uint8Array, info: Uint8Array): Uint8Array =>
    engine.hmacSha256(key, concatBytes(prefix, info, lastBlock)).subarray(0, lengthBytes)
}

const extractAgreed = extracting(kemSuite, "eae_prk")
const expandShared = expanding(kemSuite, "shared_secret", sha256Bytes)
const extractPskId = extracting(hpkeSuite, "psk_id_hash")
const extractInfo = extracting(hpkeSuite, "info_hash")
const extractSecret = extracting(hpkeSuite, "secret")
const expandKey = expanding(hpkeSuite, "key", chachaKeyBytes)
const expandNonce = expanding(hpkeSuite, "base_nonce", chachaNonceBytes)

/** The KEM's shared secret from the raw agreement and both public keys (RFC 9180, 4.1). */
const sharedSecret = (
  engine: Engine,
  agreed: Uint8Array,
  enc: Uint8Array,
  recipient: Uint8Array
): Uint8Array => {
  const extracted = extractAgreed(engine, nothing, agreed)
  return expandShared(engine, extracted, concatBytes(enc, recipient))
}

/** All that follows from an agreement: the KEM's secret, and key and nonce of the one message. */
export interface HpkeKeys {
  readonly shared: Uint8Array
  readonly key: Uint8Array
  readonly nonce: Uint8Array
}

/** Key and nonce of the one message (RFC 9180, 5.1, with neither PSK nor its id), from the raw agreement. */
export const hpkeKeys = (
  engine: Engine,
  agreed: Uint8Array,
  enc: Uint8Array,
  recipient: Uint8Array,
  info: Uint8Array
): HpkeKeys => {
  const shared = sharedSecret(engine, agreed, enc, recipient)
  const context = concatBytes(
    baseMode,
    extractPskId(engine, nothing, nothing),
    extractInfo(engine, nothing, info)
  )
  const secret = extractSecret(engine, shared, nothing)
  return {
    shared,
    key: expandKey(engine, secret, context),
    nonce: expandNonce(engine, secret, context)
  }
}

/**
 * Seals a message to a raw X25519 public key. `entropy`: 32 fresh secret bytes, never used for anything else.
 * `undefined` where the recipient's key is none (wrong length, small order).
 */
export const sealHpke = (
  engine: Engine,
  recipient: Uint8Array,
  binding: HpkeBinding,
  plaintext: Uint8Array,
  entropy: Uint8Array
): HpkeBox | undefined => {
  requireLength("The entropy of a sealed message", entropy, hpkeEntropyBytes)
  const agreed = engine.x25519.sharedSecret(entropy, recipient)
  if (agreed === undefined) return undefined
  const enc = engine.x25519.publicKey(entropy)
  const { key, nonce } = hpkeKeys(engine, agreed, enc, recipient, binding.info)
  return { enc, ciphertext: engine.chacha20poly1305.seal(key, nonce, plaintext, binding.aad) }
}

/** A recipient's key pair, raw: 32 bytes each. */
export interface HpkeKeyPair {
  readonly secret: Uint8Array
  readonly public: Uint8Array
}

/** Opens a message; `undefined` where anything of it or of the binding differs from what was sealed. Never throws. */
export const openHpke = (
  engine: Engine,
  recipient: HpkeKeyPair,
  binding: HpkeBinding,
  { ciphertext, enc }: HpkeBox
): Uint8Array | undefined => {
  const agreed = engine.x25519.sharedSecret(recipient.secret, enc)
  if (agreed === undefined) return undefined
  const { key, nonce } = hpkeKeys(engine, agreed, enc, recipient.public, binding.info)
  return engine.chacha20poly1305.open(key, nonce, ciphertext, binding.aad)
}
