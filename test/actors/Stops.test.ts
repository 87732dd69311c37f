/** Orders that are stopped: by an operator, by the server, by their own limits, by the program's end. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { drainClient } from "../../src/programs/clientDrain.ts"
import type { OrderId } from "../../src/schemas/Ids.ts"
import { decodeFrames, firstSequence, type OutputFrame } from "../../src/schemas/OutputFrames.ts"
import { type device as deviceId, orderId, otherDeviceKeys, signCancel, stranger } from "./support/Parties.ts"
import { deviceUnderTest, type TestDevice } from "./support/TestDevice.ts"

const long = { script: ["out:begun", "sleep:600000", "exit:0"] }

const running = (device: TestDevice, count = 1) =>
  device.until(() => device.host.runs.length === count, "the run")

const receiptFor = (device: TestDevice, order: OrderId, limitMs = 60_000) =>
  Effect.as(
    device.until(() => device.server.receiptOf(order) !== undefined, "the receipt", limitMs),
    undefined
  ).pipe(Effect.map(() => device.server.receiptOf(order)))

const cancel = (device: TestDevice, order: OrderId) => {
  device.server.cancels.push(signCancel(order))
  device.server.stir()
}

/** What the server has of an order's output, as text. */
const textOf = (device: TestDevice, order: OrderId): string =>
  [...(device.server.output.get(order)?.values() ?? [])]
    .flatMap((chunk) => decodeFrames(chunk.subarray("sealed:".length)) as ReadonlyArray<OutputFrame>)
    .map((frame) => Buffer.from(frame.bytes).toString())
    .join("")

describe("a cancel", () => {
  it.effect("stops a running job, whose output is kept", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      const order = device.server.submit(1, long)
      yield* running(device)
      yield* device.pass(2_000)
      expect(textOf(device, order.id)).toBe("begun")
      cancel(device, order.id)
      const receipt = yield* receiptFor(device, order.id)
      expect(receipt).toMatchObject({ state: "canceled", reason: "canceled_by_operator", attempts: 1 })
      expect(receipt?.output).toMatchObject({ chunks: 1, stdout_bytes: 5, kept_bytes: 5, truncated: false })
      expect(device.host.runs[0]?.endedAtMs).not.toBeNull()
      expect(device.host.files.size).toBe(0)
    })
  )
  it.effect("kills a job that ignores it, after its grace", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      const order = device.server.submit(1, {
        script: ["stubborn", "sleep:600000"],
        limits: { grace_ms: 4_000 }
      })
      yield* running(device)
      cancel(device, order.id)
      const receipt = yield* receiptFor(device, order.id)
      expect(receipt).toMatchObject({ state: "canceled", reason: "canceled_by_operator" })
      expect(receipt?.usage?.wall_ms).toBeGreaterThanOrEqual(4_000)
    })
  )
  it.effect("ends a download", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.blockMs = 5_000
      const order = device.server.submit(1, long)
      yield* device.until(() => (device.host.files.get(order.id)?.length ?? 0) > 0, "the first block")
      cancel(device, order.id)
      expect(yield* receiptFor(device, order.id)).toMatchObject({
        state: "canceled",
        reason: "canceled",
        attempts: 0
      })
      expect(device.host.runs).toHaveLength(0)
      expect(device.host.files.size).toBe(0)
    })
  )
  it.effect("reaches an order that waits its turn", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.submit(1, { script: ["sleep:30000", "exit:0"] })
      const second = device.server.submit(2, long)
      yield* running(device)
      cancel(device, second.id)
      expect(yield* receiptFor(device, second.id)).toMatchObject({ state: "canceled", reason: "canceled" })
      expect(device.server.receiptOf(orderId(1))).toMatchObject({ state: "succeeded" })
      expect(device.host.runs).toHaveLength(1)
    })
  )
  it.effect("of a stranger, or for another device, changes nothing", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      const order = device.server.submit(1, { script: ["sleep:30000", "exit:0"] })
      yield* running(device)
      device.server.cancels.push(
        signCancel(order.id, {}, stranger),
        signCancel(order.id, { device: otherDeviceKeys.id as typeof deviceId }),
        signCancel(order.id, { expires_at_ms: 1 })
      )
      device.server.stir()
      expect(yield* receiptFor(device, order.id)).toMatchObject({ state: "succeeded" })
    })
  )
  it.effect("that came before a crash still holds after it", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      const order = device.server.submit(1, { ...long, idempotent: true })
      yield* running(device)
      device.tap = (method, moment) =>
        method === "rememberCancel" && moment === "after"
          ? Effect.andThen(
              Effect.sync(() => (crashed = true)),
              Effect.never
            )
          : Effect.void
      let crashed = false
      cancel(device, order.id)
      yield* device.until(() => crashed, "the moment of the crash")
      yield* device.crash
      device.tap = () => Effect.void
      yield* device.start
      expect(yield* receiptFor(device, order.id)).toMatchObject({
        state: "canceled",
        reason: "canceled_by_operator"
      })
      expect(device.host.runs).toHaveLength(1)
    })
  )
})

describe("a stop by the server alone", () => {
  it.effect("stops a running job and says whose wish it was", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      const order = device.server.submit(1, long)
      yield* running(device)
      device.server.stops.push(order.id)
      expect(yield* receiptFor(device, order.id)).toMatchObject({
        state: "canceled",
        reason: "stopped_by_server"
      })
    })
  )
  it.effect("reaches an order that waits its turn", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.submit(1, { script: ["sleep:60000", "exit:0"] })
      const second = device.server.submit(2, long)
      yield* running(device)
      device.server.stops.push(second.id)
      expect(yield* receiptFor(device, second.id, 120_000)).toMatchObject({
        state: "canceled",
        reason: "stopped_by_server",
        attempts: 0
      })
      expect(device.host.runs).toHaveLength(1)
    })
  )
})

describe("a job's own limits", () => {
  it.effect("end it at its time-out", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      const order = device.server.submit(1, { ...long, limits: { timeout_ms: 5_000 } })
      expect(yield* receiptFor(device, order.id)).toMatchObject({
        state: "timed_out",
        reason: "timed_out",
        exit_code: null
      })
    })
  )
  it.effect("cut a flood of output, mark it, and let the job go on", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      const order = device.server.submit(1, {
        script: ["flood:1000000", "exit:0"],
        limits: { output_bytes: 300_000 }
      })
      const receipt = yield* receiptFor(device, order.id)
      expect(receipt).toMatchObject({ state: "succeeded", exit_code: 0 })
      expect(receipt?.output).toMatchObject({ stdout_bytes: 1_000_000, kept_bytes: 300_000, truncated: true })
      expect(device.server.output.get(order.id)?.size).toBe(receipt?.output?.chunks)
    })
  )
  it.effect("are told by code, signal and artifacts", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      const plans = [
        [["exit:3"], [], { state: "failed", reason: "exit_code", exit_code: 3 }],
        [["signal:SIGSEGV"], [], { state: "failed", reason: "signal", signal: "SIGSEGV" }],
        [["broken"], [], { state: "failed", reason: "jail_failed" }],
        [
          ["leave:a:5"],
          ["a", "b"],
          { state: "failed", reason: "artifact_missing", detail: "b", exit_code: 0 }
        ],
        [["leave-bad:socket"], [], { state: "failed", reason: "artifact_refused" }],
        [
          ["leave:a:5", "exit:0"],
          ["a"],
          { state: "succeeded", reason: null, artifacts: { entries: 1, unpacked_bytes: 5 } }
        ]
      ] as const
      for (const [index, [script, artifacts, expected]] of plans.entries()) {
        const order = device.server.submit(index + 1, { script, artifacts })
        expect(yield* receiptFor(device, order.id)).toMatchObject(expected)
      }
      expect(device.server.artifacts.size).toBe(2)
      expect(device.host.spool.size).toBe(0)
    })
  )
})

describe("a service request", () => {
  it.effect("runs while a job runs", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      const job = device.server.submit(1, { script: ["sleep:60000", "exit:0"] })
      yield* running(device)
      const service = device.server.submit(2, { script: ["out:pong"] }, { lane: "service" })
      expect(yield* receiptFor(device, service.id, 10_000)).toMatchObject({ state: "succeeded", number: 1 })
      expect(device.server.receiptOf(job.id)).toBeUndefined()
      expect(yield* receiptFor(device, job.id, 120_000)).toMatchObject({ state: "succeeded", number: 2 })
    })
  )
})

describe("the program's own end", () => {
  const drainAndStop = (device: TestDevice) =>
    Effect.gen(function* () {
      const draining = yield* Effect.forkChild(drainClient(device.system as never))
      yield* device.until(() => draining.pollUnsafe() !== undefined, "the end of the drain", 5_000, 100)
      yield* Fiber.join(draining)
      yield* device.stop
    })
  it.effect("kills a running job, whose receipt says so after the restart", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      const order = device.server.submit(1, { script: ["stubborn", "out:x", "sleep:600000"] })
      yield* running(device)
      device.server.online = false
      yield* drainAndStop(device)
      expect(device.host.runs[0]?.endedAtMs).not.toBeNull()
      device.server.online = true
      yield* device.start
      expect(yield* receiptFor(device, order.id)).toMatchObject({
        state: "interrupted",
        reason: "device_stopped",
        attempts: 1
      })
    })
  )
  it.effect("puts an idempotent one back, which is run again with output of its own", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      const order = device.server.submit(1, { script: ["out:x", "sleep:20000", "exit:0"], idempotent: true })
      yield* running(device)
      yield* device.pass(2_000)
      yield* drainAndStop(device)
      yield* device.start
      const receipt = yield* receiptFor(device, order.id)
      expect(receipt).toMatchObject({ state: "succeeded", attempts: 2, output: { chunks: 1 } })
      expect([...(device.server.output.get(order.id)?.keys() ?? [])]).toEqual([0, firstSequence(2)])
    })
  )
  it.effect("keeps what it was downloading", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.blockMs = 2_000
      const order = device.server.submit(1, { script: ["exit:0"] })
      yield* device.until(() => (device.host.files.get(order.id)?.length ?? 0) >= 2_000, "two blocks")
      yield* drainAndStop(device)
      expect(device.host.files.get(order.id)?.length).toBeGreaterThanOrEqual(2_000)
      yield* device.start
      expect(yield* receiptFor(device, order.id)).toMatchObject({ state: "succeeded" })
    })
  )
})
