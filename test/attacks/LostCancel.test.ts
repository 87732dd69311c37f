/** Freeze of a cancel: once a device has seen one, nothing that fails afterwards may lose it. */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { orderOf, signCancel } from "../actors/support/Parties.ts"
import { deviceUnderTest } from "../actors/support/TestDevice.ts"

describe("a cancel that was seen", () => {
  it.effect("stops its running job even if the ledger failed just after it was kept", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      const order = device.server.submit(1, { script: ["sleep:600000", "exit:0"] })
      yield* device.until(() => device.host.runs.length === 1, "the run")
      let kept = false
      device.tap = (method, moment) => {
        if (method !== "rememberCancel" || moment !== "after") return Effect.void
        kept = true
        device.poison.set("find", 1)
        return Effect.void
      }
      device.server.cancels.push(signCancel(order.id))
      device.server.stir()
      yield* device.until(() => kept, "the cancel")
      yield* device.until(() => device.server.receiptOf(order.id) !== undefined, "the receipt", 300_000)
      expect(device.server.receiptOf(order.id)).toMatchObject({
        state: "canceled",
        reason: "canceled_by_operator"
      })
    })
  )
  it.effect("ends an order that comes later, also after a restart, without a run", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.until(() => device.server.polls.length > 1, "the first polls")
      const order = orderOf(1, { script: ["exit:0"] })
      device.server.cancels.push(signCancel(order.id))
      device.server.stir()
      yield* device.until(
        () => device.server.polls.at(-1)?.cancels_seen.includes(order.id) === true,
        "the cancel"
      )
      yield* device.crash
      yield* device.start
      device.server.submit(1, { script: ["exit:0"] })
      yield* device.until(() => device.server.receiptOf(order.id) !== undefined, "the receipt")
      expect(device.server.receiptOf(order.id)).toMatchObject({ state: "canceled", reason: "canceled" })
      expect(device.host.runs).toHaveLength(0)
    })
  )
})
