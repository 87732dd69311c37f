import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { deviceUnderTest } from "./support/TestDevice.ts"

describe("a device", () => {
  it.effect("enrols, takes an order, runs it and returns a receipt with its output", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      const order = device.server.submit(1, {
        script: ["out:hello", "leave:result.csv:10", "exit:0"],
        artifacts: ["result.csv"]
      })
      yield* device.until(() => device.server.receipts.length === 1, "the receipt")
      expect(device.server.receiptOf(order.id)).toMatchObject({
        state: "succeeded",
        number: 1,
        exit_code: 0,
        attempts: 1
      })
      expect(device.host.runs).toHaveLength(1)
    })
  )
})
