import { describe, expect, it } from "@effect/vitest"
import { Clock, Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { earliestTimeMs, ledgerDeviceClock } from "../../src/adapters/LedgerDeviceClock.ts"
import { SqliteLedgerOver } from "../../src/adapters/SqliteLedger.ts"
import { type DatabaseSync, openDatabase } from "../../src/adapters/sqlite/Database.ts"
import { DeviceClock } from "../../src/ports/DeviceClock.ts"
import { SeededEntropy } from "../crypto/SeededEntropy.ts"

const day = 86_400_000

/** One boot of a device: a clock over what the ledger kept. */
const boot = <A, E>(
  database: DatabaseSync,
  use: (clock: DeviceClock["Service"]) => Effect.Effect<A, E>,
  earliestMs = 1_000
) =>
  Effect.flatMap(DeviceClock, use).pipe(
    Effect.provide(
      Layer.fresh(
        ledgerDeviceClock(earliestMs).pipe(
          Layer.provide(SqliteLedgerOver(database)),
          Layer.provide(SeededEntropy("test", "clock"))
        )
      )
    )
  )

const withDatabase = <A, E>(use: (database: DatabaseSync) => Effect.Effect<A, E>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => openDatabase(":memory:")),
    use,
    (database) => Effect.sync(() => database.close())
  )

describe("the device's clock", () => {
  it.effect("is not before the program was made, and goes on from there", () =>
    withDatabase((database) =>
      boot(database, (clock) =>
        Effect.gen(function* () {
          expect(yield* clock.nowMs).toBe(1_000)
          expect(yield* clock.proven).toBe(false)
          yield* TestClock.adjust(500)
          expect(yield* clock.nowMs).toBe(1_500)
        })
      )
    )
  )
  it.effect("follows the system's clock where that is ahead, while nobody has told the time", () =>
    Effect.gen(function* () {
      const monotonic = yield* Clock.Clock
      let systemMs = 5 * day
      const stepping: Clock.Clock = {
        ...monotonic,
        currentTimeMillisUnsafe: () => systemMs,
        currentTimeMillis: Effect.sync(() => systemMs)
      }
      const clockSays = withDatabase((database) =>
        boot(database, (clock) =>
          Effect.gen(function* () {
            const before = yield* clock.nowMs
            systemMs = 2 * day
            return [before, yield* clock.nowMs]
          })
        )
      )
      expect(yield* Effect.provideService(clockSays, Clock.Clock, stepping)).toEqual([5 * day, 5 * day])
    })
  )
  it.effect("takes in what a server proved, and tells the leap", () =>
    withDatabase((database) =>
      boot(database, (clock) =>
        Effect.gen(function* () {
          expect(yield* clock.accept(100 * day)).toBe(100 * day - 1_000)
          expect(yield* clock.proven).toBe(true)
          yield* TestClock.adjust(day)
          expect(yield* clock.nowMs).toBe(101 * day)
          // A server that is behind changes nothing, and is no leap.
          expect(yield* clock.accept(50 * day)).toBe(0)
          expect(yield* clock.nowMs).toBe(101 * day)
        })
      )
    )
  )
  it.effect("remembers the highest time over a reboot, and must be proved again", () =>
    withDatabase((database) =>
      Effect.gen(function* () {
        yield* boot(database, (clock) => clock.accept(100 * day))
        yield* boot(database, (clock) =>
          Effect.gen(function* () {
            expect(yield* clock.nowMs).toBe(100 * day)
            expect(yield* clock.proven).toBe(false)
          })
        )
      })
    )
  )
  it.effect("is not misled by a damaged note", () =>
    withDatabase((database) =>
      Effect.gen(function* () {
        yield* boot(database, (clock) => clock.accept(100 * day))
        database.exec("UPDATE notes SET value = '\"soon\"' WHERE key = 'highest_time'")
        expect(yield* boot(database, (clock) => clock.nowMs)).toBe(1_000)
      })
    )
  )
  it.effect("goes on where the ledger cannot be written", () =>
    withDatabase((database) =>
      boot(database, (clock) =>
        Effect.gen(function* () {
          database.exec("DROP TABLE notes")
          expect(yield* clock.accept(100 * day)).toBeGreaterThan(0)
          expect(yield* clock.nowMs).toBe(100 * day)
        })
      )
    )
  )
  it.live("in production begins with the year of the program", () =>
    Effect.gen(function* () {
      expect(new Date(earliestTimeMs).toISOString()).toBe("2026-01-01T00:00:00.000Z")
      expect(yield* Clock.currentTimeMillis).toBeGreaterThan(earliestTimeMs)
    })
  )
})
