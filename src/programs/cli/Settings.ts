/**
 * Flags that every command takes, and the services that follow from them.
 *
 * @module
 */
import { Effect, Option, Redacted, Result, Schema } from "effect"
import { Flag, GlobalFlag } from "effect/cli"
import { readProxy } from "../../adapters/net/Routes.ts"
import { managementClient } from "../../adapters/operator/ManagementClient.ts"
import {
  type HomeError,
  OperatorHome,
  OperatorHomeAt,
  operatorHomeFolder,
  readJson
} from "../../adapters/operator/OperatorHome.ts"
import { operatorProfile } from "../../adapters/operator/OperatorKeys.ts"
import { ServerEntries, type ServerEntry, serversFile } from "../../adapters/operator/Records.ts"
import { catchUp } from "../../adapters/operator/RootSync.ts"
import { type TrustedRoot, trustedRoot } from "../../adapters/operator/TrustStore.ts"
import { describeChanges } from "../../crypto/RootDrafts.ts"
import type { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { ServerAddress } from "../../schemas/TrustRoot.ts"
import { type CliFailure, failure, usage } from "./Failure.ts"
import { say } from "./Screen.ts"

export const Json = GlobalFlag.Setting("json")({
  flag: Flag.Boolean("json").pipe(
    Flag.withDescription(
      "Print one JSON document on stdout (a line per event where a command follows something)"
    ),
    Flag.withDefault(false),
    Flag.withoutNegation
  )
})

export const Home = GlobalFlag.Setting("home")({
  flag: Flag.String("home").pipe(
    Flag.withMetavar("DIR"),
    Flag.withDescription("The operator's folder; default $POSTERN_HOME, else ~/.config/postern"),
    Flag.optional
  )
})

export const Server = GlobalFlag.Setting("server")({
  flag: Flag.String("server").pipe(
    Flag.withMetavar("URL"),
    Flag.withDescription("The server, as http://HOST:PORT; default the one logged in to last"),
    Flag.optional
  )
})

export const Proxy = GlobalFlag.Setting("proxy")({
  flag: Flag.String("proxy").pipe(
    Flag.withMetavar("URL"),
    Flag.withDescription(
      "Reach the server through this proxy: socks5h://HOST:PORT (such as a Tor, for an onion address), http://HOST:PORT, or none; default $POSTERN_CLI_PROXY, else what was given at login"
    ),
    Flag.optional
  )
})

export const globalFlags = [Json, Home, Server, Proxy] as const

const isAddress = Schema.decodeUnknownResult(ServerAddress)

/** A server's address as people type it: lower case, without a slash at the end. */
export const parseAddress = (text: string): Effect.Effect<string, CliFailure> => {
  const decoded = isAddress(text.toLowerCase().replace(/\/$/, ""))
  return Result.isSuccess(decoded)
    ? Effect.succeed(decoded.success)
    : Effect.fail(
        usage(`${text} is no server address. Write it as http://HOST:PORT or https://HOST, without a path`)
      )
}

/** Provides the operator's home that the flags and the environment name. */
export const withHome = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(Home, (given) =>
    Effect.provide(effect, OperatorHomeAt(operatorHomeFolder(Option.getOrUndefined(given), process.env)))
  )

const noServers: ServerEntries = { type: "postern/servers/v1", current: null, servers: [] }

/** The servers logged in to. */
export const serverEntries: Effect.Effect<ServerEntries, HomeError, OperatorHome> = Effect.map(
  readJson(serversFile, ServerEntries),
  (entries) => entries ?? noServers
)

/** The server to talk to: the one of `--server`, else the current one. */
export const chosenServer = Effect.gen(function* () {
  const given = yield* Server
  const { current, servers } = yield* serverEntries
  const address = Option.isSome(given) ? yield* parseAddress(given.value) : current
  if (address === null)
    return yield* failure("No server is known yet. Log in first: postern login --server URL")
  const entry = servers.find((candidate) => candidate.address === address)
  if (entry !== undefined) return entry
  return yield* failure(`There is no token for ${address}. Log in first: postern login --server ${address}`)
})

/** The proxy that flag or environment name, as it is to be kept; undefined where neither does. */
export const givenProxy = Effect.map(
  Proxy,
  (given) => Option.getOrUndefined(given) ?? (process.env["POSTERN_CLI_PROXY"] || undefined)
)

/** The way to a server: through the proxy that flag or environment name, or the one it was logged in to through. */
export const wayTo = (address: string, kept?: string) =>
  Effect.gen(function* () {
    const text = (yield* givenProxy) ?? kept
    if (text === undefined || text === "none") return { address, proxy: null }
    const named = readProxy(text)
    return "problem" in named ? yield* usage(named.problem) : { address, proxy: named.proxy }
  })

/** A client for one server. */
export const withClientOf =
  (entry: Pick<ServerEntry, "address" | "token" | "proxy">) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.flatMap(wayTo(entry.address, entry.proxy), (way) =>
      Effect.provide(effect, managementClient({ ...way, token: Redacted.make(entry.token) }))
    )

/**
 * Takes in newer versions of the trust root before anything is signed or judged, and says what they change. A server that
 * is not reached is left to the command itself to tell of; one with a foreign root ends it.
 */
export const keepAbreast = Effect.gen(function* () {
  const caught = yield* Effect.catchTag(catchUp, "ServerProblem", () => Effect.undefined)
  if (caught === undefined || caught.from === caught.to) return
  const { history } = yield* requireRoot
  yield* say(`Took in version ${caught.to} of the trust root. Since version ${caught.from} it`)
  for (let version = caught.from; version < caught.to; version++) {
    const [before, after] = [history[version - 1], history[version]]
    if (before === undefined || after === undefined) continue
    for (const change of describeChanges(before, after)) yield* say(`  - ${change}`)
  }
})

/** Provides the operator's home and a client of the chosen server. */
export const withServerOnly = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  withHome(Effect.flatMap(chosenServer, (entry) => withClientOf(entry)(effect)))

/** The same, with the trust root kept abreast of the server's first. */
export const withServer = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  withServerOnly(Effect.andThen(keepAbreast, effect))

/** The operator's root, which most commands can't do without. */
export const requireRoot: Effect.Effect<TrustedRoot, HomeError | CliFailure, OperatorHome | CryptoEngine> =
  Effect.gen(function* () {
    const root = yield* trustedRoot
    if (root !== undefined) return root
    const { folder } = yield* OperatorHome
    const isOperator = (yield* operatorProfile) !== undefined
    return yield* failure(
      isOperator
        ? `There is no trust root in ${folder} yet. Take it in: postern keys root fetch --root-digest sha256:…`
        : `There are no operator keys in ${folder}. Make them first: postern keys init --server URL`
    )
  })
