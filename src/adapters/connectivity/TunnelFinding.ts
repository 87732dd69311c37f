/**
 * What the state of the device's Tor says of the way to the server.
 *
 * @module
 */
import type { BrokenLayer, LinkFinding } from "../../schemas/Connectivity.ts"
import type { TunnelState } from "../../schemas/TunnelState.ts"
import { label } from "../host/Reading.ts"

/** Tor bears a clock that is wrong by some hours; what it bears is not worth a word. */
const seriousSkewSeconds = 1_800

const units: ReadonlyArray<readonly [seconds: number, name: string]> = [
  [86_400, "days"],
  [3_600, "hours"],
  [60, "minutes"]
]

/** A time in the unit that says enough. */
const lasting = (seconds: number): string => {
  const [size, name] = units.find(([unit]) => seconds >= 2 * unit) ?? [1, "seconds"]
  return `${Math.round(seconds / size)} ${name}`
}

const because = (reason: string | null): string => (reason === null ? "" : `: ${reason}`)

/** The layer that keeps Tor from carrying a request; null where nothing does. */
export const tunnelFinding = (state: TunnelState): LinkFinding | null => {
  const { clockSkewSeconds: skew, phase, problem, progress, reason, summary } = state
  const found = (layer: BrokenLayer, detail: string) => ({ layer, detail: label(detail, 200) })
  if (phase === "ready") return null
  if (problem !== null) return found("tor_failed", reason ?? summary)
  if (skew !== null && Math.abs(skew) >= seriousSkewSeconds)
    return found(
      "clock_wrong",
      `by Tor's reckoning the clock is ${lasting(Math.abs(skew))} ${skew > 0 ? "ahead" : "behind"}${because(reason)}`
    )
  return found("tor_bootstrapping", `${progress} %, ${summary}${because(reason)}`)
}
