/** The loops: when they poll and sleep, what they report, and how they are kept alive. */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { HealthLoopKey, MainLoopKey, WatchdogKey } from "../../src/actors/ClientKeys.ts"
import { Behaviour, ChildSpec } from "../../src/kernel/index.ts"
import { conditionLine } from "../../src/schemas/Conditions.ts"
import { configOf, deviceUnderTest, type TestDevice } from "./support/TestDevice.ts"

const minute = 60_000
const hour = 60 * minute

const systemOf = (device: TestDevice) => device.system as NonNullable<TestDevice["system"]>
const statusOf = (device: TestDevice) => Effect.orDie(systemOf(device).ref(MainLoopKey).ask("Status"))
const loopsOf = (device: TestDevice) => Effect.orDie(systemOf(device).ref(WatchdogKey).ask("Report"))

describe("the main loop", () => {
  it.effect("holds its polls open, so that an order is there at once", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.pass(10_000)
      const before = device.server.polls.length
      const order = device.server.submit(1, { script: ["exit:0"] })
      // Each word between actors takes a step of the test's clock; all of them together less than a poll's least sleep.
      yield* device.pass(500, 25)
      expect(device.server.receiptOf(order.id)).toMatchObject({ state: "succeeded" })
      yield* device.pass(10 * minute)
      // Twenty-five seconds a poll, and the least of sleeps between.
      expect(device.server.polls.length - before).toBeLessThan(30)
    })
  )
  it.effect("sleeps as the server says, within its own bounds", () =>
    Effect.gen(function* () {
      const config = { long_poll_ms: 0, sleep_minimum_ms: 10_000, sleep_maximum_ms: 60_000 }
      const device = yield* deviceUnderTest({ config })
      yield* device.pass(minute)
      const rate = Effect.gen(function* () {
        const before = device.server.polls.length
        yield* device.pass(hour, 5_000)
        return device.server.polls.length - before
      })
      expect(yield* rate).toBeGreaterThan(350)
      device.server.sleepMs = 3_600_000
      yield* device.pass(minute)
      const slow = yield* rate
      expect(slow).toBeGreaterThanOrEqual(60)
      expect(slow).toBeLessThan(90)
    })
  )
  it.effect("starts without any network, waits longer and longer, and works when it comes", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.online = false
      device.host.layer = "no_link"
      yield* device.pass(12 * hour, 60_000)
      expect(device.server.polls).toHaveLength(0)
      device.server.online = true
      device.server.submit(1, { script: ["exit:0"] })
      yield* device.until(() => device.server.receipts.length === 1, "the receipt", 10 * minute)
    })
  )
  it.effect("backs off from a server that is gone, and is back soon after it", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.until(() => device.server.polls.length > 0, "the first poll")
      device.server.online = false
      device.server.stir()
      yield* device.pass(minute)
      const before = device.server.polls.length
      yield* device.pass(6 * hour, 10_000)
      const tried = device.server.polls.length - before
      expect(tried).toBeGreaterThan(60)
      expect(tried).toBeLessThan(150)
      expect(yield* statusOf(device)).toMatchObject({ blocked: null })
      device.server.online = true
      device.server.submit(1, { script: ["exit:0"] })
      yield* device.until(() => device.server.receipts.length === 1, "the receipt", 6 * minute)
      expect((yield* statusOf(device)).failures).toBe(0)
    })
  )
  it.effect("tells of the orders in work with every poll", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest({ config: { long_poll_ms: 1_000 } })
      device.server.blockMs = 1_000
      device.server.submit(1, { script: ["sleep:60000", "exit:0"] })
      device.server.submit(2, { script: ["exit:0"] })
      yield* device.until(() => device.host.runs.length === 1, "the run")
      yield* device.pass(5_000)
      const active = device.server.polls.at(-1)?.active ?? []
      expect(active.map((entry) => entry.state)).toEqual(["running", "queued"])
      const told = device.server.progress.filter((entry) => entry.order === active[0]?.order)
      expect(told.map((entry) => entry.state)).toContain("downloading")
      const versions = told.map((entry) => entry.version)
      expect([...versions].sort((a, b) => a - b)).toEqual(versions)
    })
  )
  it.effect("leaves orders with the server while many wait here, and takes them in order later", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest({ config: { long_poll_ms: 1_000 } })
      for (let n = 1; n <= 60; n++) device.server.submit(n, { script: ["sleep:4000", "exit:0"] })
      yield* device.until(
        () => device.server.polls.some((poll) => poll.free_lanes.length === 0),
        "a poll that takes none"
      )
      yield* device.until(() => device.server.receipts.length === 60, "all receipts", hour)
      expect(device.server.receipts.every((receipt) => receipt.state === "succeeded")).toBe(true)
      expect(device.host.runs.map((run) => run.startedAtMs)).toEqual(
        [...device.host.runs.map((run) => run.startedAtMs)].sort((a, b) => a - b)
      )
    })
  )
})

describe("a device that begins again", () => {
  it.effect("does not take the sleep of those who hold no poll open for its own", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      // What a server says to a poll that is to be answered at once.
      device.server.sleepMs = 60_000
      yield* device.until(() => device.server.polls.length === 1, "the first poll", 10_000, 50)
      yield* device.until(() => device.server.polls.length === 2, "the second", 1_000, 50)
      expect(device.server.polls.map((poll) => poll.wait_ms)).toEqual([0, 25_000])
    })
  )
  it.effect("is not done after the poll that only proved its clock", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.submit(1, { script: ["out:hello"] })
      yield* device.until(() => device.server.polls.length === 2, "the poll that takes orders", 10_000, 50)
      // `--once` looks between any two turns; what it must wait for is said as long as a turn is owed.
      expect(yield* statusOf(device)).toMatchObject({ polls: 1, again: true })
      yield* device.until(() => device.server.receipts.length === 1, "the receipt")
      yield* device.pass(60_000)
      expect(yield* statusOf(device)).toMatchObject({ again: false })
    })
  )
  it.effect("goes on with what it has at once, whoever heard the server first", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest({ config: { long_poll_ms: 60_000 } })
      device.server.submit(1, { script: ["out:begun", "sleep:600000"], idempotent: true })
      yield* device.until(() => device.host.runs.length === 1, "the first run")
      device.server.online = false
      yield* device.pass(5_000)
      yield* device.crash
      device.server.online = true
      device.server.refusals.poll = "overloaded"
      yield* device.start
      yield* device.until(
        () => device.server.health.length > 0,
        "a report, whose answer tells the time first",
        10_000,
        50
      )
      delete device.server.refusals.poll
      yield* device.until(() => device.host.runs.length === 2, "the second run", 5_000, 100)
    })
  )
})

describe("the health loop", () => {
  it.effect("reports at its own pace, and keeps on when the server is away", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.submit(1, { script: ["exit:3"] })
      yield* device.pass(5 * minute)
      expect(device.server.health.length).toBeGreaterThanOrEqual(4)
      expect(device.server.health.at(-1)).toMatchObject({
        work: { succeeded: 0, failed: 1 },
        blocked: null,
        degraded: []
      })
      device.server.online = false
      const sent = device.server.health.length
      yield* device.pass(5 * minute)
      expect(device.server.health).toHaveLength(sent)
      const history = yield* systemOf(device).ref(HealthLoopKey).ask("Reports")
      expect(history.length).toBeGreaterThanOrEqual(sent + 4)
    })
  )
  it.effect("says what is degraded", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.host.jailProblem = "bubblewrap is gone"
      device.host.freeDiskBytes = null
      yield* device.pass(5 * minute)
      const report = device.server.health.at(-1)
      expect(report?.blocked).toBe("no_jail")
      expect(report?.degraded.map(conditionLine).join(" ")).toContain("bubblewrap is gone")
    })
  )
})

describe("the watchdog", () => {
  it.effect("hears every loop, and tells the service manager so", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.pass(10 * minute)
      const loops = yield* loopsOf(device)
      expect(loops.map((loop) => loop.loop).sort()).toEqual([
        "health-loop",
        "main-loop",
        "outbox",
        "trust-keeper"
      ])
      expect(loops.every((loop) => !loop.overdue)).toBe(true)
      expect(device.host.alive).toBeGreaterThanOrEqual(38)
    })
  )
  it.effect("starts a silent loop afresh, and the service manager hears nothing meanwhile", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.pass(minute)
      // The disk hangs: a turn never ends.
      device.host.hangs = true
      yield* device.pass(10 * minute)
      const starts = () =>
        device.trace.filter(
          (event) => event.path === "/client/vital/main-loop" && event.outcome === "started"
        ).length
      expect(starts()).toBeGreaterThan(1)
      const alive = device.host.alive
      yield* device.pass(2 * minute)
      expect(device.host.alive).toBe(alive)
      device.host.hangs = false
      yield* device.pass(8 * minute)
      expect(device.host.alive).toBeGreaterThan(alive)
      device.server.submit(1, { script: ["exit:0"] })
      yield* device.until(() => device.server.receipts.length === 1, "the receipt")
    })
  )
})

describe("an optional child that always fails", () => {
  const Protocol = RpcGroup.make(Rpc.make("Never"))
  const doomed = Behaviour.make(Protocol, () => Effect.fail("it never starts"))
  it.effect(
    "leaves the main loop untouched over 24 hours",
    () =>
      Effect.gen(function* () {
        const extras = [ChildSpec.make({ id: "doomed", behaviour: doomed })]
        const device = yield* deviceUnderTest({ extras })
        let submitted = 0
        for (let n = 1; n <= 24; n++) {
          device.server.submit(n, { script: ["exit:0"] })
          submitted++
          yield* device.pass(hour, 15_000)
        }
        expect(device.server.receipts.map((receipt) => receipt.state)).toEqual(
          Array.from({ length: submitted }, () => "succeeded")
        )
        const failures = device.trace.filter(
          (event) => event.path.startsWith("/client/extras") && event.outcome === "start-failed"
        ).length
        expect(failures).toBeGreaterThan(100)
        const lives = device.trace.filter(
          (event) => event.tag === "" && !event.path.startsWith("/client/extras")
        )
        expect(lives.filter((event) => event.outcome !== "started")).toEqual([])
        expect(lives.filter((event) => event.path === "/client/vital/main-loop")).toHaveLength(1)
        const inspection = yield* systemOf(device).inspect()
        const parts = inspection.root.children.map((child) => [
          child.id,
          child.children.map((grandchild) => grandchild.state)
        ])
        expect(parts).toMatchObject([
          ["observers", Array.from({ length: 4 }, () => "running")],
          ["vital", Array.from({ length: 8 }, () => "running")],
          ["extras", ["degraded"]]
        ])
      }),
    60_000
  )
})

describe("the configuration", () => {
  it("has a default for everything but the state folder, and lends nothing", () => {
    expect(configOf()).toMatchObject({
      grants: { devices: [], read_only: [] },
      job_limits: {},
      long_poll_ms: 25_000
    })
  })
})
