/**
 * By which way an address is reached. Everything that this program connects to goes by a route, so this is where it is
 * decided that a name is resolved here at all: only on a direct route. On every other one the name goes to the proxy.
 *
 * @module
 */
import { Effect } from "effect"
import type { Tunnel } from "../../ports/Tunnel.ts"
import { isOnionOrigin } from "../../schemas/Onion.ts"
import type { RouteFailure } from "../../schemas/RouteFailure.ts"
import { parseProxy, type TorEndpoint, type UpstreamProxy } from "../../schemas/TorSettings.ts"
import type { TunnelState } from "../../schemas/TunnelState.ts"

/** A way, or why there is none. */
export type Route =
  | { readonly _tag: "Direct" }
  /** Through a tor's SOCKS port: circuits are kept apart by user names. */
  | { readonly _tag: "Tor"; readonly endpoint: TorEndpoint }
  | { readonly _tag: "Upstream"; readonly proxy: UpstreamProxy }
  | { readonly _tag: "Refused"; readonly failure: RouteFailure; readonly reason: string }

export interface Routes {
  /** The way to an origin (scheme, host, port) at this moment. */
  readonly to: (origin: string) => Effect.Effect<Route>
}

/** What routes need of the device's way through Tor. */
export type TorWay = Pick<Tunnel["Service"], "endpoint" | "state" | "changed">

export interface RouteOptions {
  /**
   * `auto`: onion addresses through Tor. `always`: everything that leaves this machine. `never`: onion addresses are not
   * used.
   */
  readonly mode: "auto" | "always" | "never"
  /** What everything outgoing that does not go through Tor has to go through; tor has it in its own configuration. */
  readonly proxy: UpstreamProxy | null
  readonly tor: TorWay
}

const direct: Route = { _tag: "Direct" }

/** Addresses of this very machine: what goes there leaves no trace in any network, and no proxy gets there. */
export const isHere = (origin: string): boolean =>
  /^https?:\/\/(?:127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/.test(origin)

/** The same by its name, which is no other machine's, but has to be looked up: not where nothing may be. */
const isHereByName = (origin: string): boolean => /^https?:\/\/localhost(?::\d{1,5})?$/.test(origin)

/** A tor that is on its way is waited for a while: whoever asks would only ask again. */
const patienceMs = 20_000

const isOnItsWay = ({ phase, problem }: TunnelState): boolean =>
  problem === null && phase !== "ready" && phase !== "lost"

const untilSettled = Effect.fnUntraced(function* (tor: TorWay) {
  let state = yield* tor.state
  while (isOnItsWay(state)) state = yield* tor.changed(state)
})

const notReady = ({ phase, progress, reason, summary }: TunnelState): Route => {
  const how = phase === "bootstrapping" ? `${progress} %, ${summary}` : summary
  return {
    _tag: "Refused",
    failure: "tunnel_not_ready",
    reason: `it needs Tor, which is not ready: ${how}${reason === null ? "" : ` (${reason})`}`
  }
}

const throughTor = Effect.fnUntraced(function* (tor: TorWay, origin: string): Effect.fn.Return<Route> {
  // Asked for first: that is what starts a tor which was not needed before.
  yield* tor.endpoint(origin)
  yield* Effect.timeoutOption(untilSettled(tor), patienceMs)
  const state = yield* tor.state
  const endpoint = yield* tor.endpoint(origin)
  // One that has lost its circuits may need no more than to be asked for new ones.
  return endpoint === null || isOnItsWay(state) ? notReady(state) : { _tag: "Tor", endpoint }
})

const notUsed: Route = {
  _tag: "Refused",
  failure: "onion_not_used",
  reason: "it is an onion address, and the configuration says tor.mode never"
}

/** The device's routes. */
export const makeRoutes = ({ mode, proxy, tor }: RouteOptions): Routes => ({
  to: (origin) => {
    if (isHere(origin)) return Effect.succeed(direct)
    if (mode === "always") return throughTor(tor, origin)
    if (isOnionOrigin(origin)) return mode === "never" ? Effect.succeed(notUsed) : throughTor(tor, origin)
    // To a proxy `localhost` is another machine.
    return Effect.succeed(proxy === null || isHereByName(origin) ? direct : { _tag: "Upstream", proxy })
  }
})

/** What stands where a proxy was to be named. */
export type NamedProxy = { readonly proxy: UpstreamProxy } | { readonly problem: string }

/** Reads a proxy as people name it; `socks5h` says what is done in any case: the proxy resolves the names. */
export const readProxy = (text: string): NamedProxy => {
  const proxy = parseProxy(text.replace(/^socks5h:/i, "socks5:").replace(/\/$/, ""))
  return proxy === undefined
    ? {
        problem: `${text.includes("@") ? "what was given" : text} is no proxy. Write it as socks5h://127.0.0.1:9050 or http://HOST:PORT`
      }
    : { proxy }
}

const needsProxy: Route = {
  _tag: "Refused",
  failure: "tunnel_not_ready",
  reason: "it is an onion address: name a Tor that runs here, as in --proxy socks5h://127.0.0.1:9050"
}

/** Routes of somebody without a tor of their own: everything through one proxy, where there is one. */
export const proxyRoutes = (proxy: UpstreamProxy | null): Routes => ({
  to: (origin) => {
    if (proxy === null) return Effect.succeed(isOnionOrigin(origin) ? needsProxy : direct)
    if (isHere(origin)) return Effect.succeed(direct)
    // A SOCKS proxy that takes onion addresses is a tor; user names keep its circuits apart.
    const isTor = isOnionOrigin(origin) && proxy.kind === "socks5" && proxy.credentials === null
    return Effect.succeed(
      isTor ? { _tag: "Tor", endpoint: { host: proxy.host, port: proxy.port } } : { _tag: "Upstream", proxy }
    )
  }
})
