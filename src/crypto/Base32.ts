/**
 * Base32 (RFC 4648, 6) in lower case without padding: ids, nonces, tokens.
 *
 * @module
 */
import { bitText } from "./BitText.ts"

const codec = bitText("abcdefghijklmnopqrstuvwxyz234567", 5)

/** Lower case, no padding: 32 bytes give 52 characters. */
export const encodeBase32 = (bytes: Uint8Array): string => codec.encode(bytes)

/** The bytes, or `undefined` for anything `encodeBase32` would not have written. */
export const decodeBase32 = (text: string): Uint8Array | undefined => codec.decode(text)
