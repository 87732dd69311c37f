/** A device that is turned away is turned away at once: held polls, downloads, what waits for it, its name. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import { RegistrarKey } from "../../src/actors/ServerKeys.ts"
import type { StreamedBody } from "../../src/adapters/http/Exchange.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import type { PollAnswer } from "../../src/schemas/DeviceApi.ts"
import type { DeviceId, Name } from "../../src/schemas/Ids.ts"
import {
  accept,
  acceptedFleet,
  admission,
  type Fleet,
  pollBody,
  putPayload,
  send,
  signedRequest,
  submit
} from "../support/fleet.ts"
import { device, otherDevice } from "../support/operators.ts"

const id = device.id as DeviceId

const revoke = Effect.fnUntraced(function* (fleet: Fleet) {
  const { envelope } = admission(yield* Clock.currentTimeMillis, { decision: "revoke", sequence: 2 })
  yield* fleet.system.ref(RegistrarKey).ask("Admit", { device: id, envelope, actor: "alice" })
  return envelope
})

describe("revoking a device", () => {
  it.effect("answers the poll it holds open at once, with the operator's word", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const held = yield* Effect.forkChild(
        send(fleet, "POST", "/poll", { body: pollBody({ wait_ms: 60_000 }) })
      )
      yield* TestKit.settle
      const envelope = yield* revoke(fleet)
      // No time passes.
      const answer = (yield* Fiber.join(held)).json as PollAnswer
      assert.deepStrictEqual([answer.objection, answer.admission], ["not_enrolled", envelope])
    })
  )
  it.effect("refuses everything else from that moment on, by a code of its own", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const { order } = yield* submit(fleet, 1)
      yield* revoke(fleet)
      for (const [method, path] of [
        ["GET", `/payloads/${order.payload.digest}`],
        ["PUT", `/orders/${order.id}/output/0`]
      ] as const) {
        const octets = method === "PUT" ? new Uint8Array(100) : new Uint8Array(0)
        const reply = yield* send(fleet, method, path, { octets })
        assert.deepStrictEqual([reply.status, reply.code, reply.signed], [403, "revoked", true], path)
      }
      const poll = yield* send(fleet, "POST", "/poll", { body: pollBody() })
      assert.deepInclude(poll.json, { orders: [], objection: "not_enrolled" })
    })
  )
  it.effect("cuts off a download that runs", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const payload = yield* putPayload(fleet, new Uint8Array(4 * 1024 * 1024))
      yield* submit(fleet, 1, { payload })
      const nowMs = yield* Clock.currentTimeMillis
      const response = yield* fleet.device(
        signedRequest(nowMs, "GET", `/payloads/${payload.digest}`, { octets: new Uint8Array(0) })
      )
      assert.strictEqual(response.status, 200)
      let receivedBytes = 0
      const { bytes, lengthBytes } = response.body as StreamedBody
      const rest = yield* Effect.result(
        Stream.runForEach(bytes, (part) => {
          receivedBytes += part.length
          return receivedBytes === part.length ? Effect.asVoid(revoke(fleet)) : Effect.void
        })
      )
      assert.strictEqual(rest._tag, "Failure")
      assert.isBelow(receivedBytes, lengthBytes)
    })
  )
  it.effect("removes what waits for it, and frees its name", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const { order } = yield* submit(fleet, 1)
      yield* revoke(fleet)
      assert.deepInclude(yield* fleet.store.job(order.id), { state: "removed", reason: "revoked" })
      yield* TestClock.adjust("1 second")
      yield* accept(fleet, otherDevice)
      const row = yield* fleet.store.device(otherDevice.id as DeviceId)
      assert.deepStrictEqual([row?.status, row?.name], ["accepted", "pi-cellar" as Name])
    })
  )
})
