/**
 * Back-off: how long a supervisor waits before each further attempt to start a failing child.
 */
import { Effect, Random, Schema } from "effect"

/** Shape of a back-off: delays grow from `firstMs` by `factor` up to `maximumMs`, each spread by `jitter`. */
export const BackoffSpec = Schema.Struct({
  /** Delay before the first attempt; 0 restarts at once. */
  firstMs: Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 86_400_000 })),
  factor: Schema.Finite.check(Schema.isBetween({ minimum: 1, maximum: 100 })),
  maximumMs: Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 86_400_000 })),
  /** Share of each delay that chance may take away, 0 to 1: fleets that failed together do not return together. */
  jitter: Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 }))
})
export type BackoffSpec = typeof BackoffSpec.Type

/** A back-off written down with some members left to the defaults. */
export type BackoffOptions = Partial<BackoffSpec>

/** Number of delays in a list; later attempts repeat the last one. */
const listLength = 16

const delays = (spec: BackoffSpec, random: () => number): ReadonlyArray<number> => {
  const list: Array<number> = []
  let delay = spec.firstMs
  for (let attempt = 0; attempt < listLength; attempt++) {
    list.push(Math.round(Math.min(delay, spec.maximumMs) * (1 - spec.jitter * random())))
    delay = Math.min(delay * spec.factor, spec.maximumMs)
  }
  return list
}

/** Delays of the kernel's back-offs, and the list an attempt number indexes into. */
export const Backoff = {
  /** Restart quickly at first, then up to every 5 s. */
  standard: { firstMs: 20, factor: 2, maximumMs: 5_000, jitter: 0.2 } satisfies BackoffSpec,
  /** Restart at once, always. */
  none: { firstMs: 0, factor: 1, maximumMs: 0, jitter: 0 } satisfies BackoffSpec,
  /** For an optional part that has used up its intensity: every 30 s at first, then every 10 minutes. */
  degraded: { firstMs: 30_000, factor: 2, maximumMs: 600_000, jitter: 0.2 } satisfies BackoffSpec,
  /**
   * The list of delays in milliseconds for consecutive attempts; attempt n waits `list[min(n, last)]`.
   * `random` gives numbers in [0, 1) and is called once per delay.
   */
  delays,
  /** The same with Effect's Random, which a seed makes repeatable. */
  sample: (spec: BackoffSpec): Effect.Effect<ReadonlyArray<number>> =>
    Effect.map(Effect.service(Random.Random), (random) => delays(spec, () => random.nextDoubleUnsafe()))
}
