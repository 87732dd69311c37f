import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { utf8 } from "../../../src/crypto/Bytes.ts"
import { TestKit } from "../../../src/kernel/testing/TestKit.ts"
import type { DeviceId } from "../../../src/schemas/Ids.ts"
import {
  accept,
  acceptedFleet,
  admission,
  exchange,
  octetsOf,
  pollBody,
  rootedFleet,
  type Sending,
  send,
  signedRequest,
  submit
} from "../../support/fleet.ts"
import { healthReport } from "../../support/health.ts"
import { device, nowMs, otherDevice, signedReceipt, trust } from "../../support/operators.ts"

const poll = (changes: Parameters<typeof pollBody>[0] = {}): Sending => ({ body: pollBody(changes) })

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
        const parts = [
          ["bytes=4-6", 206, "bytes 4-6/9", "oad"],
          ["bytes=0-2", 206, "bytes 0-2/9", "pay"],
          ["bytes=6-99", 206, "bytes 6-8/9", "d 1"],
          ["bytes=0-8", 200, undefined, "payload 1"],
          ["bytes=6-4", 200, undefined, "payload 1"]
        ] as const
        for (const [range, status, contentRange, text] of parts) {
          const part = yield* fleet.device(signedRequest(nowMs + 10_000, "GET", path, { range }))
          assert.deepStrictEqual([part.status, part.headers["content-range"]], [status, contentRange], range)
          assert.deepStrictEqual(yield* octetsOf(part), utf8(text))
        }
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

describe("beside the orders", () => {
  const report = healthReport({ at_ms: nowMs })

  it.effect("health is recorded, once for each time it speaks of", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      yield* send(fleet, "POST", "/health", { body: report })
      yield* send(fleet, "POST", "/health", { body: report })
      yield* send(fleet, "POST", "/health", { body: { ...report, at_ms: nowMs + 1 } })
      yield* TestKit.settle
      assert.deepStrictEqual(yield* fleet.store.health(device.id as DeviceId, 10), [
        { ...report, at_ms: nowMs + 1 },
        report
      ])
    })
  )

  it.effect(
    "a store that fails is told as overloaded, signed, and the next request finds it well again",
    () =>
      Effect.gen(function* () {
        const fleet = yield* acceptedFleet
        const order = yield* submit(fleet, 1)
        fleet.disk.fleet.exec("ALTER TABLE jobs RENAME TO elsewhere")
        const failed = yield* send(fleet, "POST", "/poll", poll())
        assert.deepStrictEqual([failed.code, failed.status, failed.signed], ["overloaded", 503, true])
        assert.isDefined(failed.headers["retry-after"])
        const receipts = { body: { receipts: [signedReceipt(1, null, order).envelope] } }
        assert.strictEqual((yield* send(fleet, "POST", "/receipts", receipts)).code, "overloaded")
        fleet.disk.fleet.exec("ALTER TABLE elsewhere RENAME TO jobs")
        assert.deepInclude((yield* send(fleet, "POST", "/poll", poll())).json, { orders: [order.envelope] })
        assert.strictEqual((yield* send(fleet, "POST", "/receipts", receipts)).status, 200)
      })
  )

  it.effect("word of a revocation that got lost is found out within a minute", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      assert.deepInclude((yield* send(fleet, "POST", "/poll", poll())).json, { objection: null })
      const { decision, envelope } = admission(nowMs, { decision: "revoke", sequence: 2 })
      yield* fleet.store.admit(decision, envelope, "alice", nowMs)
      yield* TestClock.adjust("1 minute")
      assert.deepInclude((yield* send(fleet, "POST", "/poll", poll())).json, {
        objection: "not_enrolled",
        admission: envelope
      })
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

describe("what everybody asks", () => {
  it.effect("has a tag, and is 304 for who has it already, until there is another root", () =>
    Effect.gen(function* () {
      const fleet = yield* rootedFleet
      const ask = (path: string, query: string, tag: string) =>
        exchange(fleet.device, {
          method: "GET",
          authority: "127.0.0.1:8470",
          path: `/api/device/v1${path}`,
          query,
          headers: { "if-none-match": tag },
          body: new Uint8Array(0)
        })
      for (const [path, query] of [
        ["/roots", "?from=1"],
        ["/identity", ""]
      ] as const) {
        const first = yield* ask(path, query, "")
        const tag = first.headers["etag"] ?? "none"
        assert.strictEqual(first.status, 200)
        const again = yield* ask(path, query, tag)
        assert.deepStrictEqual([again.status, again.octets.length], [304, 0])
      }
      assert.strictEqual((yield* ask("/roots", "?from=2", '"other"')).status, 200)
    })
  )
})
