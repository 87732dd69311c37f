/** Endless data, in the shape of orders: a server that offers rubbish, or other devices' orders, without end. */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { Limits } from "../../src/schemas/Limits.ts"
import {
  type device as deviceId,
  orderOf,
  otherDeviceKeys,
  signOrder,
  stranger
} from "../actors/support/Parties.ts"
import { deviceUnderTest, type TestDevice } from "../actors/support/TestDevice.ts"

const good = { script: ["exit:0"] }
const hour = 3_600_000

const rowsOf = (device: TestDevice, table: string): number =>
  Number(device.database.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.["n"])

/** The n-th order that an operator signed for another device. */
const foreign = (n: number) =>
  signOrder(orderOf(n, good, { device: otherDeviceKeys.id as typeof deviceId })).envelope

/** The n-th order by somebody who may not sign any. */
const forged = (n: number) => signOrder(orderOf(n, good), stranger).envelope

describe("endless data", () => {
  it.effect("refused orders do not fill the disk of a device whose receipts nobody takes", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.until(() => device.server.polls.length > 1, "the first polls")
      Object.assign(device.server.refusals, { output: "overloaded", receipts: "overloaded" })
      device.database.exec(`
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${Limits.outboxItems})
        INSERT INTO outbox (kind, order_id, sequence, bytes, size_bytes) SELECT 'output', 'filler', i, x'00', 1 FROM n`)
      device.server.rude = true
      for (let n = 1; n <= 8; n++) device.server.offer(foreign(n))
      yield* device.pass(60_000)
      expect(rowsOf(device, "outbox")).toBe(Limits.outboxItems)
      expect(device.server.polls.at(-1)?.blocked).toBe("outbox_full")
    })
  )
  it.effect.each([
    { what: "orders for other devices", make: foreign },
    { what: "forged orders", make: forged }
  ])("$what lengthen the chain of receipts by so many an hour, and hold up no good one", ({ make }) =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      const good = device.server.submit(100_000, { script: ["exit:0"] })
      const offers = device.server.offers
      for (let second = 0; second < 120; second++) {
        offers.splice(1, offers.length)
        for (let n = 1; n <= 15; n++) offers.push({ envelope: make(second * 15 + n), order: null })
        device.server.stir()
        yield* device.pass(1_000)
      }
      expect(device.server.receiptOf(good.id)).toMatchObject({ state: "succeeded" })
      const first = device.server.receipts.length
      expect(first).toBeGreaterThan(100)
      expect(first).toBeLessThanOrEqual(Limits.refusalsPerHour + 1)
      offers.splice(1, offers.length)
      yield* device.pass(hour, 10_000)
      device.server.offer(make(5_000))
      yield* device.until(() => device.server.receipts.length === first + 1, "a refusal of the next hour")
    })
  )
})
