/**
 * `postern login`: keeps a server's address and an API token.
 *
 * @module
 */
import { Effect, Option, Redacted } from "effect"
import { Command, Flag } from "effect/cli"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import { OperatorHome, writeJson } from "../../adapters/operator/OperatorHome.ts"
import { ServerEntries, serversFile } from "../../adapters/operator/Records.ts"
import { trustedRoot } from "../../adapters/operator/TrustStore.ts"
import { askSecret, secretFromFile } from "./Ask.ts"
import { failure, usage } from "./Failure.ts"
import { out, outJson } from "./Screen.ts"
import {
  chosenServer,
  givenProxy,
  Json,
  keepAbreast,
  parseAddress,
  Server,
  serverEntries,
  withClientOf,
  withHome
} from "./Settings.ts"
import { visible } from "./Text.ts"

/** Where a token comes from: never from an argument, which every user of the machine could read. */
export const tokenFile = Flag.String("token-file").pipe(
  Flag.withMetavar("FILE"),
  Flag.withDescription(
    "File holding the API token, `-` for stdin; default $POSTERN_TOKEN_FILE, else it is asked for"
  ),
  Flag.optional
)

const noTerminal = "There is no terminal to ask for the token. Give it with --token-file FILE (- for stdin)"

/** The token from the flag, the environment's file, or the person. */
export const readToken = (given: Option.Option<string>, address: string) => {
  const path = Option.getOrElse(given, () => process.env["POSTERN_TOKEN_FILE"] ?? "")
  return path === ""
    ? askSecret(`API token of ${address} (made there with server.js token create): `, noTerminal)
    : secretFromFile(path, "API token")
}

/** Checks a token against its server and keeps both; the server becomes the current one. */
export const logIn = (address: string, token: Redacted.Redacted) =>
  Effect.gen(function* () {
    const proxy = yield* givenProxy
    const kept = proxy === undefined || proxy === "none" ? {} : { proxy }
    const entry = { address, token: Redacted.value(token), ...kept }
    const status = yield* withClientOf(entry)(
      Effect.flatMap(ManagementClient, (client) => client.call("log in", ({ server }) => server.status()))
    )
    const root = yield* trustedRoot
    if (root !== undefined && !root.root.servers.some((server) => server.id === status.server)) {
      return yield* failure(
        `${address} is the server ${status.server}, which is not in your trust root. Nothing was saved. Is it the right address?`
      )
    }
    const home = yield* OperatorHome
    yield* home.alone(
      Effect.gen(function* () {
        const entries = yield* serverEntries
        const others = entries.servers.filter((server) => server.address !== address)
        yield* writeJson(serversFile, ServerEntries, {
          ...entries,
          current: address,
          servers: [...others, { ...entry, server: status.server }]
        })
      })
    )
    return status
  })

export const loginCommand = Command.make(
  "login",
  { tokenFile },
  Effect.fnUntraced(function* ({ tokenFile }) {
    const given = yield* Server
    if (Option.isNone(given)) return yield* usage("Say which server: postern login --server URL")
    const address = yield* parseAddress(given.value)
    const token = yield* readToken(tokenFile, address)
    const status = yield* logIn(address, token)
    if (status.root_version !== null) yield* withClientOf(yield* chosenServer)(keepAbreast)
    if (yield* Json) return yield* outJson({ address, server: status.server, software: status.software })
    yield* out(`Logged in to ${address} (${visible(status.software)}), server ${status.server}.\n`)
  }, withHome)
).pipe(
  Command.withDescription("Keep a server's address and an API token for the other commands"),
  Command.withExamples([
    { command: "postern login --server http://127.0.0.1:8470", description: "Ask for the token" },
    {
      command:
        "postern login --server http://127.0.0.1:8470 --token-file /var/lib/postern-server/admin-token",
      description: "Take it from a file"
    },
    {
      command: "postern login --server http://ADDRESS.onion --proxy socks5h://127.0.0.1:9050",
      description: "Through a Tor on this machine, now and in later commands"
    }
  ])
)
