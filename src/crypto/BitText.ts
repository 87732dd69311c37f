/**
 * Text forms that carry a fixed number of bits per character (base32, base64), strict in both directions: one
 * value has one spelling.
 *
 * @module
 */

/** Encodes and decodes without padding. */
export interface BitText {
  encode(bytes: Uint8Array): string
  /**
   * The bytes, or `undefined` where a character is outside the alphabet, the length is impossible, or the bits
   * left over at the end are not zero (a second spelling of the same bytes).
   */
  decode(text: string): Uint8Array | undefined
}

const ascii = new TextDecoder()

/** The codec of an alphabet whose size is two to the power of `bits`; all its characters are ASCII. */
export const bitText = (alphabet: string, bits: number): BitText => {
  const valueOf = new Int8Array(128).fill(-1)
  for (let index = 0; index < alphabet.length; index++) valueOf[alphabet.charCodeAt(index)] = index
  const codes = Uint8Array.from(alphabet, (character) => character.charCodeAt(0))
  const mask = 2 ** bits - 1

  const encode = (bytes: Uint8Array): string => {
    const characters = new Uint8Array(Math.ceil((bytes.length * 8) / bits))
    let held = 0
    let heldBits = 0
    let written = 0
    for (const byte of bytes) {
      held = ((held << 8) | byte) & 0xffff
      heldBits += 8
      while (heldBits >= bits) {
        heldBits -= bits
        characters[written++] = codes[(held >> heldBits) & mask] as number
      }
    }
    if (heldBits > 0) characters[written] = codes[(held << (bits - heldBits)) & mask] as number
    return ascii.decode(characters)
  }

  const decode = (text: string): Uint8Array | undefined => {
    const bytes = new Uint8Array(Math.floor((text.length * bits) / 8))
    let held = 0
    let heldBits = 0
    let written = 0
    for (let index = 0; index < text.length; index++) {
      const value = valueOf[text.charCodeAt(index)] ?? -1
      if (value < 0) return undefined
      held = ((held << bits) | value) & 0xffff
      heldBits += bits
      if (heldBits >= 8) {
        heldBits -= 8
        bytes[written++] = held >> heldBits
      }
    }
    const surplus = heldBits >= bits || (held & (2 ** heldBits - 1)) !== 0
    return surplus ? undefined : bytes
  }

  return { encode, decode }
}
