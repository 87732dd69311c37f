/** Figures over time on the server: means over steps, bounded in number and age, whoever reports. */
import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import { type DatabaseSync, migrate, openDatabase } from "../../../src/adapters/sqlite/Database.ts"
import { type SeriesMethods, seriesDatabase } from "../../../src/adapters/sqlite/fleet/SeriesDatabase.ts"
import type { HealthReport } from "../../../src/schemas/Health.ts"
import type { DeviceId } from "../../../src/schemas/Ids.ts"
import { Limits } from "../../../src/schemas/Limits.ts"
import { healthReport } from "../../support/health.ts"

const minute = 60_000
const hour = 60 * minute
const day = 24 * hour
const now = 1_800_000_000_000 - (1_800_000_000_000 % day)
const keep = { reports: 10, days: 30 }
const device = (n: number) => `dev_${n}` as DeviceId

const withSeries = <A>(use: (series: SeriesMethods, database: DatabaseSync) => A): A => {
  const database = openDatabase(":memory:")
  try {
    migrate(database, seriesDatabase)
    return use(seriesDatabase.build(database), database)
  } finally {
    database.close()
  }
}

let reported = 0
const report = (changes: Partial<HealthReport>) => healthReport({ at_ms: ++reported, ...changes })
const rows = (database: DatabaseSync, table: string): number =>
  (database.prepare(`SELECT count(*) AS n FROM ${table}`).get() as { n: number }).n

describe("series", () => {
  it("are means of what came in a step; what is never told stays unknown", () =>
    withSeries((series) => {
      for (const [atMs, load] of [
        [0, 1],
        [minute, 2],
        [2 * minute, 6],
        [7 * minute, 4]
      ] as const)
        series.addHealth(device(1), report({ load_1m: load, temperature_celsius: null }), now + atMs, keep)
      const { samples, stepMs } = series.series(device(1), now, now + hour, 100)
      assert.strictEqual(stepMs, 5 * minute)
      assert.deepStrictEqual(
        samples.map(({ at_ms, load_1m, temperature_celsius }) => [at_ms - now, load_1m, temperature_celsius]),
        [
          [0, 3, null],
          [5 * minute, 4, null]
        ]
      )
      assert.deepStrictEqual(series.series(device(2), now, now + hour, 100).samples, [])
    }))

  it("count a report that came twice once", () =>
    withSeries((series) => {
      const twice = report({ load_1m: 1 })
      series.addHealth(device(1), twice, now, keep)
      series.addHealth(device(1), twice, now, keep)
      series.addHealth(device(1), report({ load_1m: 4 }), now, keep)
      assert.strictEqual(series.series(device(1), now, now + hour, 10).samples[0]?.load_1m, 2.5)
    }))

  it("have as many points as were asked for, about, and no more than there may be", () =>
    withSeries((series) => {
      for (let at = 0; at < 40 * day; at += 20 * minute)
        series.addHealth(device(1), report({}), now + at, { ...keep, days: 60 })
      const until = now + 40 * day
      fc.assert(
        fc.property(
          fc.integer({ min: 1, max: 60 * day }),
          fc.integer({ min: 1, max: 5_000 }),
          (span, points) => {
            const { samples, stepMs } = series.series(device(1), until - span, until, points)
            assert.isAtMost(samples.length, Math.min(points, Limits.seriesPoints) + 1)
            const steps = samples.map(({ at_ms }) => at_ms)
            assert.deepStrictEqual(
              steps,
              [...steps].sort((a, b) => a - b)
            )
            for (const at of steps) assert.strictEqual(at % stepMs, 0)
          }
        )
      )
    }))

  it("are bounded by age, also those of devices that are silent", () =>
    withSeries((series, database) => {
      for (let n = 0; n < 20; n++)
        for (let at = 0; at < 2 * hour; at += 5 * minute)
          series.addHealth(device(n), report({}), now + at, keep)
      const before = rows(database, "figures")
      assert.isAbove(before, 400)
      // One device goes on; after a month and some nothing of the others is left.
      for (let at = 0; at < 32 * day; at += hour) series.addHealth(device(0), report({}), now + at, keep)
      assert.isAtMost(rows(database, "health"), keep.reports)
      assert.isAtMost(rows(database, "figures"), 30 * 24 + 2 * 24 + 4)
      assert.deepStrictEqual(series.series(device(1), 0, now + 40 * day, 10).samples, [])
    }))

  it("leave out reports of a version that is not known", () =>
    withSeries((series, database) => {
      series.addHealth(device(1), report({}), now, keep)
      database.exec("UPDATE health SET report = json_set(report, '$.version', 99)")
      assert.deepStrictEqual(series.health(device(1), 10), [])
    }))
})
