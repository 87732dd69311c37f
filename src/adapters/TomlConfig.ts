/**
 * A program's configuration: defaults, then a TOML file, then the environment, then flags; checked by its schema. What is
 * wrong is told with where it was said, its key and the reason.
 *
 * @module
 */
import { createHash } from "node:crypto"
import { readFileSync, statSync } from "node:fs"
import { Effect, Result, Schema, SchemaIssue } from "effect"
import { Toml } from "effect/encoding"
import { errorCode, errorText } from "./files/AtomicFile.ts"

/** The configuration is wrong. Programs exit with 78. */
export class ConfigError extends Schema.TaggedError<ConfigError>()("ConfigError", {
  /** The file, the environment variable or the flag in question. */
  source: Schema.String,
  /** The key, with dots between levels; empty where the whole source is wrong. */
  key: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return this.key === "" ? `${this.source}: ${this.reason}` : `${this.source}: ${this.key}: ${this.reason}`
  }
}

/** Configuration files are some lines; a larger one is something else. */
const configBytes = 256 * 1024

type Table = Readonly<Record<string, unknown>>
type Fields = Readonly<Record<string, Schema.Codec<unknown, unknown>>>

export interface ConfigSources<A> {
  readonly schema: Schema.Codec<A, unknown> & { readonly fields: Fields }
  /** Path of a file that must be there; undefined for none. */
  readonly file: string | undefined
  /** `POSTERN_` and a key in upper case sets the key; texts that are no plain value of the key are read as TOML. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Further names in the environment, with the keys they set. */
  readonly aliases?: Readonly<Record<string, string>>
  /** By key; undefined is not given. Flags are named as their key in messages. */
  readonly flags?: Table
  readonly defaults?: Table
}

export interface LoadedConfig<A> {
  readonly config: A
  /** SHA-256 (`sha256:…`) of the file's bytes; null where there is none. */
  readonly digest: string | null
}

const readFile = (
  path: string
): Result.Result<{ readonly table: Table; readonly digest: string | null }, ConfigError> => {
  const wrong = (reason: string) => Result.fail(new ConfigError({ source: path, key: "", reason }))
  try {
    const found = statSync(path)
    if (!found.isFile()) return wrong("it is not a plain file")
    if (found.size > configBytes) return wrong(`it has ${found.size} bytes, more than ${configBytes}`)
    const bytes = readFileSync(path)
    const table = Toml.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes))
    if (Result.isFailure(table)) return wrong(`it is no TOML: ${table.failure.message}`)
    return Result.succeed({
      table: table.success,
      digest: `sha256:${createHash("sha256").update(bytes).digest("hex")}`
    })
  } catch (error) {
    return wrong(errorCode(error) === "ENOENT" ? "there is no such file" : errorText(error))
  }
}

/** A text of the environment as a value: as it is where the key takes texts, else as TOML. */
const valueOf = (field: Schema.Codec<unknown, unknown>, text: string): unknown => {
  if (Result.isSuccess(Schema.decodeResult(field)(text))) return text
  const parsed = Toml.parse(`value = ${text}`)
  return Result.isSuccess(parsed) ? parsed.success["value"] : text
}

const fromEnvironment = <A>({ aliases = {}, environment, schema }: ConfigSources<A>) => {
  const table: Record<string, unknown> = {}
  const sources = new Map<string, string>()
  const names = [
    ...Object.keys(schema.fields).map((key) => [`POSTERN_${key.toUpperCase()}`, key] as const),
    ...Object.entries(aliases)
  ]
  for (const [name, key] of names) {
    const text = environment[name]
    const field = schema.fields[key]
    if (text === undefined || text === "" || field === undefined) continue
    table[key] = valueOf(field, text)
    sources.set(key, name)
  }
  return { table, sources }
}

const format = SchemaIssue.makeFormatterStandardSchemaV1()

/** The first thing that is wrong, with where it was said. */
const explain = (error: Schema.SchemaError, sourceOf: (key: string) => string): ConfigError => {
  const [first] = format(error.issue).issues
  const path = (first?.path ?? []).map((part) => String(typeof part === "object" ? part.key : part))
  return new ConfigError({
    source: sourceOf(path[0] ?? ""),
    key: path.join("."),
    reason: (first?.message ?? error.message).replace("Expected no excess property", "there is no such key")
  })
}

const given = (table: Table): Table =>
  Object.fromEntries(Object.entries(table).filter(([, value]) => value !== undefined))

/** Puts the sources together. Unknown keys are refused; so is the first wrong value. */
export const loadConfig = <A>(options: ConfigSources<A>): Effect.Effect<LoadedConfig<A>, ConfigError> =>
  Effect.suspend(() => {
    const read =
      options.file === undefined ? Result.succeed({ table: {}, digest: null }) : readFile(options.file)
    if (Result.isFailure(read)) return Effect.fail(read.failure)
    const { digest, table } = read.success
    const environment = fromEnvironment(options)
    const flags = given(options.flags ?? {})
    const merged = { ...options.defaults, ...table, ...environment.table, ...flags }
    const sourceOf = (key: string): string => {
      if (Object.hasOwn(flags, key)) return "the command line"
      return (
        environment.sources.get(key) ??
        (Object.hasOwn(table, key) ? (options.file ?? "") : "the configuration")
      )
    }
    const decoded = Schema.decodeResult(options.schema, { onExcessProperty: "error" })(merged)
    return Result.isSuccess(decoded)
      ? Effect.succeed({ config: decoded.success, digest })
      : Effect.fail(explain(decoded.failure, sourceOf))
  })
