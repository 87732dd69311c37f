/** Where the client's settings come from: flags, then the environment, then the file, then the defaults. */
import { homedir, hostname } from "node:os"
import { join } from "node:path"
import { Effect, Option, Result, Schema } from "effect"
import { Flag } from "effect/cli"
import { type ConfigError, loadConfig } from "../../adapters/TomlConfig.ts"
import { ClientConfig } from "../../schemas/ClientConfig.ts"
import type { Invitation } from "../../schemas/Enrolment.ts"
import { Name } from "../../schemas/Ids.ts"
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

/** The command line. */
export const clientFlags = {
  config: text("config", "FILE", "A TOML file with settings; also $POSTERN_CONFIG"),
  state: text(
    "state",
    "DIR",
    "Where keys, ledger and packages are kept; also $POSTERN_STATE. Default /var/lib/postern for root, else ~/.local/state/postern"
  ),
  server: text(
    "server",
    "URL",
    "The server to enrol with by claim code, such as https://postern.example; also $POSTERN_SERVER"
  ),
  invitation: text(
    "invitation",
    "TEXT",
    "What `postern invite` printed; better in $POSTERN_INVITATION, since others can see command lines"
  ),
  name: text("name", "NAME", "The name to ask for at enrolment; also $POSTERN_NAME. Default the host's name"),
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

/** The host's name where it is a good one. */
const hostName = (): Name | null => {
  const short = hostname().toLowerCase().split(".")[0] ?? ""
  const name = Schema.decodeResult(Name)(short)
  return Result.isSuccess(name) ? name.success : null
}

const nonEmpty = (value: string | undefined): string | undefined => (value === "" ? undefined : value)

const invitationIn = (
  args: ClientArguments,
  env: NodeJS.ProcessEnv
): Result.Result<Invitation | null, string> => {
  const given = Option.getOrUndefined(args.invitation) ?? nonEmpty(env["POSTERN_INVITATION"])
  return given === undefined ? Result.succeed(null) : readInvitation(given)
}

/** The key people get wrong most says what it wants; the others speak for themselves. */
const explain = (error: ConfigError): string =>
  error.key === "server"
    ? `${error.source}: server: it must be scheme, host and port alone, such as https://postern.example`
    : error.message

/** Puts flags, environment and file together. Fails with the list of what is wrong. */
export const readSettings = (
  args: ClientArguments,
  env: NodeJS.ProcessEnv
): Effect.Effect<ClientSettings, Misconfigured> =>
  Effect.gen(function* () {
    const invitation = invitationIn(args, env)
    const server = Option.getOrUndefined(args.server)
    const loaded = yield* Effect.result(
      loadConfig<ClientConfig>({
        schema: ClientConfig,
        file: Option.getOrUndefined(args.config) ?? nonEmpty(env["POSTERN_CONFIG"]),
        environment: env,
        aliases: { POSTERN_STATE: "state_folder" },
        defaults: { state_folder: defaultStateFolder(env), name: hostName() },
        flags: {
          state_folder: Option.getOrUndefined(args.state),
          server: server?.replace(/\/+$/, ""),
          name: Option.getOrUndefined(args.name),
          long_poll_ms: args.once ? 0 : undefined
        }
      })
    )
    const problems = [
      ...(Result.isFailure(loaded) ? [explain(loaded.failure)] : []),
      ...(Result.isFailure(invitation) ? [invitation.failure] : [])
    ]
    if (Result.isFailure(loaded) || Result.isFailure(invitation)) return yield* misconfigured(...problems)
    const { config, digest } = loaded.success
    return { config, configurationDigest: digest, invitation: invitation.success, once: args.once }
  })
