/**
 * The built programs over a private Tor network: one server that devices reach directly and as onion services, and its
 * operator. Everything ends with the work it is lent to, also when this process is told to end.
 */
import { Effect, Exit, Scope } from "effect"
import {
  type PrivateTorNetwork,
  type PrivateTorNetworkOptions,
  startPrivateTorNetwork
} from "../../src/adapters/tor/lab/PrivateTorNetwork.ts"
import { isOnionOrigin } from "../../src/schemas/Onion.ts"
import { type BuiltDevice, BuiltFleet, type DeviceOptions } from "../../test/support/BuiltFleet.ts"
import { obstacles } from "../../test/support/requires.ts"

/** Why there can be no private Tor network here; null where there can. */
export const torProblem = (...further: ReadonlyArray<string>): string | null => {
  const missing = obstacles(["tor", "tor-gencert", ...further])
  return missing.length === 0 ? null : missing.join("; ")
}

export interface TorWorld {
  readonly network: PrivateTorNetwork
  readonly fleet: BuiltFleet
  /** The server's address for accepted devices. */
  readonly onion: string
  /** A running, accepted device that sends everything through a tor of its own. */
  readonly torDevice: (name: string, settings?: ReadonlyArray<string>) => Promise<BuiltDevice>
}

const toml = (texts: ReadonlyArray<string>): string =>
  `[${texts.map((text) => JSON.stringify(text)).join(", ")}]`

/** How a device is started that sends everything through a tor of its own. */
export const throughTor = (
  network: PrivateTorNetwork,
  settings: ReadonlyArray<string> = []
): DeviceOptions => ({
  server: null,
  settings: [...settings, "[tor]", 'mode = "always"', `options = ${toml(network.options)}`]
})

const onionOf = async (fleet: BuiltFleet): Promise<string> => {
  const answer = await fetch(`${fleet.address}/api/device/v1/identity`)
  const { addresses } = (await answer.json()) as { readonly addresses: ReadonlyArray<string> }
  const onion = addresses.find(isOnionOrigin)
  if (onion === undefined) throw new Error(`the server names no onion address, only ${addresses.join(", ")}`)
  return onion
}

/** Ends what was opened, last first, once; also when the process is told to end. */
const makeEnd = () => {
  const ends: Array<() => Promise<unknown>> = []
  const end = async (): Promise<void> => {
    for (let next = ends.pop(); next !== undefined; next = ends.pop()) await next()
  }
  const leave = (): void => void end().finally(() => process.exit(130))
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, leave)
  return {
    defer: (close: () => Promise<unknown>): void => void ends.push(close),
    end: async (): Promise<void> => {
      for (const signal of ["SIGINT", "SIGTERM"] as const) process.off(signal, leave)
      await end()
    }
  }
}

/**
 * Starts network, server and operator, lends them to `work`, and ends them. `further` are lines of torrc for the tors of
 * server and devices.
 */
export const withTorWorld = async <A>(
  options: PrivateTorNetworkOptions,
  work: (world: TorWorld) => Promise<A>,
  further: ReadonlyArray<string> = []
): Promise<A> => {
  const { defer, end } = makeEnd()
  try {
    const scope = Scope.makeUnsafe()
    defer(() => Effect.runPromise(Scope.close(scope, Exit.void)))
    const started = await Effect.runPromise(Scope.provide(startPrivateTorNetwork(options), scope))
    const network = { ...started, options: [...started.options, ...further] }
    const serverSettings = ["[onion]", "enabled = true", `options = ${toml(network.options)}`]
    const fleet = await BuiltFleet.withServer({ serverSettings })
    defer(() => fleet.close())
    const torDevice: TorWorld["torDevice"] = (name, settings) =>
      fleet.acceptedDevice(name, throughTor(network, settings))
    return await work({ network, fleet, onion: await onionOf(fleet), torDevice })
  } finally {
    await end()
  }
}
