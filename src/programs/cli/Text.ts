/**
 * Text for people: untrusted text made visible, aligned tables, durations, sizes, times. All pure.
 *
 * @module
 */
import { DateTime } from "effect"

/** Control, format, surrogate and separator characters: what a terminal may obey or a reader cannot see. */
const unsafe = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu

const escapeCharacter = (character: string): string => {
  const code = character.codePointAt(0) as number
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`
}

/** Text from a device or server as one line that no terminal obeys: `\x1b` and the like in place of what is unsafe. */
export const visible = (text: string): string => text.replace(unsafe, escapeCharacter)

/** The same for text that may have several lines: newline and tab stay. */
export const visibleLines = (text: string): string =>
  text.replace(unsafe, (character) =>
    character === "\n" || character === "\t" ? character : escapeCharacter(character)
  )

/** A message of several lines as one. */
export const oneLine = (text: string): string => text.trim().replace(/\s*\n\s*/g, " ")

/** Rows as columns of equal width, two spaces between, nothing behind the last. */
export const table = (header: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const all = [header, ...rows]
  const widths = header.map((_, column) => Math.max(...all.map((row) => [...(row[column] ?? "")].length)))
  const line = (row: ReadonlyArray<string>): string =>
    row
      .map((cell, column) => cell + " ".repeat(Math.max(0, (widths[column] as number) - [...cell].length)))
      .join("  ")
      .trimEnd()
  return `${all.map(line).join("\n")}\n`
}

/** `name: value` lines with the values below each other. */
export const properties = (entries: ReadonlyArray<readonly [name: string, value: string]>): string => {
  const width = Math.max(...entries.map(([name]) => name.length))
  return entries.map(([name, value]) => `${`${name}:`.padEnd(width + 2)}${value}\n`).join("")
}

const durationUnits: ReadonlyArray<readonly [unit: string, ms: number]> = [
  ["ms", 1],
  ["s", 1_000],
  ["m", 60_000],
  ["h", 3_600_000],
  ["d", 86_400_000]
]

/** Milliseconds of `90s`, `10m`, `2h`, `7d`, `500ms`; undefined where the text is none of these. */
export const parseDuration = (text: string): number | undefined => {
  const match = /^([0-9]{1,9})(ms|s|m|h|d)$/.exec(text)
  if (match === null) return undefined
  const unit = durationUnits.find(([name]) => name === match[2]) as readonly [string, number]
  return Number(match[1]) * unit[1]
}

/** A duration in its two largest units: `3d 4h`, `1m 30s`, `12.3 s`, `250 ms`. */
export const showDuration = (ms: number): string => {
  if (ms < 1_000) return `${Math.round(ms)} ms`
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1).replace(/\.0$/, "")} s`
  const large = durationUnits.filter(([, size]) => size <= ms).at(-1) as readonly [string, number]
  const small = durationUnits[durationUnits.indexOf(large) - 1] as readonly [string, number]
  const rest = Math.floor((ms % large[1]) / small[1])
  return `${Math.floor(ms / large[1])}${large[0]}${rest === 0 ? "" : ` ${rest}${small[0]}`}`
}

const sizeUnits = ["", "K", "M", "G"] as const

/** Bytes of `512`, `64K`, `256M`, `2G` (powers of 1024, an `i`, a `B` behind may stand); undefined for anything else. */
export const parseSize = (text: string): number | undefined => {
  const match = /^([0-9]{1,12})([KMG]?)(?:i?B)?$/i.exec(text)
  if (match === null) return undefined
  const power = sizeUnits.indexOf((match[2] as string).toUpperCase() as "" | "K" | "M" | "G")
  const bytes = Number(match[1]) * 1024 ** power
  return Number.isSafeInteger(bytes) ? bytes : undefined
}

/** `0 B`, `1.5 KiB`, `12 MiB`. */
export const showSize = (bytes: number): string => {
  let value = bytes
  let power = 0
  while (value >= 1024 && power < 3) {
    value /= 1024
    power++
  }
  const digits = power === 0 || value >= 100 ? 0 : 1
  return `${value.toFixed(digits).replace(/\.0$/, "")} ${power === 0 ? "B" : `${sizeUnits[power]}iB`}`
}

/** `2026-05-01 12:30:05Z`. */
export const showTime = (ms: number): string =>
  DateTime.formatIso(DateTime.makeUnsafe(ms))
    .replace("T", " ")
    .replace(/\.\d+Z$/, "Z")

/** `1 entry`, `3 entries`. */
export const counted = (count: number, one: string, many: string): string =>
  `${count} ${count === 1 ? one : many}`

/** How long ago, seen from `nowMs`: `12.0 s ago`, `in 3d` for what is still to come. */
export const showAge = (ms: number, nowMs: number): string =>
  ms <= nowMs ? `${showDuration(nowMs - ms)} ago` : `in ${showDuration(ms - nowMs)}`

/** The first characters of an id, enough to name it among a few: `dev_abcd2345`. */
export const shortId = (id: string): string => id.slice(0, 12)

/** A command as a person would type it; parts that need it are quoted, what is unsafe is made visible. */
export const showCommand = (command: ReadonlyArray<string>): string =>
  command
    .map((part) =>
      /^[A-Za-z0-9_./:=@%+,-]+$/.test(part) ? part : `'${visible(part).replaceAll("'", `'\\''`)}'`
    )
    .join(" ")
