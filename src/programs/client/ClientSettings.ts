/** Where the client's settings come from: flags, then the environment, then the file, then the defaults. */
import { homedir, hostname } from "node:os"
import { join } from "node:path"
import { Effect, Option, Result, Schema } from "effect"
import { Flag, GlobalFlag } from "effect/cli"
import { errorText } from "../../adapters/files/AtomicFile.ts"
import { ConfigError, type LoadedConfig, loadConfig, renderProblem } from "../../adapters/TomlConfig.ts"
import { ClientConfig } from "../../schemas/ClientConfig.ts"
import type { Invitation } from "../../schemas/Enrolment.ts"
import { Name } from "../../schemas/Ids.ts"
import { configFile } from "./ConfigurationFile.ts"
import { readInvitation } from "./Invitations.ts"

/** What is missing or wrong, as one list; the program exits with 78. */
export class Misconfigured extends Schema.TaggedError<Misconfigured>()("Misconfigured", {
  problems: Schema.Array(Schema.String),
  exitCode: Schema.Literal(78)
}) {
  override get message(): string {
    return ["the client cannot run:", ...this.problems.map((problem) => `  - ${problem}`)].join("\n")
  }
}

export const misconfigured = (...problems: ReadonlyArray<string>) =>
  new Misconfigured({ problems, exitCode: 78 })

const text = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.optional)

const ConfigFlag = GlobalFlag.Setting("config")({
  flag: text("config", "FILE", "A TOML file with settings; also $POSTERN_CONFIG")
})

const StateFlag = GlobalFlag.Setting("state")({
  flag: text(
    "state",
    "DIR",
    "Where keys, ledger and packages are kept; also $POSTERN_STATE. Default /var/lib/postern for root, else ~/.local/state/postern"
  )
})

const ServerFlag = GlobalFlag.Setting("server")({
  flag: text(
    "server",
    "URL",
    "The server to enrol with by claim code, such as https://postern.example; also $POSTERN_SERVER"
  )
})

const NameFlag = GlobalFlag.Setting("name")({
  flag: text("name", "NAME", "The name to ask for at enrolment; also $POSTERN_NAME. Default the host's name")
})

/** Flags that every command of the client takes. */
export const settingFlags = [ConfigFlag, StateFlag, ServerFlag, NameFlag] as const

/** Flags of the run itself. */
export const runFlags = {
  invitation: text(
    "invitation",
    "TEXT",
    "What `postern invite` printed; better in $POSTERN_INVITATION, since others can see command lines"
  ),
  once: Flag.Boolean("once").pipe(
    Flag.withDescription("Poll until the server has answered once, finish what came of it, and stop"),
    Flag.withDefault(false)
  )
}

/** What the flags give. */
export interface ClientArguments {
  readonly config: Option.Option<string>
  readonly state: Option.Option<string>
  readonly server: Option.Option<string>
  readonly invitation: Option.Option<string>
  readonly name: Option.Option<string>
  readonly once: boolean
}

/** No flag at all. */
export const noClientArguments: ClientArguments = {
  config: Option.none(),
  state: Option.none(),
  server: Option.none(),
  invitation: Option.none(),
  name: Option.none(),
  once: false
}

/** The flags of this invocation. */
export const clientArguments = (given: Pick<ClientArguments, "invitation" | "once"> = noClientArguments) =>
  Effect.gen(function* () {
    const args: ClientArguments = {
      invitation: given.invitation,
      once: given.once,
      config: yield* ConfigFlag,
      state: yield* StateFlag,
      server: yield* ServerFlag,
      name: yield* NameFlag
    }
    return args
  })

export interface ClientSettings {
  readonly config: ClientConfig
  readonly configurationDigest: string | null
  readonly invitation: Invitation | null
  readonly once: boolean
}

/** Where the state is kept when nobody says. */
export const defaultStateFolder = (env: NodeJS.ProcessEnv): string =>
  process.geteuid?.() === 0
    ? "/var/lib/postern"
    : join(env["XDG_STATE_HOME"] || join(homedir(), ".local", "state"), "postern")

/** The host's name as a default, where it is a good one. */
const nameOfHost = (): { readonly name?: string } => {
  const name = hostname().toLowerCase().split(".")[0] ?? ""
  return Schema.is(Name)(name) ? { name } : {}
}

const nonEmpty = (value: string | undefined): string | undefined => (value === "" ? undefined : value)

const invitationIn = (
  args: ClientArguments,
  env: NodeJS.ProcessEnv
): Result.Result<Invitation | null, string> => {
  const given = Option.getOrUndefined(args.invitation) ?? nonEmpty(env["POSTERN_INVITATION"])
  return given === undefined ? Result.succeed(null) : readInvitation(given)
}

/** Puts flags, environment and file together. */
export const loadClientConfig = (
  args: ClientArguments,
  env: NodeJS.ProcessEnv
): Effect.Effect<LoadedConfig<ClientConfig>, ConfigError> =>
  Effect.flatMap(fileToRead(args, env), (file) => loadFrom(file, args, env))

const fileToRead = (args: ClientArguments, env: NodeJS.ProcessEnv) =>
  Effect.try({
    try: () => configFile(args, env),
    catch: (error) =>
      new ConfigError({ problems: [{ source: "the configuration", key: "", reason: errorText(error) }] })
  })

const loadFrom = (file: string | undefined, args: ClientArguments, env: NodeJS.ProcessEnv) =>
  loadConfig<ClientConfig>({
    schema: ClientConfig,
    file,
    environment: env,
    defaults: { state_folder: defaultStateFolder(env), ...nameOfHost() },
    flags: {
      state_folder: Option.getOrUndefined(args.state),
      server: Option.getOrUndefined(args.server)?.replace(/\/+$/, ""),
      name: Option.getOrUndefined(args.name),
      long_poll_ms: args.once ? 0 : undefined
    }
  })

/** The configuration, and the invitation if there is one. Fails with the list of all that is wrong. */
export const readSettings = (
  args: ClientArguments,
  env: NodeJS.ProcessEnv
): Effect.Effect<ClientSettings, Misconfigured> =>
  Effect.gen(function* () {
    const invitation = invitationIn(args, env)
    const loaded = yield* Effect.result(loadClientConfig(args, env))
    const problems = [
      ...(Result.isFailure(loaded) ? loaded.failure.problems.map(renderProblem) : []),
      ...(Result.isFailure(invitation) ? [invitation.failure] : [])
    ]
    if (Result.isFailure(loaded) || Result.isFailure(invitation)) return yield* misconfigured(...problems)
    const { config, digest } = loaded.success
    return { config, configurationDigest: digest, invitation: invitation.success, once: args.once }
  })
