/** `client.js config` and `server.js config`: the settings in force and where each was said, or an example file. */
import { Effect, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import { type ConfigError, type LoadedConfig, renderProblem } from "../adapters/TomlConfig.ts"
import type { ConfigSchema } from "../schemas/Setting.ts"
import { commentedToml, tomlOf } from "../schemas/SettingText.ts"
import { out, outJson } from "./cli/Screen.ts"
import { table, visible } from "./cli/Text.ts"

/** The configuration is wrong; exit code 78. */
export class WrongConfiguration extends Schema.TaggedError<WrongConfiguration>()("WrongConfiguration", {
  problems: Schema.Array(Schema.String),
  exitCode: Schema.Literal(78)
}) {
  override get message(): string {
    return ["the configuration is wrong:", ...this.problems.map((problem) => `  - ${problem}`)].join("\n")
  }
}

/** What an example file of a program begins with. */
export const exampleHeading = (program: "client" | "server"): string =>
  `Settings of the Postern ${program}. Every setting is commented out, so this file changes nothing: take a # away to set one. docs/configuration.md has the same list.`

const flags = {
  example: Flag.Boolean("example").pipe(
    Flag.withDescription("Print a commented file with every setting instead"),
    Flag.withDefault(false),
    Flag.withoutNegation
  ),
  json: Flag.Boolean("json").pipe(
    Flag.withDescription("Print one JSON document"),
    Flag.withDefault(false),
    Flag.withoutNegation
  )
}

const hidden = "(not shown)"

const shown = <A>({ effective }: LoadedConfig<A>) =>
  effective.map(({ setting, source, value }) => ({
    key: setting.key,
    value: setting.notes.secret === true && value !== null ? hidden : value,
    source
  }))

const valueText = (value: unknown): string => (value === null || value === undefined ? "" : tomlOf(value))

/** The command for one program. */
export const configCommand = <A, R>(options: {
  readonly program: "client" | "server"
  readonly schema: ConfigSchema<A>
  readonly load: Effect.Effect<LoadedConfig<A>, ConfigError, R>
}) =>
  Command.make("config", flags, ({ example, json }) =>
    Effect.gen(function* () {
      if (example) return yield* out(commentedToml(options.schema, exampleHeading(options.program)))
      const loaded = yield* Effect.mapError(
        options.load,
        ({ problems }) => new WrongConfiguration({ problems: problems.map(renderProblem), exitCode: 78 })
      )
      const settings = shown(loaded)
      if (json) return yield* outJson({ settings })
      const rows = settings.map(({ key, source, value }) => [key, visible(valueText(value)), visible(source)])
      yield* out(table(["KEY", "VALUE", "FROM"], rows))
    })
  ).pipe(
    Command.withDescription(
      "Check the configuration, and print every setting with its value and where that was said. Exit code 78 when something is wrong"
    )
  )
