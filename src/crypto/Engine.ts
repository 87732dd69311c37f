/**
 * The engine: every cryptographic operation Postern uses, as pure synchronous functions over bytes.
 *
 * There are two engines, `NobleEngine` (pure JavaScript, for the browser, for small devices without a native
 * module and as a second opinion) and the adapter `NativeCrypto` (OpenSSL through `node:crypto`). They give
 * the same bytes and, which is harder, the same judgement on hostile input; tests hold both against Wycheproof
 * and against each other. An engine is an argument, never a module-level choice.
 *
 * Two rules about failing:
 * - what came from outside (signatures, boxes, other people's public keys) never throws: the answer is `false`
 *   or `undefined`;
 * - what is ours (seeds, secret keys, symmetric keys, nonces, lengths) has a fixed size, and a wrong size is a
 *   mistake in the program: `RangeError`.
 *
 * No operation draws chance of its own. Ed25519 is deterministic (RFC 8032); keys and nonces are arguments.
 *
 * @module
 */

/** Sizes in bytes. */
export const ed25519KeyBytes = 32
export const ed25519SignatureBytes = 64
export const x25519KeyBytes = 32
export const chachaKeyBytes = 32
export const chachaNonceBytes = 12
export const chachaTagBytes = 16
export const sha256Bytes = 32

/** HKDF-SHA256 yields at most 255 blocks of 32 bytes (RFC 5869, 2.3). */
export const hkdfMaxLengthBytes = 255 * 32
/** OpenSSL refuses longer `info`, so both engines do. */
export const hkdfMaxInfoBytes = 1024

/** An incremental SHA-256. `digest` may be called once; the hasher is spent afterwards. */
export interface Hasher {
  update(bytes: Uint8Array): void
  /** 32 bytes. */
  digest(): Uint8Array
}

/** Ed25519 as in RFC 8032, 5.1 ("pure": the message is not hashed before). */
export interface Ed25519 {
  /** The 32-byte public key of a 32-byte seed. */
  publicKey(seed: Uint8Array): Uint8Array
  /** The 64-byte signature of a message. Deterministic. */
  sign(message: Uint8Array, seed: Uint8Array): Uint8Array
  /**
   * Whether the signature is good. Never throws: wrong lengths, a key off the curve, a non-canonical or
   * small-order key or `R`, a non-canonical `S` are all `false`. The cofactorless equation is checked.
   */
  verify(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean
}

/** X25519 as in RFC 7748, 5. */
export interface X25519 {
  /** The 32-byte public key of a 32-byte secret. */
  publicKey(secret: Uint8Array): Uint8Array
  /**
   * The 32-byte shared secret, or `undefined` where the other side's key has a wrong length or a small order
   * (the secret would be all zeros, whatever our own key).
   */
  sharedSecret(secret: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined
}

/** ChaCha20-Poly1305 as in RFC 8439, 2.8: 32-byte key, 12-byte nonce, 16-byte tag behind the ciphertext. */
export interface ChaCha20Poly1305 {
  /** Ciphertext and tag: 16 bytes longer than the plaintext. A nonce must never serve twice under one key. */
  seal(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, aad?: Uint8Array): Uint8Array
  /** The plaintext, or `undefined` where the box is shorter than a tag or does not authenticate. */
  open(key: Uint8Array, nonce: Uint8Array, box: Uint8Array, aad?: Uint8Array): Uint8Array | undefined
}

/** Cost of scrypt (RFC 7914): memory is 128 × r × 2^logN bytes. */
export interface ScryptCost {
  readonly logN: number
  readonly r: number
  readonly p: number
}

/** All primitives. See the module's text for what may throw. */
export interface Engine {
  /** For logs and benchmarks. */
  readonly name: "noble" | "native"
  sha256(data: Uint8Array): Uint8Array
  sha512(data: Uint8Array): Uint8Array
  /** A new incremental SHA-256. */
  hasher(): Hasher
  hmacSha256(key: Uint8Array, data: Uint8Array): Uint8Array
  /** HKDF-SHA256 (RFC 5869), 1 to 8,160 bytes; `info` at most 1,024 bytes; an empty salt counts as 32 zeros. */
  hkdfSha256(secret: Uint8Array, salt: Uint8Array, info: Uint8Array, lengthBytes: number): Uint8Array
  readonly ed25519: Ed25519
  readonly x25519: X25519
  readonly chacha20poly1305: ChaCha20Poly1305
  /** scrypt (RFC 7914). The caller bounds the cost: what is asked for is what is spent. */
  scrypt(password: Uint8Array, salt: Uint8Array, cost: ScryptCost, lengthBytes: number): Uint8Array
}

/** Throws `RangeError` unless `bytes` has exactly that length. For an engine's own arguments only. */
export const requireLength = (what: string, bytes: Uint8Array, lengthBytes: number): void => {
  if (bytes.length !== lengthBytes) {
    throw new RangeError(`${what} must have ${lengthBytes} bytes, not ${bytes.length}`)
  }
}

/** Throws `RangeError` where HKDF arguments exceed what both engines can do. */
export const requireHkdfBounds = (info: Uint8Array, lengthBytes: number): void => {
  if (!Number.isInteger(lengthBytes) || lengthBytes < 1 || lengthBytes > hkdfMaxLengthBytes) {
    throw new RangeError(`HKDF-SHA256 gives 1 to ${hkdfMaxLengthBytes} bytes, not ${lengthBytes}`)
  }
  if (info.length > hkdfMaxInfoBytes) {
    throw new RangeError(`HKDF info must have at most ${hkdfMaxInfoBytes} bytes, not ${info.length}`)
  }
}
