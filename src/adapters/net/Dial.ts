/**
 * Makes one connection by a route that is not direct.
 *
 * Through Tor a connection may wait for ever for a circuit that is dead, and another user name is the cure; yet over a slow
 * network a good one takes long. So a second and a third attempt begin beside the first, each on a circuit of its own, and
 * the first one that stands wins.
 *
 * @module
 */
import type { Socket } from "node:net"
import type { UpstreamProxy } from "../../schemas/TorSettings.ts"
import { connectHandshake } from "./HttpConnect.ts"
import { RouteError } from "./RouteError.ts"
import type { Route } from "./Routes.ts"
import { type SocksUser, socksHandshake } from "./Socks5.ts"
import { type Target, throughProxy } from "./Wire.ts"

/** After which times, each from the begin of the last attempt, a further one begins beside it. */
export const hedgesMs: ReadonlyArray<number> = [6_000, 14_000]

/** Gives the user name of an attempt; each call gives another one than before. */
export interface Circuits {
  /** The one to begin with: that of the last connection that was good. */
  readonly current: () => number
  readonly fresh: () => number
  readonly userOf: (epoch: number) => SocksUser
}

/** A connection, and the epoch of the circuit it takes. */
export interface Dialled {
  readonly socket: Socket
  readonly epoch: number
}

const throughUpstream = (proxy: UpstreamProxy, target: Target, signal: AbortSignal): Promise<Socket> => {
  const user = proxy.credentials && { name: proxy.credentials.user, password: proxy.credentials.password }
  const handshake = proxy.kind === "http" ? connectHandshake : socksHandshake
  return throughProxy(
    { host: proxy.host, port: proxy.port },
    (wire) => handshake(wire, target, user),
    (reason) => new RouteError(`the proxy was not reached: ${reason}`, "proxy_unreachable"),
    signal
  )
}

const throughTor = (
  endpoint: Extract<Route, { _tag: "Tor" }>["endpoint"],
  target: Target,
  user: SocksUser,
  signal: AbortSignal
): Promise<Socket> =>
  throughProxy(
    endpoint,
    (wire) => socksHandshake(wire, target, user),
    (reason) => new RouteError(`Tor was not reached at its SOCKS port: ${reason}`, "tunnel_not_ready"),
    signal
  )

/**
 * Begins the attempts in turn. The first that succeeds cancels all others, and one that succeeds even so is discarded.
 * When one fails, no further one begins, and when all have failed, the first error is the whole's.
 */
const hedged = <A>(
  begin: (attempt: number, signal: AbortSignal) => Promise<A>,
  discard: (late: A) => void,
  delaysMs: ReadonlyArray<number>,
  signal: AbortSignal
): Promise<A> =>
  new Promise<A>((resolve, reject) => {
    const ended = new AbortController()
    let timer: NodeJS.Timeout | undefined
    let running = 0
    let isOver = false
    let failure: unknown
    const finish = (): void => {
      isOver = true
      clearTimeout(timer)
      signal.removeEventListener("abort", onAbort)
      ended.abort(new RouteError("another attempt was quicker"))
    }
    const onAbort = (): void => {
      finish()
      reject(signal.reason)
    }
    const start = (attempt: number): void => {
      running++
      const delayMs = delaysMs[attempt]
      if (delayMs !== undefined) timer = setTimeout(() => start(attempt + 1), delayMs)
      begin(attempt, ended.signal).then(
        (value) => {
          if (isOver) return discard(value)
          finish()
          resolve(value)
        },
        (error: unknown) => {
          failure ??= error
          running--
          // Who has an answer knows more than who still waits: nothing further begins.
          clearTimeout(timer)
          if (isOver || running > 0) return
          finish()
          reject(failure)
        }
      )
    }
    if (signal.aborted) return onAbort()
    signal.addEventListener("abort", onAbort, { once: true })
    start(0)
  })

/** Connects. Rejects with a {@link RouteError}, or with the signal's reason; leaves no connection behind then. */
export const dial = async (
  route: Extract<Route, { _tag: "Tor" | "Upstream" }>,
  target: Target,
  circuits: Circuits,
  signal: AbortSignal,
  delaysMs: ReadonlyArray<number>
): Promise<Dialled> => {
  if (route._tag === "Upstream")
    return { socket: await throughUpstream(route.proxy, target, signal), epoch: circuits.current() }
  return hedged(
    async (attempt, ended) => {
      const epoch = attempt === 0 ? circuits.current() : circuits.fresh()
      return { socket: await throughTor(route.endpoint, target, circuits.userOf(epoch), ended), epoch }
    },
    ({ socket }) => void socket.destroy(),
    delaysMs,
    signal
  )
}
