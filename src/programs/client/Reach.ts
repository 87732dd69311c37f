/** By which ways this device reaches anything: directly, through a proxy, through Tor, as its settings say. */
import { existsSync } from "node:fs"
import { Effect, Layer, Redacted } from "effect"
import { httpTransport } from "../../adapters/HttpTransport.ts"
import { LinuxConnectivity } from "../../adapters/LinuxConnectivity.ts"
import { isHere, makeRoutes, type Routes, type TorWay } from "../../adapters/net/Routes.ts"
import { runningTor, torPaths } from "../../adapters/tor/Torrc.ts"
import { TorTunnel, torFolder } from "../../adapters/tor/TorTunnel.ts"
import { NoTunnel, Tunnel } from "../../ports/Tunnel.ts"
import type { ClientConfig } from "../../schemas/ClientConfig.ts"
import { isOnionOrigin } from "../../schemas/Onion.ts"
import { endpointText, parseProxy, type UpstreamProxy } from "../../schemas/TorSettings.ts"
import type { TunnelState } from "../../schemas/TunnelState.ts"

const upstreamOf = ({ proxy }: ClientConfig): UpstreamProxy | null =>
  proxy === null ? null : (parseProxy(Redacted.value(proxy)) ?? null)

/** The tunnel that the settings ask for. Nothing is started before it is needed. */
export const tunnelOf = ({ proxy, state_folder: stateFolder, tor }: ClientConfig) =>
  tor.mode === "never"
    ? NoTunnel
    : TorTunnel({ stateFolder, settings: tor, proxy, always: tor.mode === "always" })

/**
 * Where tor itself connects to first, as far as it is known: the proxy, or else bridges. Of bridges only those whose
 * transport goes to the address in their line; others (snowflake, meek) name one that stands for nothing.
 */
const entriesOf = (config: ClientConfig): ReadonlyArray<string> => {
  const upstream = upstreamOf(config)
  if (upstream !== null) return [endpointText(upstream)]
  return config.tor.bridges.flatMap((line) => {
    const bridge = /^(?:Bridge )?(?:obfs[34] )?(\S+:\d+)(?: |$)/.exec(line)?.[1]
    return bridge === undefined ? [] : [bridge]
  })
}

/** How the way to the server is looked at, which depends on how it goes. */
export const connectivityOf = (config: ClientConfig) =>
  Layer.unwrap(
    Effect.map(Tunnel, (tunnel) => {
      const upstream = upstreamOf(config)
      return LinuxConnectivity({
        referenceHosts: config.reference_hosts,
        captivePortalUrl: config.captive_portal_url,
        proxy: upstream === null ? null : endpointText(upstream),
        tor: { mode: config.tor.mode, entries: entriesOf(config), tunnel }
      })
    })
  )

const running: TunnelState = {
  phase: "ready",
  progress: 100,
  summary: "running",
  reason: null,
  problem: null,
  clockSkewSeconds: null,
  clockDoubt: null
}

/**
 * Whether an address is reached by a SOCKS port that the client alone has been told, by the tor that `tor.control` names:
 * nobody else may ask tor for it as the client does.
 */
export const isReachedUnseen = (config: ClientConfig, origin: string): boolean => {
  const { control, socks } = runningTor(config.tor)
  return control !== null && socks === null && !isHere(origin) && isTunnelledBy(config)(origin)
}

/**
 * By which ways `postern doctor` reaches a server beside the client: through the client's own Tor where that runs, and
 * never otherwise than the client would.
 */
export const routesBeside = (config: ClientConfig): Routes => {
  const own = torPaths(torFolder(config.state_folder)).socks
  const configured = runningTor(config.tor)
  const endpoint = configured.socks ?? (configured.control === null && existsSync(own) ? { path: own } : null)
  const summary = "the client's Tor does not run, or is another program's whose SOCKS port is not known"
  const tor: TorWay = {
    endpoint: () => Effect.succeed(endpoint),
    state: Effect.succeed(
      endpoint === null ? { ...running, phase: "off", summary, problem: "failed" } : running
    ),
    changed: () => Effect.never
  }
  return makeRoutes({ mode: config.tor.mode, proxy: upstreamOf(config), tor })
}

/** Whether an origin is reached through Tor. */
export const isTunnelledBy =
  ({ tor }: ClientConfig) =>
  (origin: string): boolean =>
    tor.mode === "always" || (tor.mode === "auto" && isOnionOrigin(origin))

/** By which way each address is reached. */
export const routesOf = (config: ClientConfig) =>
  Effect.map(Tunnel, (tor) => makeRoutes({ mode: config.tor.mode, proxy: upstreamOf(config), tor }))

/** What carries requests. */
export const transportOf = (config: ClientConfig) =>
  Effect.flatMap(routesOf(config), (routes) => httpTransport({ routes }))
