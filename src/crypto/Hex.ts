/**
 * Lower-case hexadecimal. Upper case is refused on reading, so that one value has one spelling.
 *
 * @module
 */

const digits = "0123456789abcdef"

/** Two lower-case digits per byte. */
export const encodeHex = (bytes: Uint8Array): string => {
  let text = ""
  for (const byte of bytes) text += (digits[byte >> 4] as string) + (digits[byte & 15] as string)
  return text
}

/** The bytes, or `undefined` where the text is not an even number of lower-case hexadecimal digits. */
export const decodeHex = (text: string): Uint8Array | undefined => {
  if (text.length % 2 !== 0) return undefined
  const bytes = new Uint8Array(text.length / 2)
  for (let index = 0; index < bytes.length; index++) {
    const high = digits.indexOf(text[2 * index] as string)
    const low = digits.indexOf(text[2 * index + 1] as string)
    if (high < 0 || low < 0) return undefined
    bytes[index] = high * 16 + low
  }
  return bytes
}
