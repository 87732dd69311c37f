import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import { nextSample, type Sample } from "../../../src/adapters/sqlite/fleet/DownloadRate.ts"

const nothing: Sample = { atMs: null, bytes: null, rate: null }

/** What is known after reports of so many bytes at so many milliseconds. */
const afterReports = (...reports: ReadonlyArray<readonly [atMs: number, bytes: number | null]>): Sample =>
  reports.reduce((known, [atMs, bytes]) => nextSample(known, bytes, atMs), nothing)

describe("the rate of a download", () => {
  it("is not known of one report, nor of two at once", () => {
    assert.isNull(afterReports([1_000, 500]).rate)
    assert.isNull(afterReports([1_000, 500], [1_100, 900]).rate)
  })

  it("is known after a moment, and then follows the line", () => {
    assert.strictEqual(afterReports([0, 0], [1_000, 700]).rate, 700)
    assert.strictEqual(afterReports([0, 0], [10_000, 10_000]).rate, 1_000)
    assert.strictEqual(afterReports([0, 0], [10_000, 10_000], [20_000, 40_000]).rate, 2_000)
  })

  it("falls to nothing while nothing comes", () => {
    const reports = Array.from({ length: 12 }, (_, index) => [10_000 * (index + 2), 10_000] as const)
    assert.isAtMost(afterReports([0, 0], [10_000, 10_000], ...reports).rate ?? -1, 1)
  })

  it("begins anew after a silence, when less is there than was, and with the next state", () => {
    assert.isNull(afterReports([0, 0], [10_000, 10_000], [200_000, 20_000]).rate)
    assert.isNull(afterReports([0, 0], [10_000, 10_000], [20_000, 5_000]).rate)
    assert.deepStrictEqual(afterReports([0, 0], [10_000, 10_000], [20_000, null]), nothing)
  })

  it("of an even line is that line's, however often the device reports", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 10_000_000 }),
        fc.array(fc.integer({ min: 500, max: 100_000 }), { minLength: 1, maxLength: 40 }),
        (rate, gaps) => {
          let atMs = 0
          const reports = gaps.map((gap) => {
            atMs += gap
            return [atMs, Math.round((rate * atMs) / 1_000)] as const
          })
          const known = afterReports([0, 0], ...reports)
          // Bytes are whole, and so is the rate.
          assert.approximately(known.rate ?? Number.NaN, rate, 4)
        }
      )
    )
  })
})
