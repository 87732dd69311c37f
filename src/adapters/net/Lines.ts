/**
 * The lines of a transport: one per origin, route and isolation tag, each with its kept connections and, through Tor, the
 * circuit it takes. A failure on a line gives it another circuit; what the old one still carries goes on to its end.
 *
 * @module
 */
import { type AgentOptions, Agent as HttpAgent, type RequestOptions } from "node:http"
import { Agent as HttpsAgent } from "node:https"
import { isIP, Socket } from "node:net"
import type { Duplex } from "node:stream"
import { type ConnectionOptions, connect as connectTls } from "node:tls"
import { Semaphore } from "effect"
import { endpointText } from "../../schemas/TorSettings.ts"
import { type AddressWatch, makeAddressWatch } from "./AddressWatch.ts"
import { type Circuits, dial } from "./Dial.ts"
import { RouteError } from "./RouteError.ts"
import type { Route } from "./Routes.ts"

/** A route that leads somewhere. */
export type OpenRoute = Exclude<Route, { readonly _tag: "Refused" }>

export interface Line {
  readonly key: string
  /** The route, as one word for each proxy. */
  readonly way: string
  readonly route: OpenRoute
  /** As many permits as connections may be open at once. */
  readonly gate: Semaphore.Semaphore
  readonly hedgesMs: ReadonlyArray<number>
  readonly circuits: Circuits
  /** Takes note of a connection, and of the circuit it is on. */
  readonly opened: (socket: Duplex, epoch: number) => void
  /** Whether the connection is on the circuit that new ones take. */
  readonly isCurrent: (socket: Duplex) => boolean
  /** A request failed on this connection, or before it had one: the next connection takes another circuit. */
  readonly failed: (socket: Duplex | null) => void
  /** Whether no request holds a permit. */
  readonly isIdle: () => boolean
  /** Counts those who hold or want a permit. */
  readonly use: (by: 1 | -1) => void
  /** Cuts all connections of the line, also those that do not stand yet. */
  readonly close: () => void
  readonly closed: AbortSignal
}

/** What a request tells the agents beside what Node knows. */
export interface LineRequest extends RequestOptions {
  readonly line: Line
  /** Raised when the request needs its connection no more, before it has one. */
  readonly abort: AbortSignal
}

/** Idle lines above this number are closed, those unused for longest first. */
const maximumLines = 64

/**
 * A connection that was silent for so long is probed, ten times in ten seconds, and cut where no probe is answered: its
 * other end may be gone, or a gate in between have forgotten it. Often enough for such gates, and little on a paid line.
 */
export const probeAfterMs = 10_000

const routeKey = (route: OpenRoute): string => {
  if (route._tag === "Direct") return "direct"
  if (route._tag === "Tor") return `tor ${endpointText(route.endpoint)}`
  return `${route.proxy.kind} ${endpointText(route.proxy)}`
}

/** Numbers of circuits, with the memory which one is good. A number that failed is never used again. */
export const makeCircuits = (name: string) => {
  let current = 0
  let highest = 0
  const circuits: Circuits = {
    current: () => current,
    fresh: () => ++highest,
    // Tor wants a password, and makes nothing of it.
    userOf: (epoch) => ({ name: `${name}-${epoch}`, password: "postern" })
  }
  return {
    circuits,
    won: (epoch: number): void => {
      current = epoch
    },
    lost: (epoch: number): void => {
      if (epoch === current) current = ++highest
    }
  }
}

/** What all lines of a transport have in common. */
export interface LineLimits {
  /** Connections of one line at once. */
  readonly connections: number
  /** See {@link dial}. */
  readonly hedgesMs: ReadonlyArray<number>
}

const makeLine = (
  { key, route, way }: Pick<Line, "key" | "way" | "route">,
  name: string,
  { connections, hedgesMs }: LineLimits,
  { watch }: AddressWatch
): Line => {
  let users = 0
  const ended = new AbortController()
  const epochs = new Map<Duplex, number>()
  const { circuits, lost, won } = makeCircuits(name)
  return {
    key,
    way,
    route,
    gate: Semaphore.makeUnsafe(connections),
    hedgesMs,
    circuits,
    opened: (socket, epoch) => {
      won(epoch)
      epochs.set(socket, epoch)
      watch(socket)
      if (socket instanceof Socket) socket.setKeepAlive(true, probeAfterMs)
      socket.once("close", () => epochs.delete(socket))
    },
    isCurrent: (socket) => {
      const epoch = epochs.get(socket)
      return epoch === undefined || epoch === circuits.current()
    },
    isIdle: () => users === 0,
    use: (by) => {
      users += by
    },
    failed: (socket) => lost((socket && epochs.get(socket)) ?? circuits.current()),
    close: () => {
      ended.abort(new RouteError("the way it was reached by is gone"))
      for (const socket of epochs.keys()) socket.destroy()
    },
    closed: ended.signal
  }
}

/** TLS over a connection that stands, with Node's own checks of the certificate. */
export const secured = (socket: Socket, options: ConnectionOptions, signal: AbortSignal): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const host = options.host ?? ""
    const secure = connectTls({
      ...options,
      socket,
      ...(isIP(host) === 0 ? { servername: host } : {})
    })
    const giveUp = (): void => void secure.destroy(signal.reason)
    if (signal.aborted) giveUp()
    else signal.addEventListener("abort", giveUp, { once: true })
    secure.once("secureConnect", () => {
      signal.removeEventListener("abort", giveUp)
      resolve(secure)
    })
    // It stays: until the next owner listens, an error must not be one that nobody hears.
    secure.on("error", (error) => {
      signal.removeEventListener("abort", giveUp)
      socket.destroy()
      reject(signal.aborted ? signal.reason : error)
    })
  })

const openBehindProxy = async (
  { abort, host, line, port, ...options }: LineRequest & ConnectionOptions,
  isTls: boolean
): Promise<Socket> => {
  if (line.route._tag === "Direct") throw new RouteError("a direct route is Node's own to open")
  const target = { host: host ?? "", port: Number(port) }
  const signal = AbortSignal.any([abort, line.closed])
  const { epoch, socket } = await dial(line.route, target, line.circuits, signal, line.hedgesMs)
  const opened = isTls ? await secured(socket, { ...options, host: target.host }, signal) : socket
  if (signal.aborted) {
    opened.destroy()
    throw signal.reason
  }
  line.opened(opened, epoch)
  return opened
}

/** Makes an agent of Node's take the line that each request names. */
const onLines = <A extends HttpAgent>(agent: A, isTls: boolean, lineOf: WeakMap<Duplex, Line>): A => {
  const direct = agent.createConnection.bind(agent)
  const nameOf = agent.getName.bind(agent)
  const keeps = agent.keepSocketAlive.bind(agent) as (socket: Duplex) => boolean
  agent.getName = (options) => `${(options as LineRequest).line.key} ${nameOf(options)}`
  agent.createConnection = (options, callback) => {
    const request = options as unknown as LineRequest & ConnectionOptions
    if (request.line.route._tag === "Direct") {
      const socket = direct(options, callback)
      if (socket) request.line.opened(socket, request.line.circuits.current())
      return socket
    }
    const answer = callback as (error: Error | null, socket?: Duplex) => void
    openBehindProxy(request, isTls).then(
      (socket) => {
        lineOf.set(socket, request.line)
        answer(null, socket)
      },
      (error: Error) => answer(error)
    )
    return undefined
  }
  agent.keepSocketAlive = (socket) => (lineOf.get(socket)?.isCurrent(socket) ?? true) && keeps(socket)
  return agent
}

/** All lines of one transport. */
export interface Lines {
  readonly http: HttpAgent
  readonly https: HttpsAgent
  /** The line to take. Through another tor than before, or none, what went through the last one is cut. */
  readonly take: (origin: string, circuit: string | undefined, route: OpenRoute) => Line
  /** There is no way through Tor: cuts what still goes through the last one. */
  readonly leaveTor: () => void
  /** A request failed: the line's next connection takes another circuit, and idle ones on the old circuit are closed. */
  readonly failed: (line: Line, socket: Duplex | null) => void
  readonly close: () => void
}

/**
 * Lines within these limits. `given` are the agents' own options. `salt` goes into the names of circuits, so that nobody
 * else who asks the same tor shares one, and no life of this program takes up one of the last.
 */
export const makeLines = (given: AgentOptions, limits: LineLimits, salt: string): Lines => {
  const options = { ...given, keepAliveMsecs: probeAfterMs }
  const lineOf = new WeakMap<Duplex, Line>()
  const http = onLines(new HttpAgent(options), false, lineOf)
  const https = onLines(new HttpsAgent(options), true, lineOf)
  const idle = (): ReadonlyArray<Duplex> =>
    [http, https].flatMap(({ freeSockets }) => Object.values(freeSockets).flatMap((free) => free ?? []))
  const lines = new Map<string, Line>()
  const addresses = makeAddressWatch()
  let serial = 0

  const drop = (line: Line): void => {
    lines.delete(line.key)
    line.close()
  }
  const dropWhere = (isToGo: (line: Line) => boolean): void => {
    for (const line of [...lines.values()]) if (isToGo(line)) drop(line)
  }
  /** The map is in the order of use. */
  const makeRoom = (): void => {
    for (const line of lines.values()) {
      if (lines.size < maximumLines) return
      if (line.isIdle()) drop(line)
    }
  }

  return {
    http,
    https,
    take: (origin, circuit, route) => {
      const way = routeKey(route)
      if (route._tag === "Tor") dropWhere((line) => line.route._tag === "Tor" && line.way !== way)
      const key = `${way} ${circuit ?? ""} ${origin}`
      const known = lines.get(key)
      if (known === undefined) makeRoom()
      const line = known ?? makeLine({ key, way, route }, `${salt}-${++serial}`, limits, addresses)
      lines.delete(key)
      lines.set(key, line)
      return line
    },
    leaveTor: () => dropWhere(({ route }) => route._tag === "Tor"),
    failed: (line, socket) => {
      line.failed(socket)
      for (const free of idle()) if (lineOf.get(free) === line && !line.isCurrent(free)) free.destroy()
    },
    close: () => {
      dropWhere(() => true)
      http.destroy()
      https.destroy()
      addresses.stop()
    }
  }
}
