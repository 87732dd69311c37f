/** Signed polls, one at a time, by a way of the bench's choice: directly, or through the tor of a device that runs. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect, Exit, Schedule, Scope, Stream } from "effect"
import { httpTransport } from "../../src/adapters/HttpTransport.ts"
import type { Transport } from "../../src/adapters/http/Transport.ts"
import { NativeCryptoEngine } from "../../src/adapters/NativeCrypto.ts"
import { loadNodeKeys } from "../../src/adapters/NodeKeys.ts"
import type { Route } from "../../src/adapters/net/Routes.ts"
import { SystemEntropy } from "../../src/adapters/SystemEntropy.ts"
import { torPaths } from "../../src/adapters/tor/Torrc.ts"
import { torFolder } from "../../src/adapters/tor/TorTunnel.ts"
import type { BuiltDevice, BuiltFleet } from "../../test/support/BuiltFleet.ts"
import { pollParts, pollPath, type SimulatedDevice } from "../server/simulated.ts"

/** Where polls go, and by which route. */
export interface PollWay {
  readonly origin: string
  readonly route: Route
}

export const directly = (fleet: BuiltFleet): PollWay => ({ origin: fleet.address, route: { _tag: "Direct" } })

/** By the tor of a device that runs, which the onion service lets in. */
export const throughTorOf = (device: BuiltDevice, onion: string): PollWay => ({
  origin: onion,
  route: { _tag: "Tor", endpoint: { path: torPaths(torFolder(device.state)).socks } }
})

/** A device's keys, so that the bench can poll in its name. The server takes that for a copy of it, and goes on answering. */
export const keysOf = async (device: BuiltDevice): Promise<SimulatedDevice> => {
  // The client may run as another user, and keys are read by their owner only.
  const stateFolder = mkdtempSync(`${device.state}-keys-`)
  const folder = join(stateFolder, "keys")
  mkdirSync(folder, { mode: 0o700 })
  for (const name of readdirSync(join(device.state, "keys")))
    writeFileSync(join(folder, name), readFileSync(join(device.state, "keys", name)), { mode: 0o600 })
  const keys = loadNodeKeys({ stateFolder, kind: "device" })
  return Effect.runPromise(Effect.provide(keys, [NativeCryptoEngine, SystemEntropy]))
}

const send = (
  transport: Transport,
  { origin }: PollWay,
  keys: SimulatedDevice,
  circuit: string,
  waitMs: number
) =>
  Effect.gen(function* () {
    const authority = new URL(origin).host
    const { status } = yield* Effect.tap(
      transport.send({
        origin,
        authority,
        method: "POST",
        path: pollPath,
        query: "",
        ...pollParts(keys, authority, waitMs),
        responseTimeoutMs: 120_000 + waitMs,
        circuit
      }),
      ({ body }) => Stream.runDrain(body)
    )
    if (status !== 200) throw new Error(`a poll was answered with ${status}`)
  }).pipe(
    Effect.scoped,
    // As a device would: a way that failed is tried again, and the time counts. The tor is a device's, which may ask it for new
    // circuits at any time; tor forgets the device's key with the old ones, until the device tells it again.
    Effect.retry({
      times: 30,
      schedule: Schedule.spaced(1_000),
      while: ({ _tag }) => _tag === "TransportError"
    }),
    Effect.runPromise
  )

export interface Poller {
  /** A poll over a connection that stands. */
  readonly kept: () => Promise<void>
  /** A poll over a connection of its own; through Tor over a circuit of its own. */
  readonly fresh: () => Promise<void>
  /** So many polls at once, on connections that stand over one circuit. */
  readonly together: (count: number) => Promise<void>
  readonly close: () => Promise<void>
}

let names = 0

/** Polls by this way; what it keeps open is its caller's to close. */
export const openPoller = async (way: PollWay, keys: SimulatedDevice): Promise<Poller> => {
  const scope = Scope.makeUnsafe()
  const routes = { to: () => Effect.succeed(way.route) }
  const make = () => Effect.runPromise(Scope.provide(httpTransport({ routes }), scope))
  const kept = await make()
  const one = (transport: Transport, circuit: string) => send(transport, way, keys, circuit, 0)
  return {
    kept: () => one(kept, "kept"),
    fresh: async () => {
      const life = Scope.makeUnsafe()
      const transport = await Effect.runPromise(Scope.provide(httpTransport({ routes }), life))
      try {
        await one(transport, `fresh-${names++}`)
      } finally {
        await Effect.runPromise(Scope.close(life, Exit.void))
      }
    },
    together: async (count) => {
      await Promise.all(Array.from({ length: count }, () => one(kept, "kept")))
    },
    close: () => Effect.runPromise(Scope.close(scope, Exit.void))
  }
}
