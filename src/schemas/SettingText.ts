/** Settings in words: what values must be, the example file with every key, TOML of single values. */
import { Schema } from "effect"
import { type Setting, settingsOf } from "./Setting.ts"

/** The part of JSON Schema that values of configurations are made of. */
interface Shape {
  readonly type?: string
  readonly minimum?: number
  readonly maximum?: number
  readonly enum?: ReadonlyArray<unknown>
  readonly items?: Shape
  readonly maxItems?: number
  readonly anyOf?: ReadonlyArray<Shape>
}

const units: ReadonlyArray<readonly [suffix: string, unit: string]> = [
  ["_ms", "milliseconds"],
  ["_bytes", "bytes"],
  ["_percent", "percent"],
  ["_days", "days"]
]

/** The unit that a key's last word says; undefined where it says none. */
export const unitOf = ({ key }: Setting): string | undefined =>
  units.find(([suffix]) => key.endsWith(suffix))?.[1]

const range = ({ maximum, minimum }: Shape): string => {
  const most = maximum === Number.MAX_SAFE_INTEGER ? undefined : maximum
  if (minimum !== undefined && most !== undefined) return ` from ${minimum} to ${most}`
  return minimum === undefined ? (most === undefined ? "" : ` up to ${most}`) : ` from ${minimum}`
}

const describe = (shape: Shape): string => {
  if (shape.enum !== undefined) return shape.enum.map((value) => tomlOf(value)).join(" or ")
  if (shape.anyOf !== undefined) return shape.anyOf.map(describe).join(", or ")
  switch (shape.type) {
    case "integer":
      return `a whole number${range(shape)}`
    case "number":
      return `a number${range(shape)}`
    case "boolean":
      return "true or false"
    case "array":
      return `a list of ${shape.maxItems === undefined ? "" : `at most ${shape.maxItems} `}values, each ${describe(shape.items ?? {})}`
    case "object":
      return "a table"
    default:
      return "a text"
  }
}

/** What a value of this key must be: `a whole number from 0 to 60000 (milliseconds)`. */
export const formOf = (setting: Setting): string => {
  if (setting.notes.form !== undefined) return setting.notes.form
  const unit = unitOf(setting)
  const form = describe(Schema.toJsonSchemaDocument(Schema.toType(setting.values)).schema as Shape)
  return unit === undefined ? form : `${form} (${unit})`
}

/** A value as TOML writes it on one line. */
export const tomlOf = (value: unknown): string => {
  if (Array.isArray(value)) return `[${value.map(tomlOf).join(", ")}]`
  if (typeof value === "object" && value !== null) {
    const members = Object.entries(value).map(([key, member]) => `${key} = ${tomlOf(member)}`)
    return members.length === 0 ? "{}" : `{ ${members.join(", ")} }`
  }
  return typeof value === "string" ? JSON.stringify(value) : String(value)
}

/** What counts where nobody sets it, for people. */
export const fallbackText = ({ fallback, notes }: Setting): string =>
  notes.fallback ?? (fallback === undefined ? "none" : tomlOf(fallback))

const width = 100

/** Lines of at most about a hundred characters. */
const wrap = (text: string): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let line = ""
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else line = line === "" ? word : `${line} ${word}`
  }
  return [...lines, line]
}

const entry = (setting: Setting): ReadonlyArray<string> => {
  const name = setting.path.at(-1) ?? ""
  const { notes } = setting
  const told = wrap(notes.description).map((line) => `# ${line}`)
  if (setting.isTable) return ["", ...told, `[${setting.key}]`]
  const form = formOf(setting)
  const value = `${form.charAt(0).toUpperCase()}${form.slice(1)}; default: ${fallbackText(setting)}.`
  const shown = notes.example ?? setting.fallback
  return ["", ...told, ...wrap(value).map((line) => `# ${line}`), `#${name} = ${tomlOf(shown)}`]
}

/**
 * An example file with every key, each explained and commented out: as it stands, it changes nothing. Plain keys come
 * before tables, as TOML wants them.
 */
export const commentedToml = (schema: Parameters<typeof settingsOf>[0], heading: string): string => {
  const all = settingsOf(schema)
  const isBelowTable = (setting: Setting) => setting.isTable || setting.path.length > 1
  const ordered = [...all.filter((one) => !isBelowTable(one)), ...all.filter(isBelowTable)]
  const head = wrap(heading).map((line) => `# ${line}`)
  return `${[...head, ...ordered.flatMap(entry)].join("\n")}\n`
}
