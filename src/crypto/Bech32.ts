/**
 * Bech32 (BIP 173), as age writes recipients and identities: a readable prefix, `1`, the data, six characters of
 * checksum.
 *
 * @module
 */
import { bitText } from "./BitText.ts"

const alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
const codec = bitText(alphabet, 5)
const generator = [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3]
const checksumLength = 6

const polymod = (values: ReadonlyArray<number>): number => {
  let state = 1
  for (const value of values) {
    const top = state >>> 25
    state = ((state & 0x1ffffff) << 5) ^ value
    generator.forEach((term, index) => {
      if ((top >> index) & 1) state ^= term
    })
  }
  return state
}

/** The prefix as the checksum sees it: high bits, zero, low bits. */
const expandPrefix = (prefix: string): ReadonlyArray<number> => {
  const codes = [...prefix].map((character) => character.charCodeAt(0))
  return [...codes.map((code) => code >> 5), 0, ...codes.map((code) => code & 31)]
}

const valuesOf = (data: string): ReadonlyArray<number> =>
  [...data].map((character) => alphabet.indexOf(character))

/** Lower case throughout. `prefix` is lower-case ASCII. */
export const encodeBech32 = (prefix: string, bytes: Uint8Array): string => {
  const data = codec.encode(bytes)
  const check = polymod([...expandPrefix(prefix), ...valuesOf(data), 0, 0, 0, 0, 0, 0]) ^ 1
  let checksum = ""
  for (let index = 0; index < checksumLength; index++) {
    checksum += alphabet[(check >> (5 * (checksumLength - 1 - index))) & 31]
  }
  return `${prefix}1${data}${checksum}`
}

/**
 * The bytes behind exactly this (lower-case) prefix, or `undefined` for a wrong prefix, mixed case, a stray
 * character, a wrong checksum or bits left over. Text wholly in upper case is read too, as BIP 173 demands.
 */
export const decodeBech32 = (prefix: string, text: string): Uint8Array | undefined => {
  const lower = text.toLowerCase()
  if (text !== lower && text !== text.toUpperCase()) return undefined
  if (!lower.startsWith(`${prefix}1`)) return undefined
  const symbols = lower.slice(prefix.length + 1)
  if (symbols.length < checksumLength) return undefined
  const values = valuesOf(symbols)
  if (values.includes(-1) || polymod([...expandPrefix(prefix), ...values]) !== 1) return undefined
  return codec.decode(symbols.slice(0, -checksumLength))
}
