import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"
import { RegistrarKey } from "../../src/actors/ServerKeys.ts"
import type { PollAnswer, PollRequest } from "../../src/schemas/DeviceApi.ts"
import type { DeviceId, Incarnation } from "../../src/schemas/Ids.ts"
import {
  acceptedFleet,
  admission,
  enrolment,
  type Fleet,
  pollBody,
  type Sending,
  send,
  startFleet,
  statementOf,
  submit
} from "../support/fleet.ts"
import { device, signedReceipt } from "../support/operators.ts"

/** A poll made some seconds ago by the device's clock. */
const poll = Effect.fnUntraced(function* (
  fleet: Fleet,
  changes: Partial<PollRequest>,
  sending: Sending = {}
) {
  const reply = yield* send(fleet, "POST", "/poll", { body: pollBody(changes), ...sending })
  return reply.json as PollAnswer
})

const other = "b".repeat(26) as Incarnation
const later = TestClock.adjust("10 seconds")

/** An order taken, run and reported, as the server knows it. */
const finished = Effect.fnUntraced(function* (fleet: Fleet, counter: number) {
  const order = yield* submit(fleet, counter)
  const atMs = yield* Clock.currentTimeMillis
  const event = {
    order: order.order.id,
    state: "running",
    version: 3,
    at_ms: atMs,
    done_bytes: null,
    total_bytes: null
  }
  yield* send(fleet, "POST", "/progress", { body: { events: [event] } })
  const receipt = signedReceipt(counter, null, order, { started_at_ms: atMs, ended_at_ms: atMs })
  yield* send(fleet, "POST", "/receipts", { body: { receipts: [receipt.envelope] } })
  return { order, mark: { root_version: 1, counter, order_digest: order.digest } }
})

const readmit = Effect.fnUntraced(function* (fleet: Fleet, sequence: number, incarnation?: Incarnation) {
  const nowMs = yield* Clock.currentTimeMillis
  const { envelope } = admission(nowMs, { sequence, ...(incarnation === undefined ? {} : { incarnation }) })
  yield* fleet.system
    .ref(RegistrarKey)
    .ask("Admit", { device: device.id as DeviceId, envelope, actor: "alice" })
})

describe("a ledger that fell back", () => {
  it.effect("is held back when its place is below what the server has progress for", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const { mark } = yield* finished(fleet, 3)
      yield* later
      assert.isNull((yield* poll(fleet, { high_water: mark, last_receipt: 3 })).objection)
      assert.strictEqual(
        (yield* poll(fleet, { high_water: null, last_receipt: 3 })).objection,
        "ledger_rolled_back"
      )
      yield* submit(fleet, 4)
      const held = yield* poll(fleet, { high_water: mark, last_receipt: 3 })
      assert.deepInclude(held, { objection: "ledger_rolled_back", orders: [] })
      assert.strictEqual((yield* fleet.store.device(device.id as DeviceId))?.objection, "ledger_rolled_back")
    })
  )

  it.effect("is held back when it wrote fewer receipts than the server has", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const { mark } = yield* finished(fleet, 1)
      yield* later
      assert.strictEqual(
        (yield* poll(fleet, { high_water: mark, last_receipt: 0 })).objection,
        "ledger_rolled_back"
      )
    })
  )

  it.effect("is held back when it shows less than an earlier poll did, also after the server's restart", () =>
    Effect.gen(function* () {
      const { disk, stop, ...first } = yield* acceptedFleet
      const order = yield* submit({ ...first, disk, stop }, 7)
      const mark = { root_version: 1, counter: 7, order_digest: order.digest }
      yield* poll({ ...first, disk, stop }, { high_water: mark })
      yield* stop
      yield* later
      const second = yield* startFleet(disk)
      yield* later
      assert.strictEqual((yield* poll(second, { high_water: null })).objection, "ledger_rolled_back")
    })
  )

  it.effect("is not suspected of what was still on its way when it made the poll", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const createdSeconds = Math.floor((yield* Clock.currentTimeMillis) / 1_000)
      yield* TestClock.adjust("30 seconds")
      yield* finished(fleet, 1)
      // Made before all that, held up on the way.
      const answer = yield* poll(fleet, { high_water: null, last_receipt: 0 }, { createdSeconds })
      assert.isNull(answer.objection)
    })
  )

  it.effect("is not suspected of what an older poll says that is signed again for the next address", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const statement = statementOf({ at_ms: yield* Clock.currentTimeMillis })
      yield* TestClock.adjust("30 seconds")
      const { mark } = yield* finished(fleet, 1)
      yield* TestClock.adjust("30 seconds")
      // The first address did not answer within a minute; meanwhile the receipt went by the second.
      const old = { statement, high_water: null, last_receipt: 0 }
      assert.isNull((yield* poll(fleet, old)).objection)
      assert.isNull((yield* poll(fleet, { high_water: mark, last_receipt: 1 })).objection)
    })
  )

  it.effect("goes on after another acceptance; what it may have begun before is not offered again", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const { mark } = yield* finished(fleet, 1)
      const offered = yield* submit(fleet, 2)
      yield* poll(fleet, { high_water: mark, last_receipt: 1 })
      yield* later
      yield* poll(fleet, { high_water: null })
      const queued = yield* submit(fleet, 3)
      yield* readmit(fleet, 2)
      const answer = yield* poll(fleet, { high_water: null, admission_sequence: 2 })
      assert.deepInclude(answer, { objection: null, orders: [queued.envelope] })
      assert.deepInclude(yield* fleet.store.job(offered.order.id), {
        state: "removed",
        reason: "accepted_anew"
      })
      // Its receipts count from the start again, and an old one sent once more is still the same.
      yield* later
      assert.isNull((yield* poll(fleet, { high_water: null, admission_sequence: 2 })).objection)
    })
  )

  it.effect("another receipt under a number that is taken holds the device back", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const { order } = yield* finished(fleet, 1)
      const twin = signedReceipt(1, null, order, { detail: "another" })
      const reply = yield* send(fleet, "POST", "/receipts", { body: { receipts: [twin.envelope] } })
      assert.strictEqual(reply.code, "bad_request")
      assert.strictEqual((yield* fleet.store.device(device.id as DeviceId))?.objection, "ledger_rolled_back")
    })
  )
})

describe("two ledgers under one identity", () => {
  it.effect("a strange one alone lost its past; once the accepted one is heard again, it is a clone", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      yield* submit(fleet, 1)
      yield* later
      const strange = yield* poll(fleet, { incarnation: other })
      assert.deepInclude(strange, { objection: "ledger_rolled_back", orders: [] })
      yield* later
      assert.strictEqual((yield* poll(fleet, {})).objection, "cloned")
      assert.strictEqual((yield* poll(fleet, { incarnation: other })).objection, "cloned")
    })
  )

  it.effect("an enrolment with another ledger counts as having been heard", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      assert.isNull((yield* poll(fleet, {})).objection)
      yield* later
      const nowMs = yield* Clock.currentTimeMillis
      yield* send(fleet, "POST", "/enrolment", {
        body: enrolment(nowMs, device, { incarnation: other }).envelope
      })
      assert.isNull((yield* poll(fleet, {})).objection, "made at the same time")
      yield* later
      assert.strictEqual((yield* poll(fleet, {})).objection, "cloned")
      yield* readmit(fleet, 2, other)
      assert.isNull((yield* poll(fleet, { incarnation: other, admission_sequence: 2 })).objection)
      const createdSeconds = Math.floor(nowMs / 1_000)
      const leftOver = yield* poll(fleet, { admission_sequence: 1 }, { createdSeconds })
      assert.strictEqual(leftOver.objection, "ledger_rolled_back")
      assert.isNotNull(leftOver.admission, "it learns of the decision")
      assert.isNull((yield* poll(fleet, { incarnation: other, admission_sequence: 2 })).objection)
      assert.strictEqual((yield* poll(fleet, {})).objection, "ledger_rolled_back", "and lives on")
      yield* later
      assert.strictEqual(
        (yield* poll(fleet, { incarnation: other, admission_sequence: 2 })).objection,
        "cloned"
      )
    })
  )
})
