/** What stands between a device and its server, layer by layer. Each needs those before it. */
import { Schema } from "effect"
import { labelUpTo } from "./Ids.ts"

/** The layers that can fail, from the bottom up. A new one (a captive portal, Tor) takes its place in the row. */
export const brokenLayers = [
  "no_link",
  "no_address",
  "no_route",
  "no_name_resolution",
  "no_reference_host",
  "server_unreachable"
] as const

export const BrokenLayer = Schema.Literals(brokenLayers)
export type BrokenLayer = typeof BrokenLayer.Type

/** How far the way to the server is good: the lowest layer that fails, or `ok`. */
export const LinkFinding = Schema.Struct({
  layer: Schema.Literals([...brokenLayers, "ok"]),
  /** What was seen there, for people. */
  detail: labelUpTo(200)
})
export type LinkFinding = typeof LinkFinding.Type
