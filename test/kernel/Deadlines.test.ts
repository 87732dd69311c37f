import { expect, it } from "@effect/vitest"
import { Context, Effect } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { Deadlines, type Timer } from "../../src/kernel/Deadlines.ts"
import { property } from "./support.ts"

const make = Effect.map(Effect.context<never>(), (context) => new Deadlines(context))

it.effect("timers expire at their millisecond, in order, and cancelled ones never", () =>
  Effect.gen(function* () {
    const deadlines = yield* make
    const seen: Array<string> = []
    const note = (name: string) => () => {
      seen.push(`${name}@${deadlines.now()}`)
    }
    deadlines.after(30, note("c"))
    deadlines.after(10, note("a"))
    deadlines.after(10, note("b"))
    const cancelled = deadlines.after(20, note("never"))
    deadlines.cancel(cancelled)
    deadlines.cancel(cancelled)
    yield* TestClock.adjust(9)
    expect(seen).toEqual([])
    yield* TestClock.adjust(91)
    expect(seen).toEqual(["a@10", "b@10", "c@30"])
    deadlines.close()
  })
)

it.effect("a timer may add and cancel timers while it expires", () =>
  Effect.gen(function* () {
    const deadlines = yield* make
    const seen: Array<string> = []
    const victim = deadlines.after(10, () => seen.push("victim"))
    const first = deadlines.after(5, () => {
      seen.push("first")
      deadlines.cancel(victim)
      deadlines.after(0, () => seen.push("at once"))
      deadlines.after(7, () => seen.push("later"))
    })
    expect(first.bucket).toBeDefined()
    yield* TestClock.adjust(5)
    expect(seen).toEqual(["first", "at once"])
    yield* TestClock.adjust(100)
    expect(seen).toEqual(["first", "at once", "later"])
    deadlines.close()
  })
)

it.effect("a sleep ends on time, and its interruption leaves nothing behind", () =>
  Effect.gen(function* () {
    const deadlines = yield* make
    const sleeper = yield* Effect.forkChild(deadlines.sleep(1_000))
    const other = yield* Effect.forkChild(deadlines.sleep(2_000))
    yield* Effect.yieldNow
    other.interruptUnsafe()
    yield* TestClock.adjust(1_000)
    expect(sleeper.pollUnsafe()).toMatchObject({ _tag: "Success" })
    expect(other.pollUnsafe()).toMatchObject({ _tag: "Failure" })
    deadlines.close()
  })
)

it("whatever is added and cancelled, exactly the rest expires, each on its millisecond", () =>
  property(
    fc.array(
      fc.record({ delayMs: fc.integer({ min: 0, max: 500 }), cancel: fc.boolean(), advance: fc.nat(20) }),
      {
        maxLength: 120
      }
    ),
    (doings) =>
      Effect.gen(function* () {
        const deadlines = yield* make
        const expected = new Set<number>()
        const due = new Map<number, number>()
        const expired: Array<number> = []
        const timers: Array<Timer> = []
        for (const [id, { delayMs, cancel, advance }] of doings.entries()) {
          due.set(id, deadlines.now() + delayMs)
          expected.add(id)
          timers.push(
            deadlines.after(delayMs, () => {
              expired.push(id)
              expect(deadlines.now()).toBe(Math.max(due.get(id) as number, 0))
            })
          )
          yield* TestClock.adjust(advance)
          const victim = Math.floor(id / 2)
          if (cancel && !expired.includes(victim)) {
            deadlines.cancel(timers[victim] as Timer)
            expected.delete(victim)
          }
        }
        yield* TestClock.adjust(1_000)
        expect([...expired].sort((a, b) => a - b)).toEqual([...expected])
        deadlines.close()
      }),
    100
  ))

it.effect("without TestClock's help real time drives it, too", () =>
  Effect.gen(function* () {
    const live = yield* TestClock.withLive(Effect.context<never>())
    const deadlines = new Deadlines(Context.merge(Context.empty(), live))
    const before = deadlines.now()
    yield* deadlines.sleep(20)
    expect(deadlines.now() - before).toBeGreaterThanOrEqual(20)
    deadlines.close()
  })
)
