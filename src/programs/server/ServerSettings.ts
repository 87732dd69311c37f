/** Where the server's settings come from: flags, then the environment, then the file, then the defaults. */
import { homedir } from "node:os"
import { join } from "node:path"
import { Effect, Option, Schema } from "effect"
import { Flag, GlobalFlag } from "effect/cli"
import { type ConfigError, type LoadedConfig, loadConfig, renderProblem } from "../../adapters/TomlConfig.ts"
import { ServerConfig } from "../../schemas/ServerConfig.ts"

/** All that is wrong with the settings, as one list; exit code 78. */
export class Misconfigured extends Schema.TaggedError<Misconfigured>()("Misconfigured", {
  problems: Schema.Array(Schema.String),
  exitCode: Schema.Literal(78)
}) {
  override get message(): string {
    return ["the server cannot run:", ...this.problems.map((problem) => `  - ${problem}`)].join("\n")
  }
}

const text = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.optional)

const ConfigFlag = GlobalFlag.Setting("config")({
  flag: text("config", "FILE", "A TOML file with settings; also $POSTERN_CONFIG")
})

const StateFlag = GlobalFlag.Setting("state")({
  flag: text(
    "state",
    "DIR",
    "Where keys, databases and ciphertext are kept; also $POSTERN_STATE. Default /var/lib/postern-server for root, else ~/.local/state/postern-server"
  )
})

const HostFlag = GlobalFlag.Setting("host")({
  flag: text("host", "ADDRESS", "The address to listen on; also $POSTERN_HOST. Default 127.0.0.1")
})

const PortFlag = GlobalFlag.Setting("port")({
  flag: Flag.Int("port").pipe(
    Flag.withMetavar("PORT"),
    Flag.withDescription("The port to listen on, 0 for a free one; also $POSTERN_PORT. Default 8470"),
    Flag.optional
  )
})

const OnionFlag = GlobalFlag.Setting("onion")({
  flag: Flag.Boolean("onion").pipe(
    Flag.withDescription(
      "Be reached over Tor as onion services too, without any open port; also $POSTERN_ONION_ENABLED"
    ),
    Flag.optional
  )
})

export const settingFlags = [ConfigFlag, StateFlag, HostFlag, PortFlag, OnionFlag] as const

/** Where the state is kept when nobody says. */
export const defaultStateFolder = (env: NodeJS.ProcessEnv): string =>
  process.geteuid?.() === 0
    ? "/var/lib/postern-server"
    : join(env["XDG_STATE_HOME"] || join(homedir(), ".local", "state"), "postern-server")

export interface ServerArguments {
  readonly config: string | undefined
  readonly state: string | undefined
  readonly host: string | undefined
  readonly port: number | undefined
  readonly onion: boolean | undefined
}

/** No flag at all. */
export const noServerArguments: ServerArguments = {
  config: undefined,
  state: undefined,
  host: undefined,
  port: undefined,
  onion: undefined
}

/** Puts flags, environment and file together. */
export const loadServerConfig = (
  args: ServerArguments,
  env: NodeJS.ProcessEnv
): Effect.Effect<LoadedConfig<ServerConfig>, ConfigError> =>
  loadConfig<ServerConfig>({
    schema: ServerConfig,
    file: args.config ?? (env["POSTERN_CONFIG"] || undefined),
    environment: env,
    defaults: { state_folder: defaultStateFolder(env) },
    flags: {
      state_folder: args.state,
      host: args.host,
      port: args.port,
      "onion.enabled": args.onion
    }
  })

/** The configuration. Fails with the list of all that is wrong. */
export const readSettings = (
  args: ServerArguments,
  env: NodeJS.ProcessEnv
): Effect.Effect<ServerConfig, Misconfigured> =>
  loadServerConfig(args, env).pipe(
    Effect.map(({ config }) => config),
    Effect.mapError(
      ({ problems }) => new Misconfigured({ problems: problems.map(renderProblem), exitCode: 78 })
    )
  )

/** The flags of this invocation. */
export const serverArguments = Effect.gen(function* () {
  const args: ServerArguments = {
    config: Option.getOrUndefined(yield* ConfigFlag),
    state: Option.getOrUndefined(yield* StateFlag),
    host: Option.getOrUndefined(yield* HostFlag),
    port: Option.getOrUndefined(yield* PortFlag),
    onion: Option.getOrUndefined(yield* OnionFlag)
  }
  return args
})

/** The settings of this invocation. */
export const serverConfig = Effect.flatMap(serverArguments, (args) => readSettings(args, process.env))
