/** A device's actor lives while it is needed; its state outlives it in the store. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { DeviceKey } from "../../src/actors/ServerKeys.ts"
import type { DeviceId } from "../../src/schemas/Ids.ts"
import { accept, acceptedFleet, type Fleet, pollBody, send, submit } from "../support/fleet.ts"
import { device, otherDevice } from "../support/operators.ts"

/** How many devices' actors there are now. */
const awake = (fleet: Fleet) =>
  Effect.map(fleet.system.inspect(10_000), (inspection) => {
    const found = JSON.stringify(inspection).match(/"path":"[^"]*\/devices\/[^"/]+"/g) ?? []
    return new Set(found).size
  })

describe("the actors of devices", () => {
  it.effect("go to sleep when idle, and are there again with all they knew at the next message", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      yield* accept(fleet, otherDevice, "second")
      const order = yield* submit(fleet, 1)
      yield* send(fleet, "POST", "/poll", { body: pollBody() })
      yield* send(fleet, "POST", "/poll", { body: pollBody(), by: otherDevice })
      assert.strictEqual(yield* awake(fleet), 2)
      yield* TestClock.adjust("6 minutes")
      yield* send(fleet, "POST", "/poll", { body: pollBody(), by: otherDevice })
      // It is looked at every five minutes; one that did nothing in between goes.
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual(yield* awake(fleet), 1)
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(yield* awake(fleet), 0)
      const polled = yield* send(fleet, "POST", "/poll", { body: pollBody() })
      assert.deepInclude(polled.json, { orders: [order.envelope] })
      assert.strictEqual(yield* awake(fleet), 1)
    })
  )

  it.effect("one that holds a poll is not put to sleep under it", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      for (let round = 0; round < 8; round++) {
        const held = yield* Effect.forkChild(
          send(fleet, "POST", "/poll", { body: pollBody({ wait_ms: 60_000 }) })
        )
        yield* TestClock.adjust("61 seconds")
        assert.strictEqual(held.pollUnsafe()?._tag, "Success")
      }
      const standing = yield* fleet.system.refOf(DeviceKey, device.id as DeviceId).ask("Standing")
      assert.strictEqual(standing, "accepted")
      assert.strictEqual(yield* awake(fleet), 1)
    })
  )
})
