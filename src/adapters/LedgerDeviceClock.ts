/**
 * Device time. A Raspberry Pi without a battery wakes up in the past, another machine in the future: until a server
 * has told the time in this boot, the system's clock is only a guess. From then on time is what the server proved,
 * carried on by the monotonic clock, whatever becomes of the system's. The highest proved time is kept in the ledger, so
 * proved time never runs backwards; a guess is never kept.
 */
import { Clock, Effect, Layer, Option } from "effect"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { Ledger } from "../ports/Ledger.ts"
import { Limits } from "../schemas/Limits.ts"

/** How far the highest time may run ahead of what is stored: each write costs a commit on an SD card. */
const persistEveryMs = 60_000

/** Device time cannot be before the program was made: 2026-01-01. */
export const earliestTimeMs = 1_767_225_600_000

const monotonicMs = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos / 1_000_000n))

const storedTime = (text: string | null): number => {
  const value = text === null ? Number.NaN : Number(text)
  return Number.isSafeInteger(value) && value >= 0 ? value : 0
}

/**
 * The device's clock. `earliestMs` is the time the program was made (default {@link earliestTimeMs}; a simulation passes
 * its own). A ledger that cannot be written costs the stored time only: it is logged, and the clock goes on.
 */
export const ledgerDeviceClock = (
  earliestMs: number = earliestTimeMs
): Layer.Layer<DeviceClock, never, Ledger> =>
  Layer.effect(
    DeviceClock,
    Effect.gen(function* () {
      const ledger = yield* Ledger
      const note = yield* Effect.option(ledger.note("highest_time"))
      let persistedMs = storedTime(Option.getOrNull(note))
      // The highest time a server ever proved, and the monotonic moment from which it goes on.
      let anchorMs = Math.max(persistedMs, earliestMs)
      let anchorAt = yield* monotonicMs
      let guessedMs = 0
      let proven = false

      const nowMs = Effect.map(
        Effect.all([Clock.currentTimeMillis, monotonicMs]),
        ([systemMs, monotonic]) => {
          const carriedMs = anchorMs + (monotonic - anchorAt)
          if (proven) return carriedMs
          guessedMs = Math.max(guessedMs, Math.floor(systemMs), carriedMs)
          return guessedMs
        }
      )

      const persist = (timeMs: number) =>
        timeMs < persistedMs + persistEveryMs
          ? Effect.void
          : ledger.setNote("highest_time", String(timeMs)).pipe(
              Effect.tap(() =>
                Effect.sync(() => {
                  persistedMs = timeMs
                })
              ),
              Effect.catch((error) =>
                Effect.logWarning("the time could not be stored").pipe(
                  Effect.annotateLogs({ reason: error.reason })
                )
              )
            )

      const report = (fromMs: number, toMs: number) => {
        if (Math.abs(toMs - fromMs) <= Limits.clockLeapAlarmMs) return Effect.void
        const [direction, clocks] =
          toMs > fromMs ? ["forward", "the server's clock"] : ["back", "this machine's clock"]
        return Effect.logError(
          `the device's time leapt ${direction} by more than 30 days: check ${clocks}`
        ).pipe(Effect.annotateLogs({ fromMs, toMs }))
      }

      const accept = Effect.fnUntraced(function* (serverTimeMs: number) {
        const beforeMs = yield* nowMs
        const monotonic = yield* monotonicMs
        proven = true
        if (serverTimeMs > anchorMs + (monotonic - anchorAt)) {
          anchorMs = serverTimeMs
          anchorAt = monotonic
        }
        const afterMs = yield* nowMs
        yield* report(beforeMs, afterMs)
        yield* persist(serverTimeMs)
        return Math.max(afterMs - beforeMs, 0)
      })

      return { nowMs, proven: Effect.sync(() => proven), accept }
    })
  )
