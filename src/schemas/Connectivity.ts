/** What stands between a device and its server, layer by layer. Each needs those before it. */
import { Schema } from "effect"
import { labelUpTo } from "./Ids.ts"
import type { RouteFailure } from "./RouteFailure.ts"

/** The layers that can fail, from the bottom up. Those of the proxy and of Tor are only there where one is used. */
export const brokenLayers = [
  "no_link",
  "no_address",
  "no_route",
  "no_name_resolution",
  "captive_portal",
  "no_reference_host",
  "proxy_unreachable",
  "proxy_refused",
  "clock_wrong",
  "tor_failed",
  "tor_bootstrapping",
  "onion_not_found",
  "onion_not_authorised",
  "onion_intro_failed",
  "server_unreachable"
] as const

export const BrokenLayer = Schema.Literals(brokenLayers)
export type BrokenLayer = typeof BrokenLayer.Type

/** The layer that a failed request tells of. */
export const layerOfRouteFailure: Readonly<Record<RouteFailure, BrokenLayer>> = {
  tunnel_not_ready: "tor_bootstrapping",
  onion_not_found: "onion_not_found",
  onion_not_authorised: "onion_not_authorised",
  onion_intro_failed: "onion_intro_failed",
  onion_unexplained: "server_unreachable",
  onion_not_used: "server_unreachable",
  proxy_unreachable: "proxy_unreachable",
  proxy_refused: "proxy_refused"
}

/** How far the way to the server is good: the lowest layer that fails, or `ok`. */
export const LinkFinding = Schema.Struct({
  layer: Schema.Literals([...brokenLayers, "ok"]),
  /** What was seen there, for people. */
  detail: labelUpTo(200)
})
export type LinkFinding = typeof LinkFinding.Type
