/** Results on their way out: what the server refuses, loses, or does not acknowledge. */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { OutboxKey } from "../../src/actors/ClientKeys.ts"
import { batches } from "../../src/actors/OutboxRound.ts"
import type { OutboxItem } from "../../src/ports/Ledger.ts"
import { Limits } from "../../src/schemas/Limits.ts"
import { orderId } from "./support/Parties.ts"
import { deviceUnderTest, type TestDevice } from "./support/TestDevice.ts"

const talkative = { script: ["out:hello", "leave:a:10", "exit:0"] }
const minute = 60_000

const statusOf = (device: TestDevice) =>
  Effect.orDie((device.system as NonNullable<TestDevice["system"]>).ref(OutboxKey).ask("Status"))

const waitingIn = (device: TestDevice) =>
  Effect.map(
    Effect.orDie((device.ledger as NonNullable<TestDevice["ledger"]>).outboxSize),
    (size) => size.items
  )

describe("the outbox", () => {
  it.effect("keeps everything while the server is away, and sends it in order afterwards", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.submit(1, { script: ["sleep:30000", ...talkative.script] })
      device.server.submit(2, talkative)
      yield* device.until(() => device.host.runs.length === 1, "the first run")
      device.server.online = false
      yield* device.pass(10 * minute, 5_000)
      expect(device.server.receipts).toHaveLength(0)
      expect(device.host.runs).toHaveLength(1)
      // Output, artifacts and receipt of the first; the second's payload cannot be fetched now.
      expect(yield* waitingIn(device)).toBe(3)
      device.server.online = true
      yield* device.until(() => device.server.receipts.length === 2, "both receipts", 10 * minute)
      expect(device.server.receipts.map((receipt) => receipt.order)).toEqual([orderId(1), orderId(2)])
      expect(yield* waitingIn(device)).toBe(0)
      expect(device.host.spool.size).toBe(0)
    })
  )
  it.effect.each(["conflict", "not_found", "too_large"] as const)(
    "drops output the server will never take (%s), never the receipt",
    (code) =>
      Effect.gen(function* () {
        const device = yield* deviceUnderTest()
        device.server.refusals.output = code
        device.server.refusals.artifacts = code
        const order = device.server.submit(1, talkative)
        yield* device.until(() => device.server.receipts.length === 1, "the receipt")
        expect(device.server.receiptOf(order.id)).toMatchObject({ state: "succeeded", output: { chunks: 1 } })
        yield* device.pass(1_000)
        expect(yield* waitingIn(device)).toBe(0)
        expect(yield* statusOf(device)).toMatchObject({ items: 0, dropped: 2, reached: true })
      })
  )
  it.effect("keeps a receipt the server refuses, and lets the others pass", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.refusals.receipts = "conflict"
      device.server.submit(1, talkative)
      yield* device.until(() => device.server.output.has(orderId(1)), "the output")
      yield* device.pass(5 * minute, 5_000)
      expect(device.server.receipts).toHaveLength(0)
      device.server.submit(2, talkative)
      yield* device.until(() => device.server.output.has(orderId(2)), "the next output")
      delete device.server.refusals.receipts
      yield* device.until(() => device.server.receipts.length === 2, "the receipts", 120 * minute, 10_000)
      yield* device.pass(1_000)
      expect(yield* waitingIn(device)).toBe(0)
    })
  )
  it.effect("forgets a receipt only when its number and digest are named", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.unacknowledged.add(1)
      device.server.submit(1, talkative)
      device.server.submit(2, talkative)
      yield* device.until(() => device.server.receipts.length === 2, "both receipts")
      yield* device.pass(minute)
      expect(yield* waitingIn(device)).toBe(1)
      device.server.unacknowledged.clear()
      yield* device.pass(120 * minute, 10_000)
      expect(yield* waitingIn(device)).toBe(0)
    })
  )
  it.effect("waits as long as an overloaded server asks", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.refusals.output = "overloaded"
      device.server.submit(1, talkative)
      yield* device.pass(minute)
      expect(device.server.receipts).toHaveLength(0)
      delete device.server.refusals.output
      yield* device.until(() => device.server.receipts.length === 1, "the receipt")
      expect(device.server.output.get(orderId(1))?.size).toBe(1)
    })
  )
  it.effect("goes on with artifacts where the server says it is, also after it lost some", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.refusals.artifacts = "overloaded"
      const order = device.server.submit(1, talkative)
      yield* device.until(() => device.host.spool.size === 1, "the artifacts")
      const path = [...device.host.spool.keys()][0] as string
      const whole = device.host.spool.get(path) as Uint8Array
      device.server.artifacts.set(order.id, whole.slice(0, 7))
      delete device.server.refusals.artifacts
      yield* device.until(() => device.server.receipts.length === 1, "the receipt")
      expect(device.server.artifacts.get(order.id)).toEqual(whole)
    })
  )
})

describe("batches", () => {
  const receipt = (id: number): OutboxItem => ({
    kind: "receipt",
    id,
    number: id,
    digest: "" as never,
    envelope: {} as never
  })
  const output = (id: number): OutboxItem => ({
    kind: "output",
    id,
    order: orderId(1),
    sequence: id,
    bytes: new Uint8Array(1)
  })
  it("join neighbouring receipts, up to what a request holds, and nothing else", () => {
    const items = [receipt(1), receipt(2), output(3), output(4), receipt(5)]
    expect(batches(items).map((batch) => batch.map((item) => item.id))).toEqual([[1, 2], [3], [4], [5]])
    const many = Array.from({ length: Limits.receiptsPerRequest + 1 }, (_, index) => receipt(index))
    expect(batches(many).map((batch) => batch.length)).toEqual([Limits.receiptsPerRequest, 1])
    expect(batches([])).toEqual([])
  })
})
