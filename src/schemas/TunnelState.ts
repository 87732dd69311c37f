/** How a device's way through Tor is. */
import { Schema } from "effect"
import { intBetween, labelUpTo } from "./Ids.ts"

/**
 * - `off`: not used, or not needed yet
 * - `starting`: tor is being started or attached to
 * - `bootstrapping`: it runs, and is on its way into Tor's network
 * - `ready`: circuits are built
 * - `lost`: it was ready, and has no circuits any more; or it does not run and will be tried again
 */
export const TunnelPhase = Schema.Literals(["off", "starting", "bootstrapping", "ready", "lost"])
export type TunnelPhase = typeof TunnelPhase.Type

export const TunnelState = Schema.Struct({
  phase: TunnelPhase,
  /** How far tor is on its way into the network, in percent. */
  progress: intBetween(0, 100),
  /** Tor's words for that: `Connecting to a relay`. */
  summary: labelUpTo(200),
  /** Tor's last warning on the way, or why it is gone; null while there is nothing to complain of. */
  reason: Schema.NullOr(labelUpTo(200)),
  /** What keeps tor from running at all; null where it runs, or only has to be tried again. */
  problem: Schema.NullOr(Schema.Literals(["missing", "misconfigured", "unreachable", "failed"])),
  /** How far tor found this machine's clock from the network's: above 0 it is ahead. Null where it found nothing. */
  clockSkewSeconds: Schema.NullOr(Schema.Int)
})
export type TunnelState = typeof TunnelState.Type
