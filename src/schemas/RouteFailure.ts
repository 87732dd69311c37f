/** Why a request found no way to its server, where the means of getting there itself can tell. */
import { Schema } from "effect"

/**
 * - `tunnel_not_ready`: Tor is needed, and is not running or not connected to its network yet
 * - `onion_not_found`: no onion service of that address is published
 * - `onion_not_authorised`: it is, but not for this device's key
 * - `onion_intro_failed`: it is, but did not answer the knock
 * - `onion_unexplained`: it was not reached, and Tor does not say which of these it was
 * - `onion_not_used`: it is an onion address, and this device is told not to use Tor
 * - `proxy_unreachable`: the proxy on the way did not answer, or is none
 * - `proxy_refused`: the proxy does not let us through
 */
export const RouteFailure = Schema.Literals([
  "tunnel_not_ready",
  "onion_not_found",
  "onion_not_authorised",
  "onion_intro_failed",
  "onion_unexplained",
  "onion_not_used",
  "proxy_unreachable",
  "proxy_refused"
])
export type RouteFailure = typeof RouteFailure.Type
