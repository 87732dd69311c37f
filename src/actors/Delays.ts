/** How long to wait before trying again: rising, bounded, spread by chance so that a fleet does not return as one. */
import { Effect, Random } from "effect"

/** A row of delays in milliseconds; the last one repeats. */
export interface Delays {
  readonly firstMs: number
  readonly factor: number
  readonly maximumMs: number
}

/** Share of a delay that chance may take away. */
const jitter = 0.3

/** The delays without chance, as far as they rise. */
export const delayList = ({ factor, firstMs, maximumMs }: Delays): ReadonlyArray<number> => {
  const list: Array<number> = []
  for (let delay = firstMs; delay < maximumMs && list.length < 32; delay *= factor)
    list.push(Math.round(delay))
  return [...list, maximumMs]
}

/** Takes up to a third of a delay away. Jitter only, so Effect's Random will do. */
export const jittered = (delayMs: number): Effect.Effect<number> =>
  Effect.map(Random.next, (chance) => Math.round(delayMs * (1 - jitter * chance)))

/** Adds up to a third to a delay that must pass in any case. */
export const spreadLater = (delayMs: number): Effect.Effect<number> =>
  Effect.map(Random.next, (chance) => Math.round(delayMs * (1 + jitter * chance)))

/** The delay before attempt `failures + 1`, with jitter; `failures` counts from 1. */
export const delayAfter = (delays: Delays, failures: number): Effect.Effect<number> => {
  const list = delayList(delays)
  return jittered(list[Math.min(Math.max(failures, 1), list.length) - 1] as number)
}
