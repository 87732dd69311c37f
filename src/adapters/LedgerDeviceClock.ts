/**
 * Device time over the system's clock: a Raspberry Pi without a battery wakes up in the past, so the highest time a
 * server proved is kept in the ledger and time never runs backwards.
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
      // The time proved last, and the monotonic moment it was proved at: it goes on from there.
      let anchorMs = Math.max(persistedMs, earliestMs)
      let anchorAt = yield* monotonicMs
      let highestMs = anchorMs
      let proven = false

      const nowMs = Effect.map(
        Effect.all([Clock.currentTimeMillis, monotonicMs]),
        ([systemMs, monotonic]) => {
          highestMs = Math.max(highestMs, Math.floor(systemMs), anchorMs + (monotonic - anchorAt))
          return highestMs
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

      const accept = Effect.fnUntraced(function* (serverTimeMs: number) {
        const beforeMs = yield* nowMs
        proven = true
        const leapMs = Math.max(serverTimeMs - beforeMs, 0)
        if (leapMs > 0) {
          anchorMs = serverTimeMs
          anchorAt = yield* monotonicMs
          highestMs = serverTimeMs
        }
        if (leapMs > Limits.clockLeapAlarmMs) {
          yield* Effect.logError(
            "the device's time leapt by more than 30 days; check the server's clock"
          ).pipe(Effect.annotateLogs({ fromMs: beforeMs, toMs: serverTimeMs }))
        }
        yield* persist(serverTimeMs)
        return leapMs
      })

      return { nowMs, proven: Effect.sync(() => proven), accept }
    })
  )
