/**
 * Flags in the units people use.
 *
 * @module
 */
import { Effect, type Option } from "effect"
import { CliError, Flag } from "effect/cli"
import { parseDuration, parseSize } from "./Text.ts"

const parsed = (
  flag: Flag.Flag<string>,
  name: string,
  expected: string,
  parse: (text: string) => number | undefined
): Flag.Flag<number> =>
  Flag.mapEffect(flag, (text) => {
    const value = parse(text)
    return value === undefined
      ? Effect.fail(new CliError.InvalidValue({ option: name, value: text, expected, kind: "flag" }))
      : Effect.succeed(value)
  })

const durationForm = "a number with ms, s, m, h or d behind it (90s, 10m, 7d)"
const sizeForm = "a number of bytes, with K, M or G behind it (512K, 64M, 2G)"

const described = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description))

/** A duration in milliseconds, with a default. */
export const durationFlag = (name: string, description: string, otherwise: string): Flag.Flag<number> =>
  parsed(
    described(name, "TIME", `${description}; default ${otherwise}`).pipe(Flag.withDefault(otherwise)),
    name,
    durationForm,
    parseDuration
  )

/** A duration in milliseconds that may be left out. */
export const optionalDurationFlag = (name: string, description: string): Flag.Flag<Option.Option<number>> =>
  Flag.optional(parsed(described(name, "TIME", description), name, durationForm, parseDuration))

/** A size in bytes that may be left out. */
export const optionalSizeFlag = (name: string, description: string): Flag.Flag<Option.Option<number>> =>
  Flag.optional(parsed(described(name, "SIZE", description), name, sizeForm, parseSize))

/** `--yes`: answer every question with yes. */
export const yesFlag = Flag.Boolean("yes").pipe(
  Flag.withAlias("y"),
  Flag.withDescription("Do not ask, do it"),
  Flag.withDefault(false),
  Flag.withoutNegation
)
