/**
 * A short test of an engine, for the start of a program: known answers, and verdicts on what a hostile sender would try. An
 * engine that passes gives what every other gives; the tests hold both engines against far more.
 *
 * @module
 */
import { equalBytes, utf8 } from "./Bytes.ts"
import type { Engine } from "./Engine.ts"
import { decodeHex } from "./Hex.ts"

const bytes = (hex: string): Uint8Array => decodeHex(hex) ?? new Uint8Array(0)
const filled = (value: number): Uint8Array => new Uint8Array(32).fill(value)
const message = utf8("postern")
const [seed, secret] = [filled(7), filled(9)]
const publicKey = bytes("ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c")
const good =
  "b5ba2171e87bd337619435386d2dbd51410411b069f9e3dfc687d304c6b28e56a4b35b99f398aa31f67d8237afe766b31094811c39ef9969b9780aa444d6870e"
const identity = `01${"00".repeat(31)}`
/** A signature by nobody: it holds under a key that is the neutral element. */
const byNobody = `7767a3242dc9b58bbc68488c1265cc6cc5f26c6f3c88a5d55e901b0734dca572d20a1feb8ca954ab${"00".repeat(24)}`

/** What an engine must make, each as hexadecimal. */
const answers: ReadonlyArray<
  readonly [what: string, make: (engine: Engine) => Uint8Array | undefined, hex: string]
> = [
  [
    "SHA-256",
    (engine) => engine.sha256(message),
    "b696ec19b1e95356f45db8ec4736266d08cca80b6e9bc9db6dc4155b070f7376"
  ],
  [
    "SHA-512",
    (engine) => engine.sha512(message),
    "ec7a3b79b6035290bf636764d9209797af7ecd69acb1ca09d32ac2b0b3af2657f0c500813d46c75bed8063b56229f4fc258e174b2fef6b7a17a1d542df97a4ba"
  ],
  [
    "HMAC-SHA256",
    (engine) => engine.hmacSha256(secret, message),
    "91d4aef40061ee920058e0c879f5079293e63c1e4f842a3b4dff5301cf69c0c7"
  ],
  [
    "HKDF-SHA256",
    (engine) => engine.hkdfSha256(secret, seed, message, 40),
    "cb8a730bdf4ef3369f75970c5eb10ad507c1fd23a1f67328fabd1105d1fb3b15458527c6a2e5559d"
  ],
  [
    "scrypt",
    (engine) => engine.scrypt(secret, seed, { logN: 4, r: 2, p: 1 }, 16),
    "e351bf3197cf295f62bd55bc4c81f7f5"
  ],
  [
    "Ed25519 keys",
    (engine) => engine.ed25519.publicKey(seed),
    "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c"
  ],
  ["Ed25519 signatures", (engine) => engine.ed25519.sign(message, seed), good],
  [
    "X25519",
    (engine) => engine.x25519.sharedSecret(secret, bytes(`09${"00".repeat(31)}`)),
    "57db4b359f23ae5e146e4e2512056704722506348c150c14753d0c933d04d421"
  ],
  [
    "X25519 with a key that is not canonical",
    (engine) => engine.x25519.sharedSecret(secret, bytes(`f6${"ff".repeat(30)}7f`)),
    "57db4b359f23ae5e146e4e2512056704722506348c150c14753d0c933d04d421"
  ],
  [
    "ChaCha20-Poly1305",
    (engine) => engine.chacha20poly1305.seal(secret, secret.subarray(0, 12), message, seed),
    "4dab3adbd635fe689f20273e29a2ab6e427828d080b452"
  ],
  [
    "opening with ChaCha20-Poly1305",
    (engine) =>
      engine.chacha20poly1305.open(
        secret,
        secret.subarray(0, 12),
        bytes("4dab3adbd635fe689f20273e29a2ab6e427828d080b452"),
        seed
      ),
    "706f737465726e"
  ]
]

/** Signatures of one message, and whether each is good. */
const verdicts: ReadonlyArray<readonly [what: string, signature: string, key: Uint8Array, isGood: boolean]> =
  [
    ["a good signature", good, publicKey, true],
    [
      "a signature whose S is too large",
      "b5ba2171e87bd337619435386d2dbd51410411b069f9e3dfc687d304c6b28e56918751f60dfcbc89cc1a7ada8de145c81094811c39ef9969b9780aa444d6871e",
      publicKey,
      false
    ],
    [
      "a signature that only the equation with the cofactor would take",
      "b15bf26424d1b69dd33b7a9e57db5de4a2aadea4a2a051efd9bfd6af74165d2b11190844db32031fb38f0b082b3824767349d767f08d64c2be7ffacea6b8b209",
      publicKey,
      false
    ],
    [
      "a signature whose R has a small order",
      `${identity}763b9dd7c86a3cd656f056a64f6a382461eece23f2564a40fe2bcfca08f4af08`,
      publicKey,
      false
    ],
    [
      "a signature whose R is not canonical",
      `ee${"ff".repeat(30)}7f6aa210755c4b033d9db27ce589d48d86e4df62080a3c8b107c74c16015903906`,
      publicKey,
      false
    ],
    ["a key of small order", byNobody, bytes(identity), false],
    ["a key that is not canonical", byNobody, bytes(`ee${"ff".repeat(30)}7f`), false]
  ]

const smallOrderU = [identity, "00".repeat(32), `ed${"ff".repeat(30)}7f`]

/** What an engine does wrong, or that it throws; `undefined` where it passes. Takes a native engine about a millisecond. */
export const engineFlaw = (engine: Engine): string | undefined => {
  try {
    const wrong = answers.find(([, make, hex]) => {
      const made = make(engine)
      return made === undefined || !equalBytes(made, bytes(hex))
    })
    if (wrong !== undefined) return `${wrong[0]}: other bytes than they should be`
    const misjudged = verdicts.find(
      ([, signature, key, isGood]) => engine.ed25519.verify(bytes(signature), message, key) !== isGood
    )
    if (misjudged !== undefined) return `${misjudged[0]} is misjudged`
    if (smallOrderU.some((key) => engine.x25519.sharedSecret(secret, bytes(key)) !== undefined))
      return "X25519 takes a key of small order"
    const bent = bytes("4dab3adbd635fe689f20273e29a2ab6e427828d080b453")
    return engine.chacha20poly1305.open(secret, secret.subarray(0, 12), bent, seed) === undefined
      ? undefined
      : "a box that was changed is opened"
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}
