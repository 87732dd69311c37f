/** Defects inside the program: an actor dies, its supervisor starts it again, and the ledger says where to go on. */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { LaneKeys } from "../../src/actors/ClientKeys.ts"
import { orderId } from "./support/Parties.ts"
import { deviceUnderTest } from "./support/TestDevice.ts"

const plan = { script: ["out:hello", "sleep:5000", "leave:result:10", "exit:0"], artifacts: ["result"] }
const minute = 60_000

describe("a defect", () => {
  it.effect.each([
    "unfinished",
    "find",
    "highWater",
    "accept",
    "concluded",
    "chainHead",
    "advance",
    "isCanceled",
    "outboxSize",
    "putOutput",
    "conclude",
    "outbox",
    "acknowledge",
    "cancels",
    "counts"
  ])("in the ledger's %s costs a life at the most, never an order", (method) =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.until(() => device.server.polls.length > 0, "the first poll")
      device.poison.set(method, 1)
      device.server.submit(1, plan)
      device.server.submit(2, plan)
      yield* device.until(() => device.server.receipts.length === 2, "both receipts", 10 * minute)
      expect(device.poison.get(method)).toBe(0)
      for (const n of [1, 2]) {
        const runs = device.host.runs.filter((run) => run.order === orderId(n)).length
        expect(runs).toBe(1)
        expect(["succeeded", "interrupted"]).toContain(device.server.receiptOf(orderId(n))?.state)
      }
      const ended = device.trace.filter(
        (event) => event.outcome === "gave-up" || event.outcome === "degraded"
      )
      expect(ended).toEqual([])
    })
  )
  it.effect("that comes back every time is given up on, and the next order gets its turn", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.host.storageFailures = 1_000_000
      const poor = device.server.submit(1, plan)
      yield* device.until(
        () => device.server.receiptOf(poor.id) !== undefined,
        "the receipt",
        60 * minute,
        1_000
      )
      expect(device.server.receiptOf(poor.id)).toMatchObject({ state: "rejected", reason: "disk_low" })
      device.host.storageFailures = 0
      const rich = device.server.submit(2, plan)
      yield* device.until(() => device.server.receiptOf(rich.id) !== undefined, "the next receipt")
      expect(device.server.receiptOf(rich.id)).toMatchObject({ state: "succeeded" })
    })
  )
})

describe("a lane that dies after packing artifacts, before the receipt", () => {
  it.effect("leaves nothing in the spool", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      const { spool } = device.host
      const put = spool.set.bind(spool)
      spool.set = (path, bytes) => {
        spool.set = put
        const lanes = device.system as NonNullable<typeof device.system>
        Effect.runSync(lanes.restart(LaneKeys.job, "the test ends this life"))
        return put(path, bytes)
      }
      const order = device.server.submit(1, plan)
      yield* device.until(() => device.server.receiptOf(order.id) !== undefined, "the receipt")
      expect(device.server.receiptOf(order.id)).toMatchObject({ state: "interrupted", artifacts: null })
      expect([...spool.keys()]).toEqual([])
    })
  )
})

describe("a disk that fails for a while", () => {
  it.effect.each([1, 2, 3])("delays an order (%i failures), and does not end it", (failures) =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.host.storageFailures = failures
      const order = device.server.submit(1, { script: ["exit:0"] })
      yield* device.until(() => device.server.receiptOf(order.id) !== undefined, "the receipt")
      expect(device.server.receiptOf(order.id)).toMatchObject({ state: "succeeded", attempts: 1 })
    })
  )
})
