import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { PackageDescription } from "../../../src/programs/cli/PackagePlan.ts"
import {
  BadRow,
  checkSeries,
  generatedSeries,
  packageDescription,
  statisticsScript
} from "../../../src/programs/demo/Series.ts"

/** Runs the script outside of a jail, with its paths moved into a temporary folder. */
const statisticsOf = (series: string): string => {
  const folder = mkdtempSync(join(tmpdir(), "postern-series-"))
  try {
    writeFileSync(join(folder, "series.csv"), series)
    const script = statisticsScript.replaceAll(/\/(package|work\/out)\//g, `${folder}/`)
    const options = { cwd: folder, env: { PATH: "/usr/bin:/bin" } }
    const ended = spawnSync("sh", ["-c", script], { ...options, encoding: "utf8" })
    assert.deepStrictEqual({ status: ended.status, stderr: ended.stderr }, { status: 0, stderr: "" })
    return readFileSync(join(folder, "statistics.csv"), "utf8")
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** The same figures, computed in the plainest way. */
const expectedStatistics = (series: string): string => {
  const byDay = new Map<string, Array<number>>()
  for (const line of series.trimEnd().split(/\r?\n/)) {
    const [seconds, value] = line.split(",").map(Number) as [number, number]
    const day = new Date(seconds * 1000).toISOString().slice(0, 10)
    byDay.set(day, [...(byDay.get(day) ?? []), value])
  }
  const rows = [...byDay]
    .sort(([left], [right]) => (left < right ? -1 : 1))
    .map(([day, values]) => {
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length
      const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length
      const figures = [Math.min(...values), mean, Math.max(...values), Math.sqrt(variance)]
      return [day, values.length, ...figures.map((figure) => figure.toFixed(3))].join(",")
    })
  return `day,rows,minimum,mean,maximum,standard_deviation\n${rows.join("\n")}\n`
}

describe("the demo's series", () => {
  it("is the same every time, and well formed", () => {
    assert.strictEqual(generatedSeries(), generatedSeries())
    assert.strictEqual(checkSeries(generatedSeries()), 5 * 288)
  })

  it("is refused by the line that is wrong", () => {
    const cases: ReadonlyArray<readonly [string, number, RegExp]> = [
      ["time,value\n1,2\n", 1, /line 1 is not `unix_seconds,value`: "time,value"/],
      ["1,2\n3;4\n", 2, /line 2 .*"3;4"/],
      ["1,2\n\n3,4\n", 2, /line 2 .*empty/],
      ["1,2\n3,nan\n", 2, /line 2/],
      ["1,2\n3,4,5\n", 2, /line 2/],
      ["", 1, /no rows/]
    ]
    for (const [text, line, message] of cases) {
      const found = checkSeries(text)
      assert.instanceOf(found, BadRow)
      assert.strictEqual((found as BadRow).line, line)
      assert.match((found as BadRow).message, message)
    }
  })

  it("may have carriage returns, negative values and exponents", () => {
    assert.strictEqual(checkSeries("1500914563,-1.5\r\n1500914568,2e-3\r\n"), 2)
  })
})

describe("the statistics script", () => {
  const exact = "1000000000,1\n1000000005,2\r\n1000000010,4\n1000086400,-3.25\n-1,7\n"
  it("agrees with a plain computation, over days, signs and line ends", () => {
    assert.strictEqual(statisticsOf(exact), expectedStatistics(exact))
  })

  it("agrees on the generated series", () => {
    const series = generatedSeries()
    const figures = (text: string) =>
      text
        .trimEnd()
        .split("\n")
        .slice(1)
        .map((row) => row.split(","))
    const found = figures(statisticsOf(series))
    for (const [index, expected] of figures(expectedStatistics(series)).entries()) {
      assert.deepStrictEqual(found[index]?.slice(0, 2), expected.slice(0, 2))
      for (let column = 2; column < 6; column++) {
        assert.closeTo(Number(found[index]?.[column]), Number(expected[column]), 0.0011)
      }
    }
  })

  it("comes in a package that can be built", () => {
    assert.isTrue(Result.isSuccess(Schema.decodeResult(PackageDescription)(packageDescription)))
  })
})
