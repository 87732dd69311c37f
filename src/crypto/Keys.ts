/**
 * The gate through which keys enter: lengths, canonical encoding, and no point of small order.
 *
 * A key of small order makes signatures that verify for any message, or a shared secret an onlooker knows; a
 * non-canonical key gives one point two spellings and so two ids. Neither can come from an honest program.
 *
 * @module
 */
import { ed25519 } from "@noble/curves/ed25519.js"
import { Result, Schema } from "effect"
import { ed25519KeyBytes, ed25519SignatureBytes, x25519KeyBytes } from "./Engine.ts"
import { encodeHex } from "./Hex.ts"

/** A key was refused. `reason` is for programs, `message` for people. */
export class InvalidKey extends Schema.TaggedError<InvalidKey>()("InvalidKey", {
  algorithm: Schema.Literals(["Ed25519", "X25519"]),
  reason: Schema.Literals(["length", "encoding", "not_canonical", "small_order", "not_on_curve"]),
  message: Schema.String
}) {}

/** An accepted Ed25519 public key: 32 bytes, canonical, on the curve, not of small order. */
export type Ed25519PublicKey = Uint8Array & { readonly Ed25519PublicKey: unique symbol }

/** An accepted X25519 public key: 32 bytes, canonical, not of small order. */
export type X25519PublicKey = Uint8Array & { readonly X25519PublicKey: unique symbol }

/**
 * The eight points of small order share five y coordinates: 1, -1, 0 and a pair of order eight. Little-endian,
 * sign bit cleared.
 */
const smallOrderY: ReadonlySet<string> = new Set([
  `01${"00".repeat(31)}`,
  `ec${"ff".repeat(30)}7f`,
  "00".repeat(32),
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"
])

/** The u coordinates whose order divides eight (RFC 7748, 6.1), canonical ones only. */
const smallOrderU: ReadonlySet<string> = new Set([
  "00".repeat(32),
  `01${"00".repeat(31)}`,
  `ec${"ff".repeat(30)}7f`,
  "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
  "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"
])

/** Whether a little-endian coordinate, without its top bit, is below p = 2^255 - 19. */
const isBelowPrime = (bytes: Uint8Array): boolean => {
  if (((bytes[31] as number) & 0x7f) !== 0x7f) return true
  for (let index = 30; index > 0; index--) if (bytes[index] !== 0xff) return true
  return (bytes[0] as number) < 0xed
}

/** The highest bytes that coordinates of small order have: hardly any other point needs to be looked at further. */
const smallOrderTops: ReadonlySet<number> = new Set([0x00, 0x05, 0x7a, 0x7f])

/** Whether 32 bytes spell a point of small order, canonically or with the wrong sign. */
const isSmallOrder = (bytes: Uint8Array): boolean => {
  const top = (bytes[31] as number) & 0x7f
  if (!smallOrderTops.has(top)) return false
  const copy = bytes.slice()
  copy[31] = top
  return smallOrderY.has(encodeHex(copy))
}

/** Why an Ed25519 key is not to be used, judged by its bytes alone; `undefined` for a good one. */
const ed25519Flaw = (bytes: Uint8Array): InvalidKey["reason"] | undefined => {
  if (bytes.length !== ed25519KeyBytes) return "length"
  if (!isBelowPrime(bytes)) return "not_canonical"
  return isSmallOrder(bytes) ? "small_order" : undefined
}

/**
 * The part of the judgement that needs no curve arithmetic: length, canonical encoding, order. Engines call it
 * before every verification, so that both refuse the same keys.
 */
export const isPlausibleEd25519Key = (bytes: Uint8Array): boolean => ed25519Flaw(bytes) === undefined

/**
 * The same of a signature: its length, and an `R` that is not of small order. No honest signer makes such an `R`; OpenSSL
 * refuses it from 3.5 on and took it before, so whoever may choose keys could make signatures that engines judge apart.
 */
export const isPlausibleEd25519Signature = (bytes: Uint8Array): boolean =>
  bytes.length === ed25519SignatureBytes && !isSmallOrder(bytes.subarray(0, 32))

const explain: Record<InvalidKey["reason"], string> = {
  length: "it must have 32 bytes",
  encoding: "its text is not valid base64",
  not_canonical: "its encoding is not canonical",
  small_order: "it has a small order, which no honest program makes",
  not_on_curve: "it is no point of the curve"
}

const refuse = (algorithm: InvalidKey["algorithm"], reason: InvalidKey["reason"]) =>
  Result.fail(
    new InvalidKey({
      algorithm,
      reason,
      message: `The ${algorithm} public key is refused: ${explain[reason]}`
    })
  )

/** Accepts an Ed25519 public key, or says why not. The bytes are copied. */
export const parseEd25519PublicKey = (bytes: Uint8Array): Result.Result<Ed25519PublicKey, InvalidKey> => {
  const flaw = ed25519Flaw(bytes)
  if (flaw !== undefined) return refuse("Ed25519", flaw)
  try {
    ed25519.Point.fromBytes(bytes, false)
  } catch {
    return refuse("Ed25519", "not_on_curve")
  }
  return Result.succeed(Uint8Array.from(bytes) as Ed25519PublicKey)
}

/** Accepts an X25519 public key, or says why not. The bytes are copied. Points of the twist are legal. */
export const parseX25519PublicKey = (bytes: Uint8Array): Result.Result<X25519PublicKey, InvalidKey> => {
  if (bytes.length !== x25519KeyBytes) return refuse("X25519", "length")
  if ((bytes[31] as number) > 0x7f || !isBelowPrime(bytes)) return refuse("X25519", "not_canonical")
  if (smallOrderU.has(encodeHex(bytes))) return refuse("X25519", "small_order")
  return Result.succeed(Uint8Array.from(bytes) as X25519PublicKey)
}
