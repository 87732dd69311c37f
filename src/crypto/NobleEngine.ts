/**
 * The engine in pure JavaScript, on @noble.
 *
 * @module
 */
import { chacha20poly1305 } from "@noble/ciphers/chacha.js"
import { ed25519, x25519 } from "@noble/curves/ed25519.js"
import { hkdf } from "@noble/hashes/hkdf.js"
import { hmac } from "@noble/hashes/hmac.js"
import { scrypt } from "@noble/hashes/scrypt.js"
import { sha256, sha512 } from "@noble/hashes/sha2.js"
import { concatBytes, equalBytes } from "./Bytes.ts"
import {
  type ChaCha20Poly1305,
  chachaKeyBytes,
  chachaNonceBytes,
  chachaTagBytes,
  type Ed25519,
  type Engine,
  ed25519KeyBytes,
  requireHkdfBounds,
  requireLength,
  type X25519,
  x25519KeyBytes
} from "./Engine.ts"
import { isPlausibleEd25519Key, isPlausibleEd25519Signature } from "./Keys.ts"

const { Point } = ed25519
const order = Point.Fn.ORDER

const littleEndian = (bytes: Uint8Array): bigint => {
  let value = 0n
  for (let index = bytes.length - 1; index >= 0; index--)
    value = (value << 8n) | BigInt(bytes[index] as number)
  return value
}

/**
 * @noble's own `verify` checks the equation multiplied by the cofactor, OpenSSL the plain one; RFC 8032 allows
 * both, and a hostile signer can make signatures on which they differ. So the plain equation is computed here:
 * R' = S·B - k·A, and R' must be spelled exactly like R.
 */
const verify: Ed25519["verify"] = (signature, message, publicKey) => {
  if (!isPlausibleEd25519Signature(signature) || !isPlausibleEd25519Key(publicKey)) return false
  const encodedR = signature.subarray(0, 32)
  const s = littleEndian(signature.subarray(32))
  if (s >= order) return false
  let a: InstanceType<typeof Point>
  try {
    a = Point.fromBytes(publicKey, false)
  } catch {
    return false
  }
  const k = littleEndian(sha512(concatBytes(encodedR, publicKey, message))) % order
  const expected = Point.BASE.multiplyUnsafe(s).subtract(a.multiplyUnsafe(k))
  return equalBytes(expected.toBytes(), encodedR)
}

const nobleEd25519: Ed25519 = {
  publicKey: (seed) => {
    requireLength("An Ed25519 seed", seed, ed25519KeyBytes)
    return ed25519.getPublicKey(seed)
  },
  sign: (message, seed) => {
    requireLength("An Ed25519 seed", seed, ed25519KeyBytes)
    return ed25519.sign(message, seed)
  },
  verify
}

const nobleX25519: X25519 = {
  publicKey: (secret) => {
    requireLength("An X25519 secret", secret, x25519KeyBytes)
    return x25519.getPublicKey(secret)
  },
  sharedSecret: (secret, publicKey) => {
    requireLength("An X25519 secret", secret, x25519KeyBytes)
    if (publicKey.length !== x25519KeyBytes) return undefined
    try {
      return x25519.getSharedSecret(secret, publicKey)
    } catch {
      return undefined
    }
  }
}

const requireKeyAndNonce = (key: Uint8Array, nonce: Uint8Array): void => {
  requireLength("A ChaCha20-Poly1305 key", key, chachaKeyBytes)
  requireLength("A ChaCha20-Poly1305 nonce", nonce, chachaNonceBytes)
}

const nobleChaCha: ChaCha20Poly1305 = {
  seal: (key, nonce, plaintext, aad) => {
    requireKeyAndNonce(key, nonce)
    return chacha20poly1305(key, nonce, aad).encrypt(plaintext)
  },
  open: (key, nonce, box, aad) => {
    requireKeyAndNonce(key, nonce)
    if (box.length < chachaTagBytes) return undefined
    try {
      return chacha20poly1305(key, nonce, aad).decrypt(box)
    } catch {
      return undefined
    }
  }
}

/** The @noble engine. Stateless. */
export const NobleEngine: Engine = {
  name: "noble",
  sha256: (data) => sha256(data),
  sha512: (data) => sha512(data),
  hasher: () => {
    const hash = sha256.create()
    return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest() }
  },
  hmacSha256: (key, data) => hmac(sha256, key, data),
  hkdfSha256: (secret, salt, info, lengthBytes) => {
    requireHkdfBounds(info, lengthBytes)
    return hkdf(sha256, secret, salt, info, lengthBytes)
  },
  ed25519: nobleEd25519,
  x25519: nobleX25519,
  chacha20poly1305: nobleChaCha,
  scrypt: (password, salt, { logN, r, p }, lengthBytes) =>
    scrypt(password, salt, {
      N: 2 ** logN,
      r,
      p,
      dkLen: lengthBytes,
      maxmem: 128 * r * (2 ** logN + p + 2) + 1024
    })
}
