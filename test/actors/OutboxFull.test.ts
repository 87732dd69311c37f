/** A device whose outbox is full takes no new orders, says so, and recovers. */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { Limits } from "../../src/schemas/Limits.ts"
import { orderId } from "./support/Parties.ts"
import { deviceUnderTest, type TestDevice } from "./support/TestDevice.ts"

/** Fills the outbox to its last place. */
const fill = (device: TestDevice) => {
  const insert = device.database.prepare(
    "INSERT INTO outbox (kind, order_id, sequence, bytes, size_bytes) VALUES ('output', 'filler', ?, x'00', 1)"
  )
  device.database.exec("BEGIN")
  for (let sequence = 0; sequence < Limits.outboxItems; sequence++) insert.run(sequence)
  device.database.exec("COMMIT")
}

/** Makes room, as if the server had taken it all. */
const empty = (device: TestDevice) => {
  device.database.exec("DELETE FROM outbox WHERE order_id = 'filler'")
  delete device.server.refusals.output
}

describe("a full outbox", () => {
  it.effect("is reported with the poll; orders wait at the server until there is room", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.until(() => device.server.polls.length > 0, "the first poll")
      device.server.refusals.output = "overloaded"
      fill(device)
      yield* device.until(
        () => device.server.polls.at(-1)?.blocked === "outbox_full",
        "the poll that says so"
      )
      device.server.submit(1, { script: ["exit:0"] })
      yield* device.pass(60_000)
      expect(device.host.runs).toHaveLength(0)
      empty(device)
      yield* device.until(() => device.server.receipts.length === 1, "the order that waited")
      expect(device.server.receiptOf(orderId(1))).toMatchObject({ state: "succeeded" })
    })
  )
  it.effect("cuts a running job's output and marks it, and the job goes on", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.refusals.output = "overloaded"
      device.server.submit(1, { script: ["out:kept", "sleep:5000", "out:lost", "sleep:5000", "exit:0"] })
      yield* device.until(() => device.host.runs.length === 1, "the run")
      yield* device.pass(2_000)
      fill(device)
      yield* device.pass(20_000)
      empty(device)
      yield* device.until(() => device.server.receipts.length === 1, "the receipt")
      expect(device.server.receiptOf(orderId(1))).toMatchObject({
        state: "succeeded",
        output: { stdout_bytes: 8, kept_bytes: 4, truncated: true, chunks: 1 }
      })
    })
  )
  it.effect("writes no receipts for rubbish, so that rubbish cannot fill it further", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.until(() => device.server.polls.length > 0, "the first poll")
      device.server.refusals.output = "overloaded"
      fill(device)
      yield* device.until(
        () => device.server.polls.at(-1)?.blocked === "outbox_full",
        "the poll that says so"
      )
      device.server.rude = true
      device.server.offer({
        payloadType: "application/vnd.postern.order+json",
        payload: "e30=",
        signatures: []
      })
      yield* device.pass(60_000)
      empty(device)
      yield* device.until(() => device.server.receipts.length === 1, "its receipt, once there is room")
      expect(device.server.receipts[0]).toMatchObject({
        order: null,
        state: "rejected",
        reason: "unknown_key"
      })
    })
  )
  it.effect("refuses an accepted order that it outlives", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      const hour = 3_600_000
      device.server.blockMs = 1_000
      device.server.submit(1, { script: ["exit:0"] }, { expires_at_ms: hour, deadline_at_ms: hour })
      yield* device.until(() => device.host.files.size === 1, "the download")
      device.server.refusals.output = "overloaded"
      fill(device)
      yield* device.pass(hour, 10_000)
      empty(device)
      yield* device.until(() => device.server.receipts.length === 1, "the receipt", hour)
      expect(device.server.receiptOf(orderId(1))).toMatchObject({
        state: "rejected",
        reason: "outbox_full",
        attempts: 0
      })
    })
  )
})
