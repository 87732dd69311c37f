/** One device and its server through simulated days. */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { rough, traceOf, usual } from "../sim/World.ts"

describe("a simulated day", () => {
  it.effect("is a function of its seed: the same twice, another with another", () =>
    Effect.gen(function* () {
      const first = yield* traceOf(usual(1))
      const again = yield* traceOf(usual(1))
      const other = yield* traceOf({ ...usual(2), lengthMs: 3_600_000 })
      expect(first.receipts).toHaveLength(10)
      expect(first.trace.some((line) => line.endsWith("device crash"))).toBe(true)
      expect(first.trace.some((line) => line.endsWith("network cut"))).toBe(true)
      const differs = first.trace.findIndex((line, index) => line !== again.trace[index])
      expect([differs, first.trace[differs], again.trace[differs]]).toEqual([-1, undefined, undefined])
      expect(again.trace).toHaveLength(first.trace.length)
      expect(other.trace.slice(0, 1_000)).not.toEqual(first.trace.slice(0, 1_000))
    })
  )
})

describe("rough hours", () => {
  it.effect.each([1, 2, 3, 4])("lose nothing and run nothing twice (seed %i)", (seed) =>
    Effect.asVoid(traceOf(rough(seed)))
  )
})
