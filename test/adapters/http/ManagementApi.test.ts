import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber, Redacted } from "effect"
import { TestClock } from "effect/testing"
import { hashToken } from "../../../src/adapters/http/ManagementAccess.ts"
import { encodeBase64 } from "../../../src/crypto/Base64.ts"
import { utf8 } from "../../../src/crypto/Bytes.ts"
import { digestOf } from "../../../src/crypto/Documents.ts"
import { TestKit } from "../../../src/kernel/testing/TestKit.ts"
import type { Role } from "../../../src/schemas/ManagementApi.ts"
import {
  acceptedFleet,
  admission,
  atWork,
  enrolment,
  exchange,
  type Fleet,
  makeDisk,
  manage,
  pollBody,
  putPayload,
  rootedFleet,
  send,
  startFleet,
  submit
} from "../../support/fleet.ts"
import {
  device,
  engine,
  nowMs,
  orderId,
  otherDevice,
  recovery,
  signAsOperator,
  signedOrder,
  signedReceipt,
  stranger,
  trust
} from "../../support/operators.ts"

const tokenOf = (name: string) => `postern-token-v1.${name.charAt(0).repeat(52)}`

/** Adds a token of each role; the first letter tells them apart. */
const withTokens = (fleet: Fleet) =>
  Effect.gen(function* () {
    for (const role of ["viewer", "operator", "admin"] as const satisfies ReadonlyArray<Role>) {
      const hash = hashToken(engine, Redacted.make(tokenOf(role)))
      yield* fleet.store.addToken(role, role, hash, yield* Clock.currentTimeMillis)
    }
    return fleet
  })

const [viewer, operatorToken, admin] = ["viewer", "operator", "admin"].map(tokenOf) as [
  string,
  string,
  string
]
const base = "/api/management/v1"
const deviceFleet = Effect.flatMap(acceptedFleet, withTokens)

describe("tokens and roles", () => {
  it.effect("no token, a strange one, one of another form: 401", () =>
    Effect.gen(function* () {
      const fleet = yield* deviceFleet
      for (const token of ["", "hello", tokenOf("x"), "a".repeat(100_000)]) {
        assert.strictEqual((yield* manage(fleet, token, "GET", `${base}/status`)).status, 401)
      }
      const bare = {
        method: "GET",
        authority: "x",
        path: `${base}/status`,
        query: "",
        headers: {},
        body: new Uint8Array(0)
      }
      assert.strictEqual((yield* exchange(fleet.management, bare)).status, 401)
    })
  )

  it.effect("OpenAPI stands at /openapi.json, for everyone", () =>
    Effect.gen(function* () {
      const fleet = yield* rootedFleet
      const path = "/openapi.json"
      const reply = yield* exchange(fleet.management, {
        method: "GET",
        authority: "x",
        path,
        query: "",
        headers: {},
        body: new Uint8Array(0)
      })
      assert.strictEqual(reply.status, 200)
      assert.property((reply.json as { paths: object }).paths, "/api/management/v1/jobs")
    })
  )
})

describe("roots", () => {
  it.effect("publishes its own, once, and refuses foreign ones", () =>
    Effect.gen(function* () {
      yield* atWork
      const fleet = yield* withTokens(yield* startFleet(yield* makeDisk))
      const publish = (envelope: unknown) => manage(fleet, admin, "POST", `${base}/roots`, envelope)
      const { root } = trust
      const foreign = signAsOperator("root", {
        ...root,
        servers: [{ ...root.servers[0], id: `srv_${"a".repeat(52)}` }]
      })
      assert.deepStrictEqual(
        [(yield* publish(foreign.envelope)).status, (yield* publish(signedOrder(1).envelope)).status],
        [422, 422]
      )
      assert.strictEqual((yield* publish(trust.envelope)).status, 200)
      assert.strictEqual((yield* publish(trust.envelope)).status, 200)
      const other = signAsOperator("root", { ...root, issued_at_ms: root.issued_at_ms + 1 })
      assert.deepInclude((yield* publish(other.envelope)).json, { code: "root_conflict" })
      const second = { ...root, version: 2 }
      assert.strictEqual((yield* publish(signAsOperator("root", second, stranger).envelope)).status, 422)
      assert.strictEqual((yield* publish(signAsOperator("root", second, recovery).envelope)).status, 200)
      const status = yield* manage(fleet, viewer, "GET", `${base}/status`)
      assert.deepInclude(status.json, { root_version: 2 })
    })
  )

  it.effect("a restart reads the chain again, and does not believe a damaged one", () =>
    Effect.gen(function* () {
      const { disk, stop } = yield* rootedFleet
      yield* stop
      const again = yield* withTokens(yield* startFleet(disk))
      assert.deepInclude((yield* manage(again, viewer, "GET", `${base}/status`)).json, { root_version: 1 })
      yield* again.stop
      disk.fleet.exec(
        `UPDATE roots SET envelope = '${JSON.stringify(signAsOperator("root", trust.root, stranger).envelope)}'`
      )
      const damaged = yield* startFleet(disk)
      assert.deepInclude((yield* manage(damaged, viewer, "GET", `${base}/status`)).json, {
        root_version: null
      })
    })
  )
})

describe("devices", () => {
  it.effect("are shown as they enrolled, and admitted by what operators signed only", () =>
    Effect.gen(function* () {
      const fleet = yield* withTokens(yield* rootedFleet)
      const document = enrolment(nowMs)
      yield* send(fleet, "POST", "/enrolment", { body: document.envelope })
      const path = `${base}/devices/${device.id}`
      const shown = yield* manage(fleet, viewer, "GET", path)
      assert.deepInclude(shown.json, { status: "pending", enrolment: document.envelope, online: false })
      const admit = (envelope: unknown) => manage(fleet, operatorToken, "POST", `${path}/admission`, envelope)
      const { decision } = admission(nowMs)
      assert.strictEqual((yield* admit(signAsOperator("admission", decision, stranger).envelope)).status, 422)
      assert.strictEqual(
        (yield* admit(admission(nowMs, { recipient: otherDevice.recipient }).envelope)).status,
        422
      )
      assert.strictEqual((yield* admit(admission(nowMs, {}, otherDevice).envelope)).status, 422)
      assert.strictEqual((yield* admit(admission(nowMs, { sequence: 5 }).envelope)).status, 200)
      assert.deepInclude((yield* admit(admission(nowMs, { sequence: 4 }).envelope)).json, {
        code: "stale_admission"
      })
      yield* send(fleet, "POST", "/poll", { body: pollBody() })
      const accepted = yield* manage(fleet, viewer, "GET", path)
      assert.deepInclude(accepted.json, { status: "accepted", name: "pi-cellar", online: true })
      const list = yield* manage(fleet, viewer, "GET", `${base}/devices?status=pending`)
      assert.deepStrictEqual(list.json, { devices: [], next: null })
      assert.strictEqual(
        (yield* manage(fleet, viewer, "GET", `${base}/devices/${otherDevice.id}`)).status,
        404
      )
    })
  )

  it.effect("a name belongs to one accepted device", () =>
    Effect.gen(function* () {
      const fleet = yield* deviceFleet
      yield* send(fleet, "POST", "/enrolment", {
        body: enrolment(nowMs, otherDevice).envelope,
        by: otherDevice
      })
      const path = `${base}/devices/${otherDevice.id}/admission`
      const reply = yield* manage(
        fleet,
        operatorToken,
        "POST",
        path,
        admission(nowMs, {}, otherDevice).envelope
      )
      assert.deepInclude(reply.json, { code: "name_taken" })
    })
  )
})

describe("jobs", () => {
  const jobs = `${base}/jobs`

  it.effect("an upload grows in blocks, says where to go on, and counts only with its digest", () =>
    Effect.gen(function* () {
      const fleet = yield* deviceFleet
      const bytes = utf8("0123456789")
      const path = `${base}/payloads/${digestOf(engine, bytes)}`
      const put = (offset: number, part: Uint8Array) =>
        manage(fleet, operatorToken, "PUT", `${path}?offset=${offset}&total=10`, part)
      assert.deepStrictEqual((yield* put(0, bytes.subarray(0, 4))).json, {
        received_bytes: 4,
        complete: false
      })
      assert.deepStrictEqual((yield* put(6, bytes.subarray(6))).json, { received_bytes: 4, complete: false })
      assert.deepStrictEqual((yield* put(4, bytes.subarray(4))).json, { received_bytes: 10, complete: true })
      assert.deepStrictEqual((yield* put(0, bytes)).json, { received_bytes: 10, complete: true })
      const wrong = `${base}/payloads/sha256:${"1".repeat(64)}?offset=0&total=10`
      assert.deepInclude((yield* manage(fleet, operatorToken, "PUT", wrong, bytes)).json, {
        code: "payload_conflict"
      })
    })
  )

  it.effect("submission checks signature, payload, device, place and time", () =>
    Effect.gen(function* () {
      const fleet = yield* deviceFleet
      const payload = yield* putPayload(fleet, utf8("payload"))
      const post = (signed: { envelope: unknown }) =>
        manage(fleet, operatorToken, "POST", jobs, signed.envelope)
      const codeOf = Effect.fnUntraced(function* (signed: { envelope: unknown }) {
        const { json, status } = yield* post(signed)
        return status === 409 ? (json as { code: string }).code : status
      })
      assert.strictEqual(yield* codeOf(signedOrder(1)), "payload_missing")
      assert.strictEqual(
        yield* codeOf(signedOrder(1, { payload: { ...payload, size_bytes: 8 } })),
        "payload_conflict"
      )
      assert.strictEqual(yield* codeOf(signedOrder(1, { payload }, stranger)), 422)
      assert.strictEqual(yield* codeOf(signedOrder(1, { payload, root_version: 2 })), 422)
      assert.strictEqual(
        yield* codeOf(signedOrder(1, { payload, expires_at_ms: nowMs + 5_000, deadline_at_ms: nowMs + 1 })),
        422
      )
      assert.strictEqual(
        yield* codeOf(signedOrder(1, { payload, device: otherDevice.id as never })),
        "unknown_device"
      )
      const good = signedOrder(5, { payload })
      assert.deepInclude((yield* post(good)).json, {
        state: "queued",
        counter: 5,
        submitted_by: "operator",
        order: good.envelope
      })
      assert.strictEqual(yield* codeOf(good), 200)
      assert.strictEqual(yield* codeOf(signedOrder(5, { payload, lane: "service" })), "id_taken")
      assert.strictEqual(yield* codeOf(signedOrder(5, { payload, id: orderId(50) })), "sequence_taken")
      assert.strictEqual(yield* codeOf(signedOrder(4, { payload })), "sequence_taken")
      const sequence = yield* manage(fleet, viewer, "GET", `${base}/devices/${device.id}/sequence`)
      assert.deepStrictEqual(sequence.json, { next_counter: 6, previous: good.digest, root_version: 1 })
    })
  )

  it.effect("show and output are held until there is more, and not longer than asked", () =>
    Effect.gen(function* () {
      const fleet = yield* deviceFleet
      const order = yield* submit(fleet, 1)
      const { id } = order.order
      const shown = yield* Effect.forkChild(
        manage(fleet, viewer, "GET", `${jobs}/${id}?after=0&wait_ms=20000`)
      )
      const output = yield* Effect.forkChild(
        manage(fleet, viewer, "GET", `${jobs}/${id}/output?from=0&wait_ms=20000`)
      )
      yield* TestKit.settle
      assert.deepStrictEqual([shown.pollUnsafe(), output.pollUnsafe()], [undefined, undefined])
      yield* send(fleet, "PUT", `/orders/${id}/output/0`, { octets: utf8("one") })
      assert.deepInclude((yield* Fiber.join(output)).json, {
        chunks: [{ sequence: 0, data: encodeBase64(utf8("one")) }]
      })
      const event = {
        order: id,
        state: "running",
        version: 3,
        at_ms: nowMs,
        done_bytes: null,
        total_bytes: null
      }
      yield* send(fleet, "POST", "/progress", { body: { events: [event] } })
      assert.deepInclude((yield* Fiber.join(shown)).json, { state: "running", version: 1 })
      const idle = yield* Effect.forkChild(
        manage(fleet, viewer, "GET", `${jobs}/${id}?after=1&wait_ms=20000`)
      )
      yield* TestKit.settle
      yield* TestClock.adjust("20 seconds")
      assert.deepInclude((yield* Fiber.join(idle)).json, { version: 1 })
      yield* send(fleet, "POST", "/receipts", {
        body: { receipts: [signedReceipt(1, null, order).envelope] }
      })
      const ended = yield* manage(fleet, viewer, "GET", `${jobs}/${id}/output?from=1&wait_ms=20000`)
      assert.deepInclude(ended.json, { chunks: [], state: "succeeded" })
      assert.strictEqual(
        (yield* manage(fleet, viewer, "GET", `${jobs}/${orderId(99)}?wait_ms=5`)).status,
        404
      )
    })
  )

  it.effect("artifacts come in parts and end with nothing", () =>
    Effect.gen(function* () {
      const fleet = yield* deviceFleet
      const { id } = (yield* submit(fleet, 1)).order
      const get = (offset: number) => manage(fleet, viewer, "GET", `${jobs}/${id}/artifacts?offset=${offset}`)
      assert.strictEqual((yield* get(0)).status, 404)
      yield* send(fleet, "PUT", `/orders/${id}/artifacts`, {
        octets: utf8("results"),
        query: "?offset=0&total=7"
      })
      assert.deepStrictEqual((yield* get(0)).octets, utf8("results"))
      assert.deepStrictEqual((yield* get(4)).octets, utf8("lts"))
      assert.deepStrictEqual((yield* get(7)).octets, new Uint8Array(0))
    })
  )

  it.effect(
    "a cancel is signed by an operator, a stop is not; both reach the device until the job ended",
    () =>
      Effect.gen(function* () {
        const fleet = yield* deviceFleet
        const order = yield* submit(fleet, 1)
        const { id } = order.order
        const cancel = {
          type: "postern/cancel/v1",
          order: id,
          device: device.id,
          root_version: 1,
          issued_at_ms: nowMs,
          expires_at_ms: nowMs + 1_000
        }
        const post = (envelope: unknown) =>
          manage(fleet, operatorToken, "POST", `${jobs}/${id}/cancel`, envelope)
        assert.strictEqual((yield* post(signAsOperator("cancel", cancel, stranger).envelope)).status, 422)
        assert.strictEqual(
          (yield* post(signAsOperator("cancel", { ...cancel, order: orderId(2) }).envelope)).status,
          422
        )
        const { envelope } = signAsOperator("cancel", cancel)
        assert.strictEqual((yield* post(envelope)).status, 200)
        assert.strictEqual((yield* manage(fleet, operatorToken, "POST", `${jobs}/${id}/stop`)).status, 200)
        const polled = yield* send(fleet, "POST", "/poll", { body: pollBody() })
        assert.deepInclude(polled.json, { cancels: [envelope], stops: [id] })
        const seen = yield* send(fleet, "POST", "/poll", { body: pollBody({ cancels_seen: [id] }) })
        assert.deepInclude(seen.json, { cancels: [], stops: [id] })
        const receipt = signedReceipt(1, null, order, { state: "canceled", reason: "canceled" })
        yield* send(fleet, "POST", "/receipts", { body: { receipts: [receipt.envelope] } })
        assert.deepInclude((yield* post(envelope)).json, { code: "finished" })
        assert.deepInclude((yield* manage(fleet, operatorToken, "POST", `${jobs}/${id}/stop`)).json, {
          code: "finished"
        })
        const after = yield* send(fleet, "POST", "/poll", { body: pollBody({ last_receipt: 1 }) })
        assert.deepInclude(after.json, { cancels: [], stops: [] })
      })
  )

  it.effect("every change stands in the audit log with its actor", () =>
    Effect.gen(function* () {
      const fleet = yield* deviceFleet
      const { id } = (yield* submit(fleet, 1)).order
      yield* manage(fleet, operatorToken, "POST", `${jobs}/${id}/stop`)
      const { json } = yield* manage(fleet, viewer, "GET", `${base}/audit?limit=100`)
      const lines = (json as { entries: ReadonlyArray<Record<string, string>> }).entries.map(
        ({ action, actor }) => `${actor} ${action}`
      )
      assert.deepStrictEqual(lines, [
        "operator stop",
        "alice submit",
        "console create token",
        "console create token",
        "console create token",
        "alice accept",
        "alice publish root"
      ])
    })
  )
})
