/**
 * Private Tor networks of the tests: one that all files of the project "tor" share, and networks of a test's own.
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Exit, Scope } from "effect"
import { inject } from "vitest"
import { openLabFolder } from "../../src/adapters/tor/lab/LabFolder.ts"
import {
  type PrivateTorNetwork,
  type PrivateTorNetworkOptions,
  startPrivateTorNetwork
} from "../../src/adapters/tor/lab/PrivateTorNetwork.ts"
import { waitUntil } from "./Program.ts"

declare module "vitest" {
  interface ProvidedContext {
    /** Where the shared network is announced when it stands; empty where there is no tor. */
    torNetwork: string
  }
}

/** What other processes may know of a network. */
export type KnownTorNetwork = Omit<PrivateTorNetwork, "ended">

const announcement = "network.json"

/**
 * Begins to start the shared network, and does not wait for it: the tests that need it come later. `file` will hold the
 * network, or why there is none.
 */
export const announceTorNetwork = async (): Promise<{ readonly file: string; stop(): Promise<void> }> => {
  const scope = Scope.makeUnsafe()
  const folder = await Effect.runPromise(Scope.provide(openLabFolder(tmpdir()), scope))
  const file = join(folder, announcement)
  const tell = (words: object) =>
    Effect.sync(() => {
      writeFileSync(`${file}.new`, JSON.stringify(words))
      renameSync(`${file}.new`, file)
    })
  const start = Effect.flatMap(startPrivateTorNetwork({ parent: folder }), ({ ended, ...network }) =>
    Effect.andThen(
      tell({ network }),
      Effect.flatMap(ended, (error) => tell({ error }))
    )
  )
  const failing = Effect.catch(start, (error) => tell({ error: error.message }))
  Effect.runSync(Scope.provide(Effect.forkScoped(failing), scope))
  return { file, stop: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
}

/** The network that all files of the project "tor" share, as soon as it stands. */
export const sharedTorNetwork = async (): Promise<KnownTorNetwork> => {
  const file = inject("torNetwork")
  if (!file) throw new Error("only tests in test/tor share a Tor network, and only where there is tor")
  await waitUntil("the shared Tor network", () => existsSync(file), 120_000)
  const { error, network } = JSON.parse(readFileSync(file, "utf8"))
  if (error !== undefined) throw new Error(`there is no shared Tor network: ${error}`)
  return network
}

/** Starts a network of the test's own. Whoever starts one stops it. */
export const ownTorNetwork = async (
  options: PrivateTorNetworkOptions = {}
): Promise<{ readonly network: PrivateTorNetwork; stop(): Promise<void> }> => {
  const scope = Scope.makeUnsafe()
  const stop = () => Effect.runPromise(Scope.close(scope, Exit.void))
  try {
    return { network: await Effect.runPromise(Scope.provide(startPrivateTorNetwork(options), scope)), stop }
  } catch (error) {
    await stop()
    throw error
  }
}

/** Lines of a server's configuration: onion services in that network. More keys of the table may follow. */
export const onionSettings = (network: Pick<PrivateTorNetwork, "options">): ReadonlyArray<string> => [
  "[onion]",
  "enabled = true",
  `options = ${JSON.stringify(network.options)}`
]

/** Lines of a device's configuration: Tor, but that network instead of the world's. More keys of the table may follow. */
export const torSettings = (
  network: Pick<PrivateTorNetwork, "options">,
  mode: "auto" | "always" = "auto"
): ReadonlyArray<string> => ["[tor]", `mode = "${mode}"`, `options = ${JSON.stringify(network.options)}`]
