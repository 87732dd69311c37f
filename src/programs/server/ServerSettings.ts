/** Where the server's settings come from: flags, then the environment, then the file, then the defaults. */
import { readFileSync } from "node:fs"
import { homedir } from "node:os"
import { join } from "node:path"
import { Effect, Option, Result, Schema } from "effect"
import { Flag, GlobalFlag } from "effect/cli"
import { Toml } from "effect/encoding"
import { errorText } from "../../adapters/files/AtomicFile.ts"
import { ServerConfig } from "../../schemas/ServerConfig.ts"

/** The settings are wrong; exit code 78. */
export class BadSettings extends Schema.TaggedError<BadSettings>()("BadSettings", {
  reason: Schema.String,
  exitCode: Schema.Literal(78)
}) {
  override get message(): string {
    return this.reason
  }
}

const bad = (reason: string) => new BadSettings({ reason, exitCode: 78 })

export const ConfigFlag = GlobalFlag.Setting("config")({
  flag: Flag.String("config").pipe(
    Flag.withMetavar("FILE"),
    Flag.withDescription("A TOML file with settings; also $POSTERN_CONFIG"),
    Flag.optional
  )
})

export const StateFlag = GlobalFlag.Setting("state")({
  flag: Flag.String("state").pipe(
    Flag.withMetavar("DIR"),
    Flag.withDescription(
      "Where keys, databases and ciphertext are kept; also $POSTERN_STATE. Default /var/lib/postern-server for root, else ~/.local/state/postern-server"
    ),
    Flag.optional
  )
})

export const HostFlag = GlobalFlag.Setting("host")({
  flag: Flag.String("host").pipe(
    Flag.withMetavar("ADDRESS"),
    Flag.withDescription("The address to listen on; also $POSTERN_HOST. Default 127.0.0.1"),
    Flag.optional
  )
})

export const PortFlag = GlobalFlag.Setting("port")({
  flag: Flag.Int("port").pipe(
    Flag.withMetavar("PORT"),
    Flag.withDescription("The port to listen on, 0 for a free one; also $POSTERN_PORT. Default 8470"),
    Flag.optional
  )
})

export const settingFlags = [ConfigFlag, StateFlag, HostFlag, PortFlag] as const

/** Where the state is kept when nobody says. */
export const defaultStateFolder = (env: NodeJS.ProcessEnv): string =>
  process.geteuid?.() === 0
    ? "/var/lib/postern-server"
    : join(env["XDG_STATE_HOME"] || join(homedir(), ".local", "state"), "postern-server")

const readFile = (path: string): Result.Result<Record<string, unknown>, BadSettings> => {
  try {
    return Result.mapError(Toml.parse(readFileSync(path, "utf8")), (error) => bad(`${path} is no TOML: ${error.message}`))
  } catch (error) {
    return Result.fail(bad(`the configuration ${path} cannot be read: ${errorText(error)}`))
  }
}

const given = (members: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined && value !== ""))

const decode = Schema.decodeUnknownResult(ServerConfig, { onExcessProperty: "error" })

/** Puts the sources together and checks the result. */
export const mergeSettings = (
  flags: { readonly config?: string; readonly state?: string; readonly host?: string; readonly port?: number },
  env: NodeJS.ProcessEnv
): Result.Result<ServerConfig, BadSettings> => {
  const path = flags.config ?? env["POSTERN_CONFIG"]
  const file = path === undefined || path === "" ? Result.succeed({}) : readFile(path)
  if (Result.isFailure(file)) return Result.fail(file.failure)
  const envPort = env["POSTERN_PORT"] || undefined
  const merged = {
    state_folder: defaultStateFolder(env),
    ...file.success,
    ...given({
      state_folder: env["POSTERN_STATE"],
      host: env["POSTERN_HOST"],
      port: envPort === undefined ? undefined : Number(envPort)
    }),
    ...given({ state_folder: flags.state, host: flags.host, port: flags.port })
  }
  return Result.mapError(decode(merged), (error) => bad(`the settings are wrong: ${error.message}`))
}

/** The settings of this invocation. */
export const serverConfig = Effect.gen(function* () {
  const config = Option.getOrUndefined(yield* ConfigFlag)
  const state = Option.getOrUndefined(yield* StateFlag)
  const host = Option.getOrUndefined(yield* HostFlag)
  const port = Option.getOrUndefined(yield* PortFlag)
  const flags = given({ config, state, host, port })
  return yield* Effect.fromResult(mergeSettings(flags, process.env))
})
