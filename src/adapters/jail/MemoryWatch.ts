/**
 * Weighs a job's memory as a whole where no control group does. RLIMIT_DATA and RLIMIT_AS bound each process by
 * itself, so that a job of many processes could take the machine's memory; here the job is killed for it, as a control group's would be.
 */
import type { Scope } from "effect"
import { Effect, Schedule } from "effect"
import { jobMemoryBytes, signalJob } from "./Processes.ts"

/** How often. A job may exceed its bound for that long, up to what its rlimits allow. */
const intervalMs = 250

export interface MemoryWatch {
  /** The highest weight seen so far; null before the first look, as for jobs shorter than the interval. */
  readonly peakBytes: Effect.Effect<number | null>
}

/**
 * Watches until the scope closes.
 *
 * @param limitBytes memory and disk of the job together: its files lie in memory and count where it maps them
 * @returns the highest weight seen so far in bytes; null before the first look (jobs shorter than the interval)
 */
export const watchMemory = (
  guard: number,
  limitBytes: number
): Effect.Effect<MemoryWatch, never, Scope.Scope> =>
  Effect.gen(function* () {
    let peak: number | null = null
    const look = Effect.sync(() => {
      const weight = jobMemoryBytes(guard, limitBytes)
      if (weight > 0) peak = Math.max(peak ?? 0, weight)
      if (weight > limitBytes) signalJob(guard, "SIGKILL")
    })
    yield* look.pipe(Effect.delay(intervalMs), Effect.repeat(Schedule.forever), Effect.forkScoped)
    return { peakBytes: Effect.sync(() => peak) }
  })
