/**
 * Base64 (RFC 4648, 4 and 5), strict: what the encoder would not have written is refused.
 *
 * @module
 */
import { bitText } from "./BitText.ts"

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
const standard = bitText(`${letters}+/`, 6)
const url = bitText(`${letters}-_`, 6)

const paddingOf = (length: number): string => "=".repeat((4 - (length % 4)) % 4)

/** Standard alphabet with padding. */
export const encodeBase64 = (bytes: Uint8Array): string => {
  const text = standard.encode(bytes)
  return text + paddingOf(text.length)
}

/** The bytes, or `undefined` for anything {@link encodeBase64} would not have written. */
export const decodeBase64 = (text: string): Uint8Array | undefined => {
  const unpadded = text.replace(/={1,2}$/, "")
  return unpadded + paddingOf(unpadded.length) === text ? standard.decode(unpadded) : undefined
}

/** Standard alphabet without padding, as age headers have it. */
export const encodeBase64Unpadded = (bytes: Uint8Array): string => standard.encode(bytes)

/** The bytes, or `undefined` for anything {@link encodeBase64Unpadded} would not have written. */
export const decodeBase64Unpadded = (text: string): Uint8Array | undefined => standard.decode(text)

/** URL alphabet without padding. */
export const encodeBase64Url = (bytes: Uint8Array): string => url.encode(bytes)

/** The bytes, or `undefined` for anything {@link encodeBase64Url} would not have written. */
export const decodeBase64Url = (text: string): Uint8Array | undefined => url.decode(text)
