/**
 * Small helpers over byte arrays, shared by the whole crypto room.
 *
 * @module
 */

const encoder = new TextEncoder()
const strictDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/**
 * The UTF-8 bytes of a string. A lone surrogate becomes U+FFFD, as `TextEncoder` does; callers for whom that
 * matters check `isWellFormed` first.
 */
export const utf8 = (text: string): Uint8Array => encoder.encode(text)

/** The text of UTF-8 bytes, or `undefined` where they are not valid UTF-8. A byte order mark is kept. */
export const fromUtf8 = (bytes: Uint8Array): string | undefined => {
  try {
    return strictDecoder.decode(bytes)
  } catch {
    return undefined
  }
}

/** One array holding all parts in order. */
export const concatBytes = (...parts: ReadonlyArray<Uint8Array>): Uint8Array => {
  let length = 0
  for (const part of parts) length += part.length
  const joined = new Uint8Array(length)
  let offset = 0
  for (const part of parts) {
    joined.set(part, offset)
    offset += part.length
  }
  return joined
}

/**
 * Equality of content. The time taken depends on the lengths only, so that a secret (a MAC, a token) is not
 * found out byte by byte.
 */
export const equalBytes = (left: Uint8Array, right: Uint8Array): boolean => {
  if (left.length !== right.length) return false
  let difference = 0
  for (let index = 0; index < left.length; index++) {
    difference |= (left[index] as number) ^ (right[index] as number)
  }
  return difference === 0
}
