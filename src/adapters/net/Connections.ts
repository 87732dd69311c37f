/**
 * Connections that carry no requests, such as those to an MQTT broker: one at a time and for long, by the route that the
 * address has, with circuits that no request shares. One that was lost is followed by one on another circuit.
 *
 * @module
 */
import { connect, type Socket } from "node:net"
import type { ConnectionOptions } from "node:tls"
import { Effect, type Scope } from "effect"
import { errorCode, errorText } from "../files/AtomicFile.ts"
import { makeAddressWatch } from "./AddressWatch.ts"
import { dial, hedgesMs } from "./Dial.ts"
import { makeCircuits, type OpenRoute, probeAfterMs, secured } from "./Lines.ts"
import { RouteError } from "./RouteError.ts"
import type { Routes } from "./Routes.ts"
import { type Target, unreached } from "./Wire.ts"

/** Where to, and whether by TLS; `ca` (PEM) must then vouch for the other side, or those that Node trusts where it is null. */
export interface Destination extends Target {
  readonly tls: { readonly ca: string | null } | null
}

export interface Connections {
  /** Opens a connection, which ends with the scope. Whoever opens it bounds how long that may take. */
  readonly open: (destination: Destination) => Effect.Effect<Socket, RouteError, Scope.Scope>
}

/** As routes are asked for: scheme, host and port. */
const originOf = ({ host, port, tls }: Destination): string =>
  `${tls === null ? "http" : "https"}://${host.includes(":") ? `[${host}]` : host}:${port}`

const asRouteError = (error: unknown): RouteError => {
  if (error instanceof RouteError) return error
  const parts = error instanceof AggregateError ? error.errors.map(errorText).join("; ") : errorText(error)
  return new RouteError(unreached[errorCode(error) ?? ""] ?? parts)
}

const connectDirectly = (target: Target, signal: AbortSignal): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = connect({ ...target, noDelay: true })
    const giveUp = (): void => void socket.destroy(signal.reason)
    if (signal.aborted) giveUp()
    else signal.addEventListener("abort", giveUp, { once: true })
    const settled = (): void => signal.removeEventListener("abort", giveUp)
    socket.once("connect", () => {
      settled()
      resolve(socket)
    })
    // It stays: until the next owner listens, an error must not be one that nobody hears.
    socket.on("error", (error) => {
      settled()
      reject(error)
    })
  })

/** Makes connections by these routes; `salt` keeps their circuits apart from everybody else's. */
const makeOpener = (routes: Routes, salt: string) => {
  const watch = makeAddressWatch()
  const { circuits, lost, won } = makeCircuits(salt)

  const plain = async (route: OpenRoute, target: Target, signal: AbortSignal): Promise<Socket> => {
    if (route._tag === "Direct") return connectDirectly(target, signal)
    const circuit = circuits.current()
    try {
      const { epoch, socket } = await dial(route, target, circuits, signal, hedgesMs)
      won(epoch)
      socket.once("close", () => lost(epoch))
      return socket
    } catch (error) {
      lost(circuit)
      throw error
    }
  }

  const make = async (
    { host, port, tls }: Destination,
    route: OpenRoute,
    signal: AbortSignal
  ): Promise<Socket> => {
    const socket = await plain(route, { host, port }, signal)
    socket.setKeepAlive(true, probeAfterMs)
    watch.watch(socket)
    if (tls === null) return socket
    const options: ConnectionOptions = { host, ...(tls.ca === null ? {} : { ca: tls.ca }) }
    return secured(socket, options, signal)
  }

  const open = Effect.fnUntraced(function* (destination: Destination) {
    const route = yield* routes.to(originOf(destination))
    if (route._tag === "Refused") return yield* Effect.fail(new RouteError(route.reason, route.failure))
    return yield* Effect.tryPromise({
      try: async (signal) => {
        const socket = await make(destination, route, signal)
        if (signal.aborted) socket.destroy()
        return socket
      },
      catch: asRouteError
    })
  })
  return { open, stop: watch.stop }
}

/** Connections by these routes, for as long as the scope lasts. */
export const makeConnections = (routes: Routes): Effect.Effect<Connections, never, Scope.Scope> =>
  Effect.gen(function* () {
    // To be another than ever before on this machine is enough: it is no secret.
    const salt = yield* Effect.sync(() => `${process.pid}-long-${process.hrtime.bigint().toString(36)}`)
    const { open } = yield* Effect.acquireRelease(
      Effect.sync(() => makeOpener(routes, salt)),
      ({ stop }) => Effect.sync(stop)
    )
    return {
      open: (destination) =>
        Effect.acquireRelease(open(destination), (socket) => Effect.sync(() => socket.destroy()), {
          interruptible: true
        })
    }
  })
