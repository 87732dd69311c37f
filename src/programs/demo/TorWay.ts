/**
 * The demo's Tor: a private network on this machine, the hops that the device's circuit takes in it, and what they cost.
 *
 * @module
 */
import { Clock, Effect, Schedule, Stream } from "effect"
import { httpTransport } from "../../adapters/HttpTransport.ts"
import type { Transport } from "../../adapters/http/Transport.ts"
import type { Route } from "../../adapters/net/Routes.ts"
import { controlWords } from "../../adapters/tor/ControlReplies.ts"
import { startPrivateTorNetwork } from "../../adapters/tor/lab/PrivateTorNetwork.ts"
import { connectControl, torInfo } from "../../adapters/tor/TorControl.ts"
import { torPaths } from "../../adapters/tor/Torrc.ts"
import { DemoFailure } from "./Processes.ts"

/** What the demo's programs must know of its network. */
export interface DemoTor {
  /** Lines of torrc that make a tor a part of it. */
  readonly options: ReadonlyArray<string>
  readonly nicknames: ReadonlyArray<string>
}

/** Starts the network; it ends with the scope. */
export const startDemoTor = (folder: string) =>
  Effect.map(
    Effect.mapError(
      startPrivateTorNetwork({ parent: folder }),
      ({ message }) =>
        new DemoFailure({
          message: `There is no private Tor network on this machine. ${message}\nIt needs the programs tor and tor-gencert, which Debian has in the package tor.`
        })
    ),
    ({ authority, options, relays }): DemoTor => ({
      options,
      nicknames: [authority.nickname, ...relays.map(({ nickname }) => nickname)]
    })
  )

const toml = (texts: ReadonlyArray<string>): string =>
  `[${texts.map((text) => JSON.stringify(text)).join(", ")}]`

/** The server's configuration: onion services in the network. */
export const serverSettings = ({ options }: DemoTor): string =>
  `[onion]\nenabled = true\noptions = ${toml(options)}\n`

/** The device's: everything it sends goes through the network. */
export const deviceSettings = ({ options }: DemoTor): string =>
  `[tor]\nmode = "always"\noptions = ${toml(options)}\n`

/** `$FINGERPRINT~nickname,…` */
const nicknamesOf = (path: string): ReadonlyArray<string> =>
  path.split(",").map((hop) => hop.slice(hop.indexOf("~") + 1))

/** The relays of a circuit to the server that is in use, from the device to the meeting point. */
const hopsIn = (status: string): ReadonlyArray<string> | undefined => {
  for (const line of status.split("\n")) {
    const { fields, words } = controlWords(line)
    const [, state, path] = words
    if (state === "BUILT" && path !== undefined && fields["HS_STATE"] === "HSCR_JOINED")
      return nicknamesOf(path)
  }
  return undefined
}

const hopsMs = 250
const hopsLooks = 40

/**
 * Asks the device's tor which way its requests take; the folder is that of the tor. Where there is no such circuit just now,
 * there is one soon.
 */
export const circuitOf = (torFolder: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const control = yield* connectControl({ endpoint: { path: torPaths(torFolder).control } })
      for (let look = 1; ; look++) {
        const hops = hopsIn(yield* torInfo(control, "circuit-status"))
        if (hops !== undefined || look === hopsLooks) return hops
        yield* Effect.sleep(hopsMs)
      }
    })
  ).pipe(
    Effect.mapError(
      ({ message }) => new DemoFailure({ message: `The device's Tor does not answer: ${message}` })
    )
  )

/** Times of one request to the server, medians in milliseconds. */
export interface Latency {
  /** Over a connection that stands. */
  readonly keptMs: number
  /** With a connection of its own; through Tor: over a circuit of its own. */
  readonly freshMs: number
}

const keptRequests = 20
const freshRequests = 5
const patienceMs = 60_000
/** A circuit may break while it is built; what is measured is the request that was answered. */
const again = { times: 4, schedule: Schedule.spaced(1_000) }

const medianOf = (values: ReadonlyArray<number>): number =>
  values.toSorted((left, right) => left - right)[Math.floor(values.length / 2)] as number

const timeRequest = (transport: Transport, origin: string, circuit: string) =>
  Effect.gen(function* () {
    const began = yield* Clock.currentTimeNanos
    const { body } = yield* transport.send({
      origin,
      authority: new URL(origin).host,
      method: "GET",
      path: "/api/device/v1/identity",
      query: "",
      headers: {},
      body: new Uint8Array(0),
      responseTimeoutMs: patienceMs,
      circuit
    })
    yield* Stream.runDrain(body)
    return Number((yield* Clock.currentTimeNanos) - began) / 1e6
  }).pipe(
    Effect.scoped,
    Effect.retry(again),
    Effect.mapError(({ reason }) => new DemoFailure({ message: `${origin} does not answer: ${reason}` }))
  )

const repeat = <A, E>(times: number, run: (index: number) => Effect.Effect<A, E>) =>
  Effect.forEach(
    Array.from({ length: times }, (_, index) => index),
    run
  )

/** Asks the server who it is, by this route, again and again. */
export const measureLatency = (route: Route, origin: string): Effect.Effect<Latency, DemoFailure> =>
  Effect.scoped(
    Effect.gen(function* () {
      const routes = { to: () => Effect.succeed(route) }
      const fresh = yield* repeat(freshRequests, (index) =>
        Effect.scoped(
          Effect.flatMap(httpTransport({ routes }), (transport) =>
            timeRequest(transport, origin, `fresh-${index}`)
          )
        )
      )
      const transport = yield* httpTransport({ routes })
      yield* timeRequest(transport, origin, "kept")
      const kept = yield* repeat(keptRequests, () => timeRequest(transport, origin, "kept"))
      return { keptMs: medianOf(kept), freshMs: medianOf(fresh) }
    })
  )
