/**
 * Ids and tokens nobody can guess, made of bytes from the Entropy port.
 *
 * A `ByteSource` is what the port's service looks like, so `uuidV7(yield* Entropy)` is all a caller writes.
 *
 * @module
 */
import { Clock, Effect } from "effect"
import { encodeBase32 } from "./Base32.ts"
import { encodeHex } from "./Hex.ts"

/** Secure bytes on demand: the shape of the Entropy port. */
export interface ByteSource {
  readonly bytes: (lengthBytes: number) => Effect.Effect<Uint8Array>
}

/** Random bytes a UUID version 7 takes. */
export const uuidV7EntropyBytes = 10

const latestUuidMs = 2 ** 48 - 1

/**
 * A UUID version 7 (RFC 9562, 5.7), lower case: milliseconds of the Unix epoch, then 74 random bits. Ids of one
 * millisecond are in no order. A time before 1970 or after the year 10889, or a wrong amount of bytes, is a `RangeError`.
 */
export const formatUuidV7 = (unixMs: number, random: Uint8Array): string => {
  if (!Number.isInteger(unixMs) || unixMs < 0 || unixMs > latestUuidMs) {
    throw new RangeError(`A UUID version 7 cannot hold the time ${unixMs}`)
  }
  if (random.length !== uuidV7EntropyBytes) {
    throw new RangeError(`A UUID version 7 takes ${uuidV7EntropyBytes} random bytes, not ${random.length}`)
  }
  const bytes = new Uint8Array(16)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(unixMs) << 16n)
  bytes.set(random, 6)
  bytes[6] = ((bytes[6] as number) & 0x0f) | 0x70
  bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80
  const digits = encodeHex(bytes)
  const cuts = [0, 8, 12, 16, 20, 32]
  return cuts
    .slice(1)
    .map((end, index) => digits.slice(cuts[index], end))
    .join("-")
}

/** A fresh UUID version 7 at the current time of Effect's Clock. */
export const uuidV7 = (source: ByteSource): Effect.Effect<string> =>
  Effect.zipWith(Clock.currentTimeMillis, source.bytes(uuidV7EntropyBytes), formatUuidV7)

/**
 * A fresh token of so many random bits (a multiple of 8) in lower-case base32: 128 bits are 26 characters (nonces,
 * incarnations), 160 are 32 (invitation secrets).
 */
export const base32Token = (source: ByteSource, bits: number): Effect.Effect<string> =>
  Effect.map(source.bytes(bits / 8), encodeBase32)
