/**
 * The engine on `node:crypto` (OpenSSL): 15 to 50 times faster than pure JavaScript.
 *
 * It judges exactly like `NobleEngine`; the tests hold both against the same vectors and mutations.
 *
 * @module
 */
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  diffieHellman,
  hash,
  hkdfSync,
  type KeyObject,
  scryptSync,
  sign,
  verify
} from "node:crypto"
import { Layer } from "effect"
import { decodeBase64Url, encodeBase64Url } from "../crypto/Base64.ts"
import { concatBytes, equalBytes } from "../crypto/Bytes.ts"
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
  sha256Bytes,
  type X25519,
  x25519KeyBytes
} from "../crypto/Engine.ts"
import { isPlausibleEd25519Key, isPlausibleEd25519Signature } from "../crypto/Keys.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"

/** A plain view of a Buffer: callers get `Uint8Array`s whichever engine made them. */
const plain = (buffer: Buffer): Uint8Array =>
  new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength)

/** PKCS#8 in front of a raw key (RFC 8410): the last byte of the object identifier tells the algorithms apart. */
const privatePrefix = (algorithm: number): Uint8Array =>
  Uint8Array.of(0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, algorithm, 4, 0x22, 4, 0x20)
const ed25519Private = privatePrefix(0x70)
const x25519Private = privatePrefix(0x6e)

const importPrivate = (prefix: Uint8Array, raw: Uint8Array): KeyObject => {
  const der = Buffer.from(concatBytes(prefix, raw).buffer)
  const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" })
  der.fill(0)
  return key
}

type Curve = "Ed25519" | "X25519"

/** As a JSON Web Key, which takes OpenSSL less time than DER; `x` is its raw 32 bytes in base64url. */
const importPublic = (crv: Curve, x: string): KeyObject =>
  createPublicKey({ key: { kty: "OKP", crv, x }, format: "jwk" })

/** Out of a JSON Web Key too: to write DER takes as long as to agree on a secret. */
const rawPublic = (key: KeyObject): Uint8Array =>
  decodeBase64Url(createPublicKey(key).export({ format: "jwk" }).x ?? "") ?? new Uint8Array(0)

/**
 * Remembers the imported form of a key for as long as somebody keeps the very array that holds it: to import one costs
 * as much as to use it. So a secret key is not held here longer than by its owner. An array that was written to since
 * counts as another key.
 */
const remembering = (importKey: (raw: Uint8Array) => KeyObject): ((raw: Uint8Array) => KeyObject) => {
  const known = new WeakMap<Uint8Array, { readonly raw: Uint8Array; readonly key: KeyObject }>()
  return (raw) => {
    const found = known.get(raw)
    if (found !== undefined && equalBytes(found.raw, raw)) return found.key
    const key = importKey(raw)
    known.set(raw, { raw: Uint8Array.from(raw), key })
    return key
  }
}

/** Public keys in use at once: more than a device knows, and the busiest senders of a server. */
const knownPublicKeys = 1_024

/**
 * Remembers the imported form of other people's keys by what they are, since they come out of another document each time.
 * Which have been used last stay.
 */
const rememberingPublic = (curve: Curve): ((raw: Uint8Array) => KeyObject) => {
  const known = new Map<string, KeyObject>()
  return (raw) => {
    const text = encodeBase64Url(raw)
    const key = known.get(text) ?? importPublic(curve, text)
    known.delete(text)
    known.set(text, key)
    const [oldest] = known.keys()
    if (known.size > knownPublicKeys && oldest !== undefined) known.delete(oldest)
    return key
  }
}

const signingKey = remembering((seed) => importPrivate(ed25519Private, seed))
const verifyingKey = rememberingPublic("Ed25519")
const agreeingKey = remembering((secret) => importPrivate(x25519Private, secret))
const agreedKey = rememberingPublic("X25519")

const nativeEd25519: Ed25519 = {
  publicKey: (seed) => {
    requireLength("An Ed25519 seed", seed, ed25519KeyBytes)
    return rawPublic(importPrivate(ed25519Private, seed))
  },
  sign: (message, seed) => {
    requireLength("An Ed25519 seed", seed, ed25519KeyBytes)
    return plain(sign(null, message, signingKey(seed)))
  },
  verify: (signature, message, publicKey) => {
    // OpenSSL takes non-canonical and small-order keys, and before 3.5 such signatures; the gate before it does not.
    if (!isPlausibleEd25519Signature(signature) || !isPlausibleEd25519Key(publicKey)) return false
    try {
      return verify(null, message, verifyingKey(publicKey), signature)
    } catch {
      return false
    }
  }
}

const nativeX25519: X25519 = {
  publicKey: (secret) => {
    requireLength("An X25519 secret", secret, x25519KeyBytes)
    return rawPublic(agreeingKey(secret))
  },
  sharedSecret: (secret, publicKey) => {
    requireLength("An X25519 secret", secret, x25519KeyBytes)
    if (publicKey.length !== x25519KeyBytes) return undefined
    const privateKey = agreeingKey(secret)
    try {
      return plain(diffieHellman({ privateKey, publicKey: agreedKey(publicKey) }))
    } catch {
      return undefined
    }
  }
}

const cipherName = "chacha20-poly1305"
const cipherOptions = { authTagLength: chachaTagBytes }

const requireKeyAndNonce = (key: Uint8Array, nonce: Uint8Array): void => {
  requireLength("A ChaCha20-Poly1305 key", key, chachaKeyBytes)
  requireLength("A ChaCha20-Poly1305 nonce", nonce, chachaNonceBytes)
}

/** Keys go in as key objects: Node looks whether plain bytes are one, which takes longer than all the rest of a short message. */
const nativeChaCha: ChaCha20Poly1305 = {
  seal: (key, nonce, plaintext, aad) => {
    requireKeyAndNonce(key, nonce)
    const cipher = createCipheriv(cipherName, createSecretKey(key), nonce, cipherOptions)
    if (aad !== undefined) cipher.setAAD(aad, { plaintextLength: plaintext.length })
    // Not zeroed first: every byte is written.
    const box = Buffer.allocUnsafeSlow(plaintext.length + chachaTagBytes)
    box.set(cipher.update(plaintext))
    cipher.final()
    box.set(cipher.getAuthTag(), plaintext.length)
    return plain(box)
  },
  open: (key, nonce, box, aad) => {
    requireKeyAndNonce(key, nonce)
    const length = box.length - chachaTagBytes
    if (length < 0) return undefined
    const decipher = createDecipheriv(cipherName, createSecretKey(key), nonce, cipherOptions)
    if (aad !== undefined) decipher.setAAD(aad, { plaintextLength: length })
    decipher.setAuthTag(box.subarray(length))
    const plaintext = decipher.update(box.subarray(0, length))
    try {
      decipher.final()
    } catch {
      return undefined
    }
    return plain(plaintext)
  }
}

const sha256 = (data: Uint8Array): Uint8Array => plain(hash("sha256", data, "buffer"))

const blockBytes = 64
/** Up to here two hashes of one piece each cost a third of an HMAC object. */
const shortBytes = 4_096

/** HMAC by its definition (RFC 2104, 2) where the data are short, as they are wherever keys are derived. */
const hmacSha256: Engine["hmacSha256"] = (key, data) => {
  if (key.length > blockBytes || data.length > shortBytes)
    return plain(createHmac("sha256", key).update(data).digest())
  const inner = new Uint8Array(blockBytes + data.length).fill(0x36, 0, blockBytes)
  const outer = new Uint8Array(blockBytes + sha256Bytes).fill(0x5c, 0, blockBytes)
  for (let index = 0; index < key.length; index++) {
    const byte = key[index] as number
    inner[index] = 0x36 ^ byte
    outer[index] = 0x5c ^ byte
  }
  inner.set(data, blockBytes)
  outer.set(sha256(inner), blockBytes)
  return sha256(outer)
}

/** The `node:crypto` engine. Safe to share: the imported keys it remembers change no result. */
export const NativeCrypto: Engine = {
  name: "native",
  sha256,
  sha512: (data) => plain(hash("sha512", data, "buffer")),
  hasher: () => {
    const running = createHash("sha256")
    return { update: (bytes) => void running.update(bytes), digest: () => plain(running.digest()) }
  },
  hmacSha256,
  hkdfSha256: (secret, salt, info, lengthBytes) => {
    requireHkdfBounds(info, lengthBytes)
    return new Uint8Array(hkdfSync("sha256", secret, salt, info, lengthBytes))
  },
  ed25519: nativeEd25519,
  x25519: nativeX25519,
  chacha20poly1305: nativeChaCha,
  scrypt: (password, salt, { logN, r, p }, lengthBytes) =>
    plain(
      scryptSync(password, salt, lengthBytes, {
        N: 2 ** logN,
        r,
        p,
        maxmem: 128 * r * (2 ** logN + p + 2) + 1024
      })
    )
}

/** Provides {@link NativeCrypto} as the engine in use. */
export const NativeCryptoEngine: Layer.Layer<CryptoEngine> = Layer.succeed(CryptoEngine, NativeCrypto)
