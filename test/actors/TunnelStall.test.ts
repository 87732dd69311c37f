/** A tor that stands still, or whose clock was put right, is given up; one that gets on is left alone. */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { makeAlarm } from "../../src/actors/Alarm.ts"
import { makeTunnelStall } from "../../src/actors/TunnelStall.ts"
import type { TunnelState } from "../../src/schemas/TunnelState.ts"

const minute = 60_000

const at = (progress: number, changes: Partial<TunnelState> = {}): TunnelState => ({
  phase: "bootstrapping",
  progress,
  summary: "on its way",
  reason: null,
  problem: null,
  clockSkewSeconds: null,
  clockDoubt: null,
  ...changes
})
const ready = at(100, { phase: "ready" })

/** A watch with the states it is told, and the reasons for which it gave tor up. */
const watched = Effect.gen(function* () {
  const reasons: Array<string> = []
  let state = at(0, { phase: "starting" })
  const stall = makeTunnelStall(yield* makeAlarm(Effect.suspend(() => stall.rang(state))), (reason) =>
    Effect.sync(() => void reasons.push(reason))
  )
  yield* stall.began
  return {
    reasons,
    stall,
    becomes: (next: TunnelState) =>
      Effect.suspend(() => {
        const before = state
        state = next
        return stall.changed(before, next)
      }),
    pass: (ms: number) => TestClock.adjust(ms)
  }
})

describe("a tor on its way", () => {
  it.effect("that gets on is left alone, however long it takes", () =>
    Effect.gen(function* () {
      const { becomes, pass, reasons } = yield* watched
      for (let progress = 1; progress < 100; progress++) {
        yield* becomes(at(progress))
        yield* pass(minute)
      }
      yield* becomes(ready)
      yield* pass(600 * minute)
      expect(reasons).toEqual([])
    })
  )

  it.effect("that stands still is given up within two minutes, complaints are no progress", () =>
    Effect.gen(function* () {
      const { becomes, pass, reasons } = yield* watched
      yield* becomes(at(14))
      for (let count = 0; count < 8; count++) {
        yield* pass(minute / 4)
        yield* becomes(at(14, { reason: `complaint ${count}` }))
      }
      expect(reasons).toEqual(["it did not get on from 14 % (on its way)"])
    })
  )

  it.effect("that lost its circuits is given up too", () =>
    Effect.gen(function* () {
      const { becomes, pass, reasons } = yield* watched
      yield* becomes(ready)
      yield* pass(60 * minute)
      yield* becomes(at(100, { phase: "lost" }))
      yield* pass(2 * minute)
      expect(reasons).toHaveLength(1)
    })
  )

  it.effect("has more time after each start that did not help", () =>
    Effect.gen(function* () {
      const { becomes, pass, reasons, stall } = yield* watched
      yield* becomes(at(14))
      yield* pass(2 * minute)
      yield* stall.ended
      yield* stall.began
      yield* becomes(at(0, { phase: "starting" }))
      yield* becomes(at(14))
      yield* pass(2 * minute)
      expect(reasons).toHaveLength(1)
      yield* pass(2 * minute)
      expect(reasons).toHaveLength(2)
    })
  )

  it.effect.each([{ clockSkewSeconds: -864_000 }, { clockDoubt: "a certificate expired" }])(
    "is given up as soon as the clock was put right (%o)",
    (wrong) =>
      Effect.gen(function* () {
        const { becomes, reasons } = yield* watched
        yield* becomes(at(40, wrong))
        expect(reasons).toEqual([])
        yield* becomes(at(40))
        expect(reasons).toEqual(["the clock was put right, and a new tor begins at once"])
      })
  )

  it.effect("that is ready when the clock is put right is left alone", () =>
    Effect.gen(function* () {
      const { becomes, pass, reasons } = yield* watched
      yield* becomes(at(40, { clockSkewSeconds: -7_200 }))
      yield* becomes(ready)
      yield* pass(600 * minute)
      expect(reasons).toEqual([])
    })
  )
})
