/** The device's own history: what it holds, how seldom it is written, and that nothing depends on it. */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { HistorianKey, MainLoopKey } from "../../src/actors/ClientKeys.ts"
import { deviceUnderTest, TestDevice } from "./support/TestDevice.ts"

const minute = 60_000
const hour = 60 * minute

const systemOf = (device: TestDevice) => device.system as NonNullable<TestDevice["system"]>
const viewOf = (device: TestDevice) => Effect.orDie(systemOf(device).ref(HistorianKey).ask("View"))
const told = (device: TestDevice) =>
  Effect.map(viewOf(device), ({ events }) =>
    [...events].reverse().map(({ detail, kind, subject }) => `${kind} ${subject} ${detail}`.trim())
  )
const rowsOf = (device: TestDevice, table: "events" | "samples"): number =>
  (device.memories.prepare(`SELECT count(*) AS n FROM ${table}`).get() as { n: number }).n
const commitsOf = (device: TestDevice): number =>
  (device.memories.prepare("SELECT total_changes() AS n").get() as { n: number }).n

describe("a device's history", () => {
  it.effect("tells of its start, its orders, its refusals and its end", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      const good = device.server.submit(1, { script: ["exit:0"] })
      const bad = device.server.submit(2, { script: ["exit:3"] })
      yield* device.until(() => device.server.receipts.length === 2, "the receipts")
      yield* device.pass(10_000)
      const events = yield* told(device)
      expect(events[0]).toMatch(/^start postern\/\S+ the first of this history$/)
      expect(events).toContain(`order ${good.id} succeeded`)
      expect(events).toContain(`order ${bad.id} failed: exit_code`)
      yield* Effect.orDie(systemOf(device).ref(HistorianKey).ask("Close"))
      yield* device.stop
      yield* device.start
      yield* device.pass(10_000)
      const after = yield* told(device)
      expect(after.at(-2)).toBe("stop")
      expect(after.at(-1)).toMatch(/^start .* the last one ended in order$/)
    })
  )

  it.effect("tells that the last life was cut off", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.pass(10_000)
      yield* device.crash
      yield* device.start
      yield* device.pass(10_000)
      expect((yield* told(device)).at(-1)).toMatch(/^start .* the last one was cut off$/)
    })
  )

  it.effect("tells when something became weaker, and when it was mended, once each", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.pass(2 * minute)
      device.host.freeDiskBytes = 1_000
      device.host.missingProcesses = ["sshd"]
      yield* device.pass(5 * minute)
      expect(device.server.polls.at(-1)).toMatchObject({ blocked: "disk_low" })
      expect(device.server.polls.at(-1)?.degraded).toEqual(
        expect.arrayContaining(["disk_low", "process_missing"])
      )
      device.host.freeDiskBytes = 1_000_000_000
      device.host.missingProcesses = []
      yield* device.pass(5 * minute)
      expect(device.server.polls.at(-1)).toMatchObject({ blocked: null, degraded: [] })
      const events = (yield* told(device)).filter((event) => /^(condition|mended)/.test(event))
      expect(events.map((event) => event.split(" ").slice(0, 2).join(" ")).sort()).toEqual([
        "condition disk_low",
        "condition process_missing",
        "mended disk_low",
        "mended process_missing"
      ])
      expect(events.find((event) => event.startsWith("condition disk_low"))).toContain("1000 bytes are free")
    })
  )

  it.effect("tells of loops that were started afresh", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.pass(minute)
      device.host.hangs = true
      yield* device.pass(10 * minute)
      device.host.hangs = false
      expect((yield* told(device)).some((event) => event.startsWith("restart main-loop"))).toBe(true)
    })
  )

  it.effect("tells of a leap of time, and calls one of more than 30 days a condition", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.pass(2 * minute)
      device.server.aheadMs = 2 * hour
      yield* device.pass(3 * minute)
      expect(
        (yield* told(device)).filter((event) => event.startsWith("clock_leap 7200 s from"))
      ).toHaveLength(1)
      expect(device.server.polls.at(-1)?.degraded).toEqual([])
      device.server.aheadMs = 60 * 24 * hour
      yield* device.pass(3 * minute)
      expect((yield* told(device)).filter((event) => event.startsWith("clock_leap"))).toHaveLength(2)
      expect(device.server.polls.at(-1)?.degraded).toEqual(["clock_leapt"])
    })
  )

  it.effect("is written seldom when nothing happens, and grows sparser with age", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.pass(20 * minute)
      const before = commitsOf(device)
      yield* device.pass(3 * hour, 5_000)
      // At most a sample each five minutes, in as many commits; each touches three steps at the most.
      expect(commitsOf(device) - before).toBeLessThanOrEqual(36 * 6)
      expect(rowsOf(device, "samples")).toBeLessThanOrEqual(45 + 5 + 2)
      expect((yield* viewOf(device)).samples.length).toBeGreaterThan(20)
    })
  )

  it.effect("costs nothing but itself where its disk is broken, and says so", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.pass(minute)
      device.memories.exec("DROP TABLE events")
      const order = device.server.submit(1, { script: ["exit:0"] })
      yield* device.until(() => device.server.receiptOf(order.id) !== undefined, "the receipt")
      yield* device.pass(5 * minute)
      const view = yield* viewOf(device)
      expect(view.trouble).toContain("no such table")
      expect(view.events.some(({ kind }) => kind === "order")).toBe(true)
      expect(device.server.polls.at(-1)?.degraded).toEqual(["history_unavailable"])
      const status = yield* Effect.orDie(systemOf(device).ref(MainLoopKey).ask("Status"))
      expect(status.blocked).toBeNull()
    })
  )

  it.effect("tells that the settings are others than at the last start", () =>
    Effect.gen(function* () {
      const device = yield* Effect.acquireRelease(
        Effect.sync(() => new TestDevice()),
        (made) =>
          Effect.andThen(
            made.stop,
            Effect.sync(() => made.close())
          )
      )
      yield* device.start
      yield* device.pass(10_000)
      yield* device.stop
      device.settingsDigest = "sha256:others"
      yield* device.start
      yield* device.pass(10_000)
      expect((yield* told(device)).at(-1)).toBe("configuration sha256:others")
    })
  )
})
