/** Untrusted or foreign text made fit for a label. */

const unfit = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]+/gu

/** The text with control, format and half characters as single blanks, cut to `maximum` UTF-16 units. */
export const plainText = (text: string, maximum: number): string => {
  const plain = text.replace(unfit, " ").trim()
  if (plain.length <= maximum) return plain
  // A surrogate pair cut in two would leave half a character behind.
  return `${plain.slice(0, maximum - 1).replace(/[\ud800-\udbff]$/u, "")}…`
}
