/** A copied card: two devices, the same down to the last byte, which take turns at one identity. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"
import { RegistrarKey } from "../../src/actors/ServerKeys.ts"
import type { PollAnswer, PollRequest } from "../../src/schemas/DeviceApi.ts"
import type { DeviceId, LifeId } from "../../src/schemas/Ids.ts"
import { acceptedFleet, admission, type Fleet, pollBody, send, submit } from "../support/fleet.ts"
import { device } from "../support/operators.ts"

const id = device.id as DeviceId
const [first, second, third] = ["a", "b", "c"].map((letter) => letter.repeat(26) as LifeId) as [
  LifeId,
  LifeId,
  LifeId
]

/** A poll of a life, ten seconds after whatever was before. */
const poll = Effect.fnUntraced(function* (
  fleet: Fleet,
  life: LifeId,
  turn: number,
  more: { readonly createdSeconds?: number; readonly changes?: Partial<PollRequest> } = {}
) {
  yield* TestClock.adjust("10 seconds")
  const { changes, ...sending } = more
  const reply = yield* send(fleet, "POST", "/poll", {
    body: pollBody({ life, turn, ...changes }),
    ...sending
  })
  return (reply.json as PollAnswer).objection
})

const objection = (fleet: Fleet) => Effect.map(fleet.store.device(id), (row) => row?.objection ?? null)

describe("a cloned card", () => {
  it.effect("is noticed when the life that was left goes on, and both are stopped", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      assert.isNull(yield* poll(fleet, first, 0))
      assert.isNull(yield* poll(fleet, second, 0))
      assert.isNull(yield* poll(fleet, first, 1), "one poll may have been held up on its way")
      assert.strictEqual(yield* poll(fleet, first, 2), "cloned")
      yield* submit(fleet, 1)
      const reply = yield* send(fleet, "POST", "/poll", { body: pollBody({ life: second, turn: 1 }) })
      assert.deepInclude(reply.json, { objection: "cloned", orders: [] })
    })
  )
  it.effect("is noticed again after another acceptance, for as long as both go on", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      for (const [life, turn] of [
        [first, 0],
        [second, 0],
        [first, 1],
        [first, 2]
      ] as const)
        yield* poll(fleet, life, turn)
      const { envelope } = admission(yield* Clock.currentTimeMillis, { sequence: 2 })
      yield* fleet.system.ref(RegistrarKey).ask("Admit", { device: id, envelope, actor: "alice" })
      assert.isNull(yield* objection(fleet))
      const changes = { admission_sequence: 2 }
      for (const turn of [1, 2, 3, 4]) {
        yield* poll(fleet, second, turn, { changes })
        yield* poll(fleet, first, turn + 10, { changes })
      }
      assert.strictEqual(yield* objection(fleet), "cloned")
    })
  )
  it.effect("is noticed by a server that was started again in between", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      yield* poll(fleet, first, 7)
      for (const turn of [1, 2, 3]) {
        yield* poll(fleet, second, turn)
        yield* poll(fleet, first, turn + 10)
      }
      assert.strictEqual(yield* objection(fleet), "cloned")
    })
  )
})

describe("a device that is started again and again", () => {
  it.effect("is no clone of itself", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      for (const life of [first, second, third]) {
        for (const turn of [0, 1, 2]) assert.isNull(yield* poll(fleet, life, turn))
      }
    })
  )
  it.effect("is none either where polls of the life it left come late, or twice, or out of order", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      yield* poll(fleet, first, 0)
      const createdSeconds = Math.floor((yield* Clock.currentTimeMillis) / 1_000) + 1
      yield* poll(fleet, second, 0)
      for (const turn of [3, 1, 2]) {
        const late = yield* send(fleet, "POST", "/poll", {
          body: pollBody({ life: first, turn }),
          createdSeconds
        })
        assert.isNull((late.json as PollAnswer).objection)
      }
      assert.isNull(yield* poll(fleet, first, 2))
      assert.isNull(yield* poll(fleet, first, 2), "the same poll again")
      assert.isNull(yield* poll(fleet, second, 1))
    })
  )
  it.effect("is none where the only poll of the life it left comes after the first of the next one", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const createdSeconds = Math.floor((yield* Clock.currentTimeMillis) / 1_000)
      assert.isNull(yield* poll(fleet, second, 0))
      assert.isNull(yield* poll(fleet, first, 0, { createdSeconds }))
      for (const turn of [1, 2, 3]) assert.isNull(yield* poll(fleet, second, turn))
    })
  )
})
