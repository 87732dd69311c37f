import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { RegistrarKey } from "../../../src/actors/ServerKeys.ts"
import { nodeKeyRingFrom } from "../../../src/adapters/NodeKeys.ts"
import { utf8 } from "../../../src/crypto/Bytes.ts"
import { TestKit } from "../../../src/kernel/testing/TestKit.ts"
import { Limits } from "../../../src/schemas/Limits.ts"
import {
  accept,
  acceptedFleet,
  admission,
  atWork,
  enrolment,
  exchange,
  makeDisk,
  pollBody,
  rootedFleet,
  type Sending,
  send,
  signedRequest,
  startFleet
} from "../../support/fleet.ts"
import { device, engine, nowMs, orderId, otherDevice } from "../../support/operators.ts"

const poll = (changes: Parameters<typeof pollBody>[0] = {}): Sending => ({ body: pollBody(changes) })

describe("refusals of the device API", () => {
  const cases: ReadonlyArray<
    readonly [title: string, code: string, status: number, signed: boolean, sending: Sending]
  > = [
    [
      "no signature at all",
      "bad_signature",
      401,
      false,
      { alter: (r) => ({ ...r, headers: { "content-type": "application/json" } }) }
    ],
    [
      "another method than the signed one",
      "bad_signature",
      401,
      true,
      { alter: (r) => ({ ...r, query: "?x=1" }) }
    ],
    ["a body that was changed", "bad_signature", 401, true, { alter: (r) => ({ ...r, body: utf8("{}") }) }],
    [
      "a content digest of another body",
      "bad_signature",
      401,
      true,
      {
        alter: (r) => ({ ...r, headers: { ...r.headers, "content-digest": `sha-256=:${"A".repeat(43)}=:` } })
      }
    ],
    ["another device's key under this id", "bad_signature", 401, true, { by: otherDevice, keyId: device.id }],
    ["a device nobody knows", "unknown_device", 404, true, { by: otherDevice }],
    ["an address that is not in the root", "wrong_authority", 421, true, { authority: "evil.example:8470" }],
    ["a time long past", "clock_skew", 401, true, { createdSeconds: Math.floor(nowMs / 1_000) - 120 }],
    ["a time far ahead", "clock_skew", 401, true, { createdSeconds: Math.floor(nowMs / 1_000) + 120 }],
    ["a body that is no JSON of the shape", "bad_request", 400, true, { body: { hello: "world" } }],
    ["a member nobody knows", "bad_request", 400, true, { body: { ...pollBody(), extra: 1 } }]
  ]
  for (const [title, code, status, signed, sending] of cases) {
    it.effect(`${title}: ${code}`, () =>
      Effect.gen(function* () {
        const fleet = yield* acceptedFleet
        const reply = yield* send(fleet, "POST", "/poll", { ...poll(), ...sending })
        assert.deepStrictEqual([reply.code, reply.status, reply.signed], [code, status, signed])
        const good = yield* send(fleet, "POST", "/poll", poll())
        assert.deepStrictEqual([good.status, good.signed], [200, true])
      })
    )
  }

  it.effect("the same request again: replayed_nonce, and nothing is done twice", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const request = signedRequest(nowMs + 10_000, "POST", "/poll", poll())
      assert.strictEqual((yield* exchange(fleet.device, request)).status, 200)
      const again = yield* exchange(fleet.device, request)
      assert.deepStrictEqual([again.code, again.signed], ["replayed_nonce", true])
    })
  )

  it.effect("a request made before the server started: clock_skew, with the server's time", () =>
    Effect.gen(function* () {
      const disk = yield* makeDisk
      yield* atWork
      const first = yield* startFleet(disk)
      const request = signedRequest(nowMs + 10_000, "POST", "/poll", poll())
      assert.strictEqual((yield* exchange(first.device, request)).code, "unknown_device")
      yield* first.stop
      yield* TestClock.adjust("2 seconds")
      const second = yield* startFleet(disk)
      assert.strictEqual((yield* exchange(second.device, request)).code, "clock_skew")
    })
  )

  it.effect(
    "a body larger than its path takes: too_large, signed, also when the gateway did not read it",
    () =>
      Effect.gen(function* () {
        const fleet = yield* acceptedFleet
        const path = `/orders/${orderId(1)}/output/0`
        const octets = new Uint8Array(Limits.outputChunkEncryptedBytes + 1)
        const reply = yield* send(fleet, "PUT", path, { octets })
        assert.deepStrictEqual([reply.code, reply.status, reply.signed], ["too_large", 413, true])
        const unread = yield* send(fleet, "PUT", path, {
          octets,
          alter: (request) => ({ ...request, body: new Uint8Array(0), oversize: true })
        })
        assert.deepStrictEqual([unread.code, unread.signed], ["too_large", true])
      })
  )

  it.effect("no root yet: no_root; a path nobody knows: not_found", () =>
    Effect.gen(function* () {
      yield* atWork
      const fleet = yield* startFleet(yield* makeDisk)
      const body = enrolment(nowMs).envelope
      assert.strictEqual(
        (yield* send(fleet, "POST", "/enrolment", { body, authority: "anything" })).code,
        "no_root"
      )
      assert.strictEqual((yield* send(fleet, "POST", "/nowhere", poll())).code, "not_found")
    })
  )

  it.effect(
    "waiting, rejected and revoked devices: not_accepted, revoked; a poll tells them the decision",
    () =>
      Effect.gen(function* () {
        const fleet = yield* rootedFleet
        yield* send(fleet, "POST", "/enrolment", { body: enrolment(nowMs).envelope })
        const health = { octets: utf8("{}") }
        assert.strictEqual(
          (yield* send(fleet, "PUT", `/orders/${orderId(1)}/output/0`, health)).code,
          "not_accepted"
        )
        const waiting = yield* send(fleet, "POST", "/poll", poll({ admission_sequence: 0 }))
        assert.deepInclude(waiting.json, { objection: "not_enrolled", admission: null })
        yield* accept(fleet)
        const { envelope } = admission(nowMs, { decision: "revoke", sequence: 2 })
        yield* fleet.system
          .ref(RegistrarKey)
          .ask("Admit", { device: device.id as never, envelope, actor: "alice" })
        assert.strictEqual(
          (yield* send(fleet, "PUT", `/orders/${orderId(1)}/output/0`, health)).code,
          "revoked"
        )
        const told = yield* send(fleet, "POST", "/poll", poll())
        assert.deepInclude(told.json, { objection: "not_enrolled", admission: envelope })
      })
  )

  it.effect("more requests of one device at once than allowed: overloaded, with a time to come back", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const held = yield* Effect.forEach(Array.from({ length: 16 }), () =>
        Effect.forkChild(
          send(
            fleet,
            "POST",
            "/poll",
            poll({ wait_ms: 10_000, incarnation: "b".repeat(26) as never, blocked: "ledger_rolled_back" })
          )
        )
      )
      yield* TestKit.settle
      const running = held.filter((fiber) => fiber.pollUnsafe() === undefined).length
      const more = yield* Effect.forEach(Array.from({ length: 16 }), () =>
        Effect.forkChild(send(fleet, "GET", `/payloads/sha256:${"7".repeat(64)}`))
      )
      const replies = yield* Effect.forEach(more, Fiber.join)
      assert.isAtMost(running, 16)
      assert.isTrue(replies.every((reply) => reply.code === "not_found" || reply.code === "overloaded"))
    })
  )
})

describe("enrolment", () => {
  it.effect("is idempotent, answers with the decision, and refuses documents that do not fit", () =>
    Effect.gen(function* () {
      const fleet = yield* rootedFleet
      const body = enrolment(nowMs).envelope
      const first = yield* send(fleet, "POST", "/enrolment", { body })
      assert.deepStrictEqual(first.json, { status: "pending", admission: null, preauthorisation: null })
      assert.isTrue(first.signed)
      assert.deepStrictEqual((yield* send(fleet, "POST", "/enrolment", { body })).json, first.json)
      yield* accept(fleet)
      const decided = yield* send(fleet, "POST", "/enrolment", { body })
      assert.deepStrictEqual(decided.json, {
        status: "accepted",
        admission: admission(nowMs + 10_000).envelope,
        preauthorisation: null
      })

      const foreign = enrolment(nowMs, device, { root_digest: `sha256:${"0".repeat(64)}` as never }).envelope
      assert.strictEqual((yield* send(fleet, "POST", "/enrolment", { body: foreign })).code, "conflict")
      const elsewhere = enrolment(nowMs, device, { server: `srv_${"a".repeat(52)}` as never }).envelope
      assert.strictEqual((yield* send(fleet, "POST", "/enrolment", { body: elsewhere })).code, "bad_request")
      const stolen = yield* send(fleet, "POST", "/enrolment", { body, by: otherDevice })
      assert.strictEqual(stolen.code, "bad_request")
      const swapped = enrolment(nowMs, device, { recipient: otherDevice.recipient }).envelope
      assert.strictEqual((yield* send(fleet, "POST", "/enrolment", { body: swapped })).code, "bad_request")
    })
  )

  it.effect("an accepted device with another ledger waits for another acceptance", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const body = enrolment(nowMs + 10_000, device, { incarnation: "b".repeat(26) as never }).envelope
      const reply = yield* send(fleet, "POST", "/enrolment", { body })
      assert.deepStrictEqual(reply.json, { status: "pending", admission: null, preauthorisation: null })
    })
  )

  it.effect("strangers are let onto the list at a bounded rate", () =>
    Effect.gen(function* () {
      const fleet = yield* rootedFleet
      const ask = (n: number) => {
        const stranger = nodeKeyRingFrom(engine, "device", new Uint8Array(64).fill(n).fill(1, 32))
        return send(fleet, "POST", "/enrolment", {
          body: enrolment(nowMs + 10_000, stranger).envelope,
          by: stranger
        })
      }
      for (let n = 1; n <= Limits.enrolmentBurst; n++) assert.strictEqual((yield* ask(n)).status, 200)
      const reply = yield* ask(200)
      assert.deepStrictEqual([reply.code, reply.status], ["overloaded", 503])
      assert.isDefined(reply.headers["retry-after"])
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* ask(200)).status, 200)
    })
  )
})
