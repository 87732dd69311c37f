import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { RegistrarKey } from "../../../src/actors/ServerKeys.ts"
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
  octetsOf,
  pollBody,
  rootedFleet,
  type Sending,
  send,
  signedRequest,
  startFleet,
  submit
} from "../../support/fleet.ts"
import { device, nowMs, orderId, otherDevice, signedReceipt, trust } from "../../support/operators.ts"

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
      assert.deepStrictEqual(first.json, { status: "pending", admission: null })
      assert.isTrue(first.signed)
      assert.deepStrictEqual((yield* send(fleet, "POST", "/enrolment", { body })).json, first.json)
      yield* accept(fleet)
      const decided = yield* send(fleet, "POST", "/enrolment", { body })
      assert.deepStrictEqual(decided.json, {
        status: "accepted",
        admission: admission(nowMs + 10_000).envelope
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
      assert.deepStrictEqual(reply.json, { status: "pending", admission: null })
    })
  )

  it.effect("strangers are bounded", () =>
    Effect.gen(function* () {
      const fleet = yield* rootedFleet
      fleet.disk.fleet.exec(`
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${Limits.pendingEnrolments})
        INSERT INTO devices (device, status, enrolment, request, requested_at_ms, enrolled_at_ms, asked_at_ms)
        SELECT 'dev_' || i, 'pending', '{}', '{}', 0, ${nowMs}, ${nowMs} FROM n`)
      const reply = yield* send(fleet, "POST", "/enrolment", { body: enrolment(nowMs).envelope })
      assert.deepStrictEqual([reply.code, reply.status], ["overloaded", 503])
      assert.isDefined(reply.headers["retry-after"])
      yield* TestClock.adjust("25 hours")
      const later = yield* send(fleet, "POST", "/enrolment", { body: enrolment(nowMs).envelope })
      assert.deepStrictEqual(later.json, { status: "pending", admission: null })
    })
  )
})

describe("polls", () => {
  it.effect("hand out orders in their places, once the device asks, and not what it has", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const [first, second] = [yield* submit(fleet, 1), yield* submit(fleet, 2, { lane: "service" })]
      const both = yield* send(fleet, "POST", "/poll", poll())
      assert.deepInclude(both.json, { orders: [first.envelope, second.envelope], objection: null })
      const mark = { root_version: 1, counter: 1, order_digest: first.digest }
      const rest = yield* send(fleet, "POST", "/poll", poll({ high_water: mark }))
      assert.deepInclude(rest.json, { orders: [second.envelope] })
      const blocked = yield* send(fleet, "POST", "/poll", poll({ high_water: mark, blocked: "disk_low" }))
      assert.deepInclude(blocked.json, { orders: [] })
    })
  )

  it.effect("a job before a wanted service request comes along; jobs behind it wait for their lane", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const orders = [
        yield* submit(fleet, 1),
        yield* submit(fleet, 2, { lane: "service" }),
        yield* submit(fleet, 3)
      ]
      const reply = yield* send(fleet, "POST", "/poll", poll({ free_lanes: ["service"] }))
      assert.deepInclude(reply.json, { orders: orders.slice(0, 2).map((order) => order.envelope) })
    })
  )

  it.effect("a held poll is answered by a submission, at once", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const held = yield* Effect.forkChild(send(fleet, "POST", "/poll", poll({ wait_ms: 30_000 })))
      yield* TestKit.settle
      assert.isUndefined(held.pollUnsafe())
      const { envelope } = yield* submit(fleet, 1)
      const reply = yield* Fiber.join(held)
      assert.deepInclude(reply.json, { orders: [envelope] })
      assert.isTrue(reply.signed)
    })
  )

  it.effect("a held poll ends empty when its time is over, and when the API stops", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const held = yield* Effect.forkChild(send(fleet, "POST", "/poll", poll({ wait_ms: 30_000 })))
      yield* TestKit.settle
      yield* TestClock.adjust("29 seconds")
      assert.isUndefined(held.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.deepInclude((yield* Fiber.join(held)).json, { orders: [], sleep_ms: 0 })
      const last = yield* Effect.forkChild(send(fleet, "POST", "/poll", poll({ wait_ms: 30_000 })))
      yield* TestKit.settle
      yield* fleet.stopApi
      assert.strictEqual((yield* Fiber.join(last)).status, 200)
    })
  )

  it.effect("a newer poll lets the older one go; a given-up one leaves nothing behind", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const older = yield* Effect.forkChild(send(fleet, "POST", "/poll", poll({ wait_ms: 30_000 })))
      yield* TestKit.settle
      const newer = yield* Effect.forkChild(send(fleet, "POST", "/poll", poll({ wait_ms: 30_000 })))
      assert.deepInclude((yield* Fiber.join(older)).json, { orders: [] })
      yield* Fiber.interrupt(newer)
      const { envelope } = yield* submit(fleet, 1)
      assert.deepInclude((yield* send(fleet, "POST", "/poll", poll())).json, { orders: [envelope] })
    })
  )

  it.effect("an order that was said a moment ago is not said again to a held poll before five seconds", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      yield* submit(fleet, 1)
      yield* send(fleet, "POST", "/poll", poll({ wait_ms: 30_000 }))
      const held = yield* Effect.forkChild(send(fleet, "POST", "/poll", poll({ wait_ms: 30_000 })))
      yield* TestKit.settle
      yield* TestClock.adjust("4 seconds")
      assert.isUndefined(held.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.strictEqual(((yield* Fiber.join(held)).json as { orders: Array<unknown> }).orders.length, 1)
    })
  )
})

describe("payloads and results", () => {
  it.effect(
    "a payload comes whole or from an offset, to the device of its order, while the order is open",
    () =>
      Effect.gen(function* () {
        const fleet = yield* acceptedFleet
        yield* accept(fleet, otherDevice, "other")
        const order = yield* submit(fleet, 1)
        const path = `/payloads/${order.order.payload.digest}`
        const whole = yield* send(fleet, "GET", path)
        assert.deepStrictEqual([whole.status, whole.octets, whole.signed], [200, utf8("payload 1"), true])
        const request = signedRequest(nowMs + 10_000, "GET", path, { range: "bytes=4-" })
        const response = yield* fleet.device(request)
        assert.strictEqual(response.status, 206)
        assert.strictEqual(response.headers["content-range"], "bytes 4-8/9")
        assert.deepStrictEqual(yield* octetsOf(response), utf8("oad 1"))
        assert.strictEqual((yield* send(fleet, "GET", path, { by: otherDevice })).code, "not_found")
        const receipt = signedReceipt(1, null, order)
        yield* send(fleet, "POST", "/receipts", { body: { receipts: [receipt.envelope] } })
        assert.strictEqual((yield* send(fleet, "GET", path)).code, "gone")
      })
  )

  it.effect("output, artifacts, progress and receipts of one order, each come twice, count once", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const order = yield* submit(fleet, 1)
      const { id } = order.order
      const event = {
        order: id,
        state: "running",
        version: 3,
        at_ms: nowMs,
        done_bytes: null,
        total_bytes: null
      } as const
      const receipt = signedReceipt(1, null, order)
      const twice = Effect.fnUntraced(function* (method: string, path: string, sending: Sending) {
        const first = yield* send(fleet, method, path, sending)
        assert.strictEqual(first.status, 200, `${path}: ${JSON.stringify(first.json)}`)
        assert.deepStrictEqual((yield* send(fleet, method, path, sending)).json, first.json)
        return first.json
      })
      yield* twice("POST", "/progress", { body: { events: [event] } })
      assert.strictEqual((yield* fleet.store.job(id))?.state, "running")
      yield* twice("PUT", `/orders/${id}/output/0`, { octets: utf8("ciphertext") })
      const other = yield* send(fleet, "PUT", `/orders/${id}/output/0`, { octets: utf8("something else") })
      assert.strictEqual(other.code, "conflict")
      const block = { octets: utf8("artifacts"), query: "?offset=0&total=9" }
      assert.deepStrictEqual(yield* twice("PUT", `/orders/${id}/artifacts`, block), { received_bytes: 9 })
      const acknowledged = { acknowledged: [{ number: 1, digest: receipt.digest }] }
      assert.deepStrictEqual(
        yield* twice("POST", "/receipts", { body: { receipts: [receipt.envelope] } }),
        acknowledged
      )
      const job = yield* fleet.store.job(id)
      assert.deepInclude(job, {
        state: "succeeded",
        outputChunks: 1,
        artifactBytes: 9,
        receiptDigest: receipt.digest
      })
      const late = { ...event, state: "downloading", version: 9 } as const
      yield* send(fleet, "POST", "/progress", { body: { events: [late] } })
      assert.strictEqual((yield* fleet.store.job(id))?.state, "succeeded")
    })
  )

  it.effect("what belongs to another device's order is not found, and a stranger's receipt is refused", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      yield* accept(fleet, otherDevice, "other")
      const order = yield* submit(fleet, 1)
      const { id } = order.order
      const by = otherDevice
      assert.strictEqual(
        (yield* send(fleet, "PUT", `/orders/${id}/output/0`, { octets: utf8("x"), by })).code,
        "not_found"
      )
      const artifacts = { octets: utf8("x"), query: "?offset=0&total=1", by }
      assert.strictEqual((yield* send(fleet, "PUT", `/orders/${id}/artifacts`, artifacts)).code, "not_found")
      const forged = signedReceipt(1, null, order, {}, otherDevice)
      const receipts = { body: { receipts: [forged.envelope] } }
      assert.strictEqual((yield* send(fleet, "POST", "/receipts", receipts)).code, "bad_request")
      assert.strictEqual((yield* send(fleet, "POST", "/receipts", { ...receipts, by })).code, "bad_request")
      assert.strictEqual((yield* fleet.store.job(id))?.state, "queued")
    })
  )

  it.effect("artifacts that run ahead are told where to go on", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const { id } = (yield* submit(fleet, 1)).order
      const put = (text: string, offset: number, total: number) =>
        send(fleet, "PUT", `/orders/${id}/artifacts`, {
          octets: utf8(text),
          query: `?offset=${offset}&total=${total}`
        })
      assert.deepStrictEqual((yield* put("abc", 0, 6)).json, { received_bytes: 3 })
      assert.deepStrictEqual((yield* put("f", 5, 6)).json, { received_bytes: 3 })
      assert.strictEqual((yield* put("defg", 3, 6)).code, "conflict")
      assert.deepStrictEqual((yield* put("cdef", 2, 6)).json, { received_bytes: 6 })
    })
  )
})

describe("unsigned questions", () => {
  it.effect("identity and roots", () =>
    Effect.gen(function* () {
      const fleet = yield* rootedFleet
      const ask = (path: string, query = "") =>
        exchange(fleet.device, {
          method: "GET",
          authority: "x",
          path: `/api/device/v1${path}`,
          query,
          headers: {},
          body: new Uint8Array(0)
        })
      assert.deepInclude((yield* ask("/identity")).json, { addresses: ["http://127.0.0.1:8470"] })
      assert.deepStrictEqual((yield* ask("/roots", "?from=1")).json, { roots: [trust.envelope] })
      assert.deepStrictEqual((yield* ask("/roots", "?from=2")).json, { roots: [] })
      assert.strictEqual((yield* ask("/roots", "?from=-1")).status, 404)
    })
  )
})
