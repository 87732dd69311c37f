/**
 * The demo's steps with Tor: a private network, and the way that the device's requests take through it.
 *
 * @module
 */
import { join } from "node:path"
import { Effect } from "effect"
import { torPaths } from "../../adapters/tor/Torrc.ts"
import { isOnionOrigin } from "../../schemas/Onion.ts"
import { DemoFailure } from "./Processes.ts"
import { folderOf, type Stage, step, write } from "./Stage.ts"
import { circuitOf, type Latency, measureLatency, startDemoTor } from "./TorWay.ts"

const milliseconds = (value: number): string => value.toFixed(value < 10 ? 1 : 0).padStart(6)

const latencyTable = (rows: ReadonlyArray<readonly [way: string, latency: Latency]>): string =>
  [
    "milliseconds, median                       connection kept   a new one",
    ...rows.map(
      ([way, { freshMs, keptMs }]) =>
        `${way.padEnd(43)}${milliseconds(keptMs)}${milliseconds(freshMs).padStart(19)}`
    )
  ].join("\n")

/** Starts the network. */
export const bringTor = (stage: Stage) =>
  Effect.gen(function* () {
    yield* step(
      stage,
      "A Tor network",
      `A private one, of real Tor processes on this machine. Nothing of it reaches the real Tor network; the programs need
no more than a few lines of configuration to use either.`
    )
    const tor = yield* startDemoTor(stage.folder)
    yield* write(`It has ${tor.nicknames.length} relays: ${tor.nicknames.join(", ")}.\n`)
    return tor
  })

/** The server's address for devices over Tor, as it tells everybody. */
const onionOf = (address: string): Effect.Effect<string, DemoFailure> =>
  Effect.tryPromise({
    try: async () => {
      const answer = await fetch(`${address}/api/device/v1/identity`)
      const { addresses } = (await answer.json()) as { readonly addresses: ReadonlyArray<string> }
      const onion = addresses.find(isOnionOrigin)
      if (onion === undefined) throw new Error(`it names only ${addresses.join(", ")}`)
      return onion
    },
    catch: (error) =>
      new DemoFailure({ message: `The server at ${address} tells no onion address: ${error}` })
  })

/** Shows which way the device's requests take, and what it costs. */
export const showTheWay = (stage: Stage, address: string) =>
  Effect.gen(function* () {
    const onion = yield* onionOf(address)
    const torFolder = join(folderOf(stage, "device"), "tor")
    yield* step(
      stage,
      "The way",
      `Device and server meet at a relay in the middle. Each goes there over hops of its own choice that the other does not
learn, and neither needs an open port or a public address.`
    )
    const hops = yield* circuitOf(torFolder)
    yield* write(`device → ${(hops ?? ["?"]).join(" → ")} ← … ← server (${onion})\n\n`)
    const direct = yield* measureLatency({ _tag: "Direct" }, address)
    const tor = yield* measureLatency({ _tag: "Tor", endpoint: { path: torPaths(torFolder).socks } }, onion)
    yield* write(
      `${latencyTable([
        ["directly, over loopback", direct],
        ["over the private Tor network", tor]
      ])}\nOver the real one, with its distances, a request takes some tenths of a second to seconds.\n`
    )
  })
