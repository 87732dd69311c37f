/**
 * A program's configuration: defaults, then a TOML file, then the environment, then flags; checked by its schema. All that
 * is wrong is told at once, each with where it was said, its key and the reason.
 *
 * @module
 */
import { createHash } from "node:crypto"
import { readFileSync, statSync } from "node:fs"
import { Effect, Result, Schema, SchemaIssue } from "effect"
import { Toml } from "effect/encoding"
import { type ConfigSchema, type Setting, settingsOf } from "../schemas/Setting.ts"
import { formOf } from "../schemas/SettingText.ts"
import { lineOf, nearest } from "./ConfigSlips.ts"
import { errorCode, errorText } from "./files/AtomicFile.ts"

/** One thing that is wrong with a configuration. */
export const ConfigProblem = Schema.Struct({
  /** The file with the line, the environment variable, or the command line. */
  source: Schema.String,
  /** The key, with dots between levels; empty where the whole source is wrong. */
  key: Schema.String,
  reason: Schema.String
})
export type ConfigProblem = typeof ConfigProblem.Type

/** `/etc/postern/client.toml:3: health_interval_ms: it must be …, not 5`. */
export const renderProblem = ({ key, reason, source }: ConfigProblem): string =>
  [source, ...(key === "" ? [] : [key]), reason].join(": ")

/** The configuration is wrong. Programs exit with 78. */
export class ConfigError extends Schema.TaggedError<ConfigError>()("ConfigError", {
  problems: Schema.Array(ConfigProblem)
}) {
  override get message(): string {
    return this.problems.map(renderProblem).join("\n")
  }
}

/** Configuration files are some lines; a larger one is something else. */
const configBytes = 256 * 1024
const shownCharacters = 60

type Table = Readonly<Record<string, unknown>>

export interface ConfigSources<A> {
  readonly schema: ConfigSchema<A>
  /** Path of a file that must be there; undefined for none. */
  readonly file: string | undefined
  /** `POSTERN_` and a key in upper case sets it; texts that are no plain value of the key are read as TOML. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** By key, with dots between levels; undefined is not given. */
  readonly flags?: Table
  readonly defaults?: Table
}

/** A key with the value in force and where that was said: a file's line, a variable, a flag, or `default`. */
export interface EffectiveSetting {
  readonly setting: Setting
  readonly value: unknown
  readonly source: string
}

export interface LoadedConfig<A> {
  readonly config: A
  /** The file that was read; null where there is none. */
  readonly file: string | null
  /** SHA-256 (`sha256:…`) of the file's bytes; null where there is none. */
  readonly digest: string | null
  /** Every key but tables, in the schema's order. */
  readonly effective: ReadonlyArray<EffectiveSetting>
}

interface ReadFile {
  readonly table: Table
  readonly text: string
  readonly digest: string | null
}

const readFile = (path: string): Result.Result<ReadFile, ConfigError> => {
  const wrong = (reason: string) =>
    Result.fail(new ConfigError({ problems: [{ source: path, key: "", reason }] }))
  try {
    const found = statSync(path)
    if (!found.isFile()) return wrong("it is not a plain file")
    if (found.size > configBytes) return wrong(`it has ${found.size} bytes, more than ${configBytes}`)
    const bytes = readFileSync(path)
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes)
    const table = Toml.parse(text)
    if (Result.isFailure(table)) return wrong(`it is no TOML: ${table.failure.message}`)
    const digest = `sha256:${createHash("sha256").update(bytes).digest("hex")}`
    return Result.succeed({ table: table.success, text, digest })
  } catch (error) {
    return wrong(errorCode(error) === "ENOENT" ? "there is no such file" : errorText(error))
  }
}

/** A text of the environment as a value: as it is where the key takes texts, else as TOML. */
const valueOf = ({ values }: Setting, text: string): unknown => {
  if (Result.isSuccess(Schema.decodeResult(values)(text))) return text
  const parsed = Toml.parse(`value = ${text}`)
  return Result.isSuccess(parsed) ? parsed.success["value"] : text
}

const isTable = (value: unknown): value is Table =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** The table with one value set, at whatever depth. */
const withValue = (table: Table, path: ReadonlyArray<string>, value: unknown): Table => {
  const [name = "", ...rest] = path
  if (rest.length === 0) return { ...table, [name]: value }
  const inner = table[name]
  return { ...table, [name]: withValue(isTable(inner) ? inner : {}, rest, value) }
}

const valueAt = (table: unknown, path: ReadonlyArray<string>): unknown =>
  path.reduce<unknown>(
    (value, name) => (isTable(value) && Object.hasOwn(value, name) ? value[name] : undefined),
    table
  )

const namesOf = ({ environment, notes }: Setting): ReadonlyArray<string> =>
  notes.alias === undefined ? [environment] : [environment, notes.alias]

/** What the environment sets, tables before what they hold. */
const environmentValues = (
  settings: ReadonlyArray<Setting>,
  environment: ConfigSources<never>["environment"]
) =>
  settings.flatMap((setting) =>
    namesOf(setting).flatMap((name) => {
      const text = environment[name]
      return text === undefined || text === "" ? [] : [{ setting, name, value: valueOf(setting, text) }]
    })
  )

/** Variables that are nearly the name of a key. Others may be anybody's, and are left alone. */
const environmentSlips = (
  settings: ReadonlyArray<Setting>,
  environment: ConfigSources<never>["environment"]
): ReadonlyArray<ConfigProblem> => {
  const known = settings.flatMap(namesOf)
  return Object.keys(environment).flatMap((name) => {
    if (!name.startsWith("POSTERN_") || known.includes(name)) return []
    const meant = nearest(
      name.slice(8),
      known.map((one) => one.slice(8))
    )
    const reason = `no key has this name; did you mean POSTERN_${meant}?`
    return meant === undefined ? [] : [{ source: name, key: "", reason }]
  })
}

const format = SchemaIssue.makeFormatterStandardSchemaV1()

const shown = (value: unknown): string => {
  const text = JSON.stringify(value) ?? String(value)
  return text.length <= shownCharacters ? text : `${text.slice(0, shownCharacters)}…`
}

const isWithin = (inner: ReadonlyArray<string>, outer: ReadonlyArray<string>): boolean =>
  outer.every((part, index) => part === inner[index])

/** The keys that stand beside one that does not exist. */
const siblings = (settings: ReadonlyArray<Setting>, path: ReadonlyArray<string>): ReadonlyArray<string> =>
  settings
    .filter((one) => one.path.length === path.length && isWithin(one.path, path.slice(0, -1)))
    .map((one) => one.path.at(-1) ?? "")

const excess = "Expected no excess property"

/** What is wrong, in one sentence about the key. */
const reasonOf = (
  settings: ReadonlyArray<Setting>,
  path: ReadonlyArray<string>,
  message: string,
  merged: Table
): string => {
  if (message === excess) {
    const meant = nearest(path.at(-1) ?? "", siblings(settings, path))
    return meant === undefined ? "there is no such key" : `there is no such key; did you mean ${meant}?`
  }
  const setting = settings.findLast((one) => isWithin(path, one.path))
  if (setting === undefined) return message
  const value = valueAt(merged, setting.path)
  const must = `it must be ${formOf(setting)}`
  if (value === undefined) return `it is missing: ${must}`
  return setting.notes.secret === true ? must : `${must}, not ${shown(value)}`
}

/** Where a key's value was said. */
type SourceOf = (path: ReadonlyArray<string>) => string | undefined

const sourceFinder = <A>(
  { file, flags = {} }: ConfigSources<A>,
  { table, text }: ReadFile,
  variables: ReturnType<typeof environmentValues>
): SourceOf => {
  const flagged = Object.keys(given(flags)).map((key) => key.split("."))
  return (path) => {
    const [first = ""] = path
    if (flagged.some((key) => isWithin(path, key))) return "the command line"
    const variable = variables.findLast(({ setting }) => isWithin(path, setting.path))
    if (variable !== undefined) return variable.name
    if (!Object.hasOwn(table, first)) return undefined
    const line = lineOf(text, path)
    return line === undefined ? file : `${file}:${line}`
  }
}

/** All that is wrong, once per key, with where it was said. */
const explain = (
  error: Schema.SchemaError,
  settings: ReadonlyArray<Setting>,
  merged: Table,
  sourceOf: SourceOf
): ReadonlyArray<ConfigProblem> => {
  const problems = format(error.issue).issues.map(({ message, path = [] }): ConfigProblem => {
    const names = path.map((part) => String(typeof part === "object" ? part.key : part))
    return {
      source: sourceOf(names) ?? "the configuration",
      key: names.filter((name) => !/^\d+$/.test(name)).join("."),
      reason: reasonOf(settings, names, message, merged)
    }
  })
  return problems.filter(
    ({ key }, index) => key === "" || problems.findIndex((one) => one.key === key) === index
  )
}

const given = (table: Table): Table =>
  Object.fromEntries(Object.entries(table).filter(([, value]) => value !== undefined))

/** Puts the sources together. Unknown keys are refused; so is every wrong value. */
export const loadConfig = <A>(options: ConfigSources<A>): Effect.Effect<LoadedConfig<A>, ConfigError> =>
  Effect.suspend(() => {
    const nothing: ReadFile = { table: {}, text: "", digest: null }
    const read = options.file === undefined ? Result.succeed(nothing) : readFile(options.file)
    if (Result.isFailure(read)) return Effect.fail(read.failure)
    const settings = settingsOf(options.schema)
    const variables = environmentValues(settings, options.environment)
    const below = variables.reduce<Table>(
      (table, { setting, value }) => withValue(table, setting.path, value),
      {
        ...options.defaults,
        ...read.success.table
      }
    )
    const merged = Object.entries(given(options.flags ?? {})).reduce<Table>(
      (table, [key, value]) => withValue(table, key.split("."), value),
      below
    )
    const sourceOf = sourceFinder(options, read.success, variables)
    const slips = environmentSlips(settings, options.environment)
    const decoded = Schema.decodeResult(options.schema, { onExcessProperty: "error", errors: "all" })(merged)
    if (Result.isFailure(decoded)) {
      const problems = [...explain(decoded.failure, settings, merged, sourceOf), ...slips]
      return Effect.fail(new ConfigError({ problems }))
    }
    if (slips.length > 0) return Effect.fail(new ConfigError({ problems: slips }))
    const effective = settings
      .filter((setting) => !setting.isTable)
      .map((setting): EffectiveSetting => {
        const value = valueAt(decoded.success, setting.path)
        const isSet = valueAt(merged, setting.path) !== undefined
        return { setting, value, source: (isSet ? sourceOf(setting.path) : undefined) ?? "default" }
      })
    const { digest } = read.success
    return Effect.succeed({ config: decoded.success, file: options.file ?? null, digest, effective })
  })
