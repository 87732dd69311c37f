/**
 * A job's own output on a terminal. Elsewhere (a file, a pipe) it goes out byte for byte; on a terminal it is text from
 * a stranger: newline, tab, carriage return and colours (`ESC [ … m`) pass, every other control character is shown as
 * `\x1b` and the like, so that no job can move the cursor, set a title, or answer in the user's name.
 *
 * @module
 */
import { visible } from "./Text.ts"

const colour = /^\u001b\[[0-9;:]*m/
/** What may still grow into a colour when more comes: an escape, a bracket, digits. Longer ones are no colours. */
const unfinished = /\u001b(?:\[[0-9;:]{0,40})?$/

const passes = (character: string): boolean => character === "\n" || character === "\t" || character === "\r"

const unsafe = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u

const clean = (text: string): string => {
  let out = ""
  let rest = text
  while (rest !== "") {
    const at = rest.search(unsafe)
    if (at === -1) return out + rest
    out += rest.slice(0, at)
    rest = rest.slice(at)
    const sequence = colour.exec(rest)?.[0]
    const taken = sequence ?? String.fromCodePoint(rest.codePointAt(0) as number)
    out += sequence !== undefined || passes(taken) ? taken : visible(taken)
    rest = rest.slice(taken.length)
  }
  return out
}

/** Makes a stream of bytes fit for a terminal, piece by piece, however UTF-8 and colours are cut. */
export interface OutputText {
  readonly push: (bytes: Uint8Array) => string
  /** The rest; colours are reset where any were set. */
  readonly end: () => string
}

export const outputText = (): OutputText => {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true })
  let held = ""
  let coloured = false
  const take = (text: string, isLast: boolean): string => {
    const all = held + text
    const open = isLast ? undefined : unfinished.exec(all)?.[0]
    held = open ?? ""
    const ready = clean(open === undefined ? all : all.slice(0, all.length - open.length))
    coloured = coloured || ready.includes("\u001b[")
    return ready
  }
  return {
    push: (bytes) => take(decoder.decode(bytes, { stream: true }), false),
    end: () => take(decoder.decode(), true) + (coloured ? "\u001b[0m" : "")
  }
}
