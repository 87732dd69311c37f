/**
 * Settings: the keys of a configuration, each with its words for people. A key cannot be declared without them, so the
 * page, the example file and the error messages are never behind the schema.
 */
import { Effect, Schema } from "effect"

/** What people are told about a key. */
export interface SettingNotes {
  /** What it does, in plain sentences. */
  readonly description: string
  /** What a value is, as it follows "it must be": `a folder's path`. Default: what the schema says. */
  readonly form?: string
  /** What counts where nobody sets it and the schema has no value for that. */
  readonly fallback?: string
  /** A value for the example file where there is no default to show. */
  readonly example?: unknown
  /** The flag that sets it too, as `--state`. */
  readonly flag?: string
  /** A further name in the environment. */
  readonly alias?: string
  /** Its value is never shown. */
  readonly secret?: boolean
}

declare const documented: unique symbol

/** A schema that came through one of the functions below. */
export interface Documented {
  readonly [documented]: true
}

type Fields = Readonly<Record<string, Schema.Codec<unknown, unknown> & Documented>>
type Codec = Schema.Codec<unknown, unknown>

/** What stands at a key in the schema. */
interface Declared {
  readonly notes: SettingNotes
  readonly fallback: unknown
  readonly values: Codec
  readonly keys: Fields | undefined
}

const annotation = "postern/setting"

const declare = <S extends Codec>(schema: S, declared: Declared): S & Documented =>
  schema.pipe(Schema.annotateKey({ [annotation]: declared })) as unknown as S & Documented

const noKeys = { fallback: undefined, keys: undefined }

/** A key with a default. */
export const setting = <S extends Schema.Codec<unknown, unknown>>(
  schema: S,
  value: S["Encoded"],
  notes: SettingNotes
) =>
  declare(schema.pipe(Schema.withDecodingDefault(Effect.succeed(value))), {
    ...noKeys,
    notes,
    fallback: value,
    values: schema
  })

/** Words for a key without a default to show. */
interface ExampleNotes extends SettingNotes {
  readonly example: unknown
}

/** A key that is null where nobody sets it. */
export const unsetSetting = <S extends Schema.Codec<unknown, unknown>>(schema: S, notes: ExampleNotes) =>
  declare(Schema.NullOr(schema).pipe(Schema.withDecodingDefault(Effect.succeed(null))), {
    ...noKeys,
    notes,
    values: schema
  })

/** A key that is absent where nobody sets it. */
export const optionalSetting = <S extends Schema.Codec<unknown, unknown>>(schema: S, notes: ExampleNotes) =>
  declare(Schema.optionalKey(schema), { ...noKeys, notes, values: schema })

/** A key that the program itself gives a value where nobody else does; `fallback` says which. */
export const programSetting = <S extends Schema.Codec<unknown, unknown>>(
  schema: S,
  notes: ExampleNotes & { readonly fallback: string }
) => declare(schema, { ...noKeys, notes, values: schema })

/** A table of further keys, none of which must be given. */
export const settingTable = <const F extends Fields>(fields: F, notes: SettingNotes) => {
  const struct = Schema.Struct(fields)
  const value = {} as typeof struct.Encoded
  return declare(struct.pipe(Schema.withDecodingDefault(Effect.succeed(value))), {
    notes,
    fallback: undefined,
    values: struct as unknown as Codec,
    keys: fields
  })
}

/** A program's configuration: all of its keys. */
export const configuration = <const F extends Fields>(fields: F) => Schema.Struct(fields)

/** The schema of a configuration, with its keys. */
export interface ConfigSchema<A> extends Schema.Codec<A, unknown> {
  readonly fields: Readonly<Record<string, Codec>>
}

/** One key, as it is read off a schema. */
export interface Setting {
  /** Names from the outermost table inwards. */
  readonly path: ReadonlyArray<string>
  /** With dots between: `job_limits.timeout_ms`. */
  readonly key: string
  /** `POSTERN_JOB_LIMITS_TIMEOUT_MS`. */
  readonly environment: string
  readonly notes: SettingNotes
  /** The default; undefined where the schema has none. */
  readonly fallback: unknown
  /** What its values must be. */
  readonly values: Codec
  /** Whether it holds further keys, which then follow it. */
  readonly isTable: boolean
}

const settingsBelow = (
  path: ReadonlyArray<string>,
  fields: Readonly<Record<string, Codec>>
): ReadonlyArray<Setting> =>
  Object.entries(fields).flatMap(([name, field]) => {
    const declared = field.ast.context?.annotations?.[annotation] as Declared | undefined
    if (declared === undefined)
      throw new TypeError(`the key ${name} was not declared by the functions of Setting.ts`)
    const here = [...path, name]
    const own: Setting = {
      path: here,
      key: here.join("."),
      environment: `POSTERN_${here.join("_").toUpperCase()}`,
      notes: declared.notes,
      fallback: declared.fallback,
      values: declared.values,
      isTable: declared.keys !== undefined
    }
    return declared.keys === undefined ? [own] : [own, ...settingsBelow(here, declared.keys)]
  })

/** All keys of a configuration, tables before what they hold. */
export const settingsOf = (schema: { readonly fields: Readonly<Record<string, Codec>> }) =>
  settingsBelow([], schema.fields)
