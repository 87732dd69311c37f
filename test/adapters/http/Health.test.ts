/** What a device tells of itself, from its request to the operator's screen. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { condition } from "../../../src/actors/DeviceConditions.ts"
import { hashToken } from "../../../src/adapters/http/ManagementAccess.ts"
import { TestKit } from "../../../src/kernel/testing/TestKit.ts"
import type { HealthReport } from "../../../src/schemas/Health.ts"
import type { DeviceView, SeriesView } from "../../../src/schemas/ManagementViews.ts"
import { acceptedFleet, manage, pollBody, send } from "../../support/fleet.ts"
import { healthReport } from "../../support/health.ts"
import { device, engine, nowMs } from "../../support/operators.ts"

const token = `postern-token-v1.${"v".repeat(52)}`
const base = "/api/management/v1"

const watchedFleet = Effect.gen(function* () {
  const fleet = yield* acceptedFleet
  yield* fleet.store.addToken("viewer", "viewer", hashToken(engine, Redacted.make(token)), nowMs)
  const get = <A>(path: string) =>
    Effect.map(manage(fleet, token, "GET", `${base}${path}`), ({ json }) => json as A)
  return { fleet, get }
})

describe("what is weaker on a device than it should be", () => {
  it.effect("goes along with its polls, and is gone with the poll that says nothing of it", () =>
    Effect.gen(function* () {
      const { fleet, get } = yield* watchedFleet
      const poll = (degraded: ReadonlyArray<string>) =>
        send(fleet, "POST", "/poll", { body: pollBody({ degraded, wait_ms: 0 }) })
      yield* poll(["no_jail", "a_code_of_later_years"])
      assert.deepInclude(yield* get<typeof DeviceView.Type>(`/devices/${device.id}`), {
        degraded: ["no_jail", "a_code_of_later_years"]
      })
      yield* poll([])
      assert.deepInclude(yield* get<typeof DeviceView.Type>(`/devices/${device.id}`), { degraded: [] })
      assert.strictEqual((yield* poll(["Not A Code"])).status, 400)
    })
  )

  it.effect("stands with its details in the reports, whose figures become series", () =>
    Effect.gen(function* () {
      const { fleet, get } = yield* watchedFleet
      const degraded = [condition("disk_low", "1 byte is free")]
      yield* send(fleet, "POST", "/health", { body: healthReport({ at_ms: nowMs, degraded, load_1m: 3 }) })
      yield* send(fleet, "POST", "/health", { body: healthReport({ at_ms: nowMs + 1, load_1m: 1 }) })
      yield* TestKit.settle
      const health = yield* get<{ reports: ReadonlyArray<HealthReport> }>(
        `/devices/${device.id}/health?limit=10`
      )
      assert.deepStrictEqual(
        health.reports.map((report) => report.degraded),
        [[], degraded]
      )
      const series = yield* get<typeof SeriesView.Type>(`/devices/${device.id}/series?from_ms=0&points=5`)
      assert.strictEqual(series.samples.length, 1)
      assert.strictEqual(series.samples[0]?.load_1m, 2)
      assert.isAbove(series.step_ms, 0)
    })
  )
})
