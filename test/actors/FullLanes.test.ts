import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { laneQueue } from "../../src/actors/OrderIntake.ts"
import { orderId } from "./support/Parties.ts"
import { deviceUnderTest } from "./support/TestDevice.ts"

describe("a server that offers more than there is room for", () => {
  it.effect("fills no ledger: what is above the bound stays with it, and is run later", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.deaf = true
      const last = laneQueue + 3
      device.server.submit(1, { script: ["sleep:20000", "exit:0"] })
      for (let n = 2; n <= last; n++) device.server.submit(n, { script: ["exit:0"] })
      yield* device.pass(10_000)
      const ledger = device.ledger as NonNullable<typeof device.ledger>
      expect(yield* ledger.unfinished()).toHaveLength(laneQueue)
      yield* device.until(() => device.server.receiptOf(orderId(last)) !== undefined, "the last order")
      expect(device.server.receipts.map(({ state }) => state)).toEqual(
        Array.from({ length: last }, () => "succeeded")
      )
    })
  )
})
