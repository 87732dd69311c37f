import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import { migrate, openDatabase } from "../../../src/adapters/sqlite/Database.ts"
import { fleetDatabase } from "../../../src/adapters/sqlite/fleet/FleetDatabase.ts"
import type { FleetMethods } from "../../../src/adapters/sqlite/fleet/FleetMethods.ts"
import { seriesDatabase } from "../../../src/adapters/sqlite/fleet/SeriesDatabase.ts"
import type { DeviceId, InvitationId, Name } from "../../../src/schemas/Ids.ts"
import { Limits } from "../../../src/schemas/Limits.ts"
import { isFinal, type LaneName, type OrderState } from "../../../src/schemas/WorkOrder.ts"
import { admission, enrolment } from "../../support/fleet.ts"
import { healthReport } from "../../support/health.ts"
import {
  device,
  nowMs,
  orderId,
  otherDevice,
  signAsOperator,
  signedOrder,
  signedReceipt
} from "../../support/operators.ts"
import { scaled } from "../../support/proof.ts"

const id = device.id as DeviceId

/** Runs with a fresh database, closed afterwards. */
const withStore = <A>(use: (store: FleetMethods, sql: (text: string) => void) => A): A => {
  const database = openDatabase(":memory:")
  try {
    migrate(database, fleetDatabase)
    return use(fleetDatabase.build(database), (text) => database.exec(text))
  } finally {
    database.close()
  }
}

const enrol = (store: FleetMethods, by = device, changes = {}) => {
  const { envelope, request } = enrolment(nowMs, by, changes)
  return store.enrol(request, envelope, nowMs, 10_000)
}

const accept = (store: FleetMethods, by = device, changes = {}) => {
  const { decision, envelope } = admission(nowMs, changes, by)
  return store.admit(decision, envelope, "alice", nowMs)
}

type Step =
  | { readonly kind: "submit"; readonly counter: number; readonly lane: LaneName }
  | { readonly kind: "offer"; readonly above: number; readonly lanes: ReadonlyArray<LaneName> }
  | {
      readonly kind: "progress"
      readonly counter: number
      readonly state: OrderState
      readonly version: number
    }
  | { readonly kind: "receipt"; readonly counter: number; readonly number: number }
  | { readonly kind: "cancel" | "stop"; readonly counter: number }
  | { readonly kind: "readmit" }

const counters = fc.integer({ min: 1, max: 8 })
const laneName = fc.constantFrom<LaneName>("job", "service")
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant("submit" as const), counter: counters, lane: laneName }),
  fc.record({
    kind: fc.constant("offer" as const),
    above: fc.integer({ min: 0, max: 8 }),
    lanes: fc.uniqueArray(laneName, { maxLength: 2 })
  }),
  fc.record({
    kind: fc.constant("progress" as const),
    counter: counters,
    state: fc.constantFrom<OrderState>("queued", "downloading", "verifying", "running", "succeeded"),
    version: fc.integer({ min: 0, max: 4 })
  }),
  fc.record({ kind: fc.constant("receipt" as const), counter: counters, number: counters }),
  fc.record({ kind: fc.constantFrom("cancel" as const, "stop" as const), counter: counters }),
  fc.record({ kind: fc.constant("readmit" as const) })
)

interface ModelJob {
  readonly lane: LaneName
  state: OrderState
  reported: number
  cancel: boolean
  stop: boolean
  receipt: boolean
}

/** What the store should do, in the simplest words. */
class Model {
  readonly jobs = new Map<number, ModelJob>()
  readonly receipts = new Map<string, string>()
  epoch = 1
  sequence = 1

  submit(counter: number, lane: LaneName): string {
    const there = this.jobs.get(counter)
    if (there !== undefined) return there.lane === lane ? "same" : "id_taken"
    if (counter <= Math.max(0, ...this.jobs.keys())) return "sequence_taken"
    this.jobs.set(counter, {
      lane,
      state: "queued",
      reported: -1,
      cancel: false,
      stop: false,
      receipt: false
    })
    return "queued"
  }

  offer(above: number, lanes: ReadonlyArray<LaneName>): ReadonlyArray<number> {
    const open = [...this.jobs].filter(
      ([counter, job]) => counter > above && ["queued", "offered"].includes(job.state) && job.reported < 0
    )
    const last = open.findLastIndex(([, job]) => lanes.includes(job.lane))
    const given = open.slice(0, last + 1)
    for (const [, job] of given) job.state = "offered"
    return given.map(([counter]) => counter)
  }

  progress(counter: number, state: OrderState, version: number): void {
    const job = this.jobs.get(counter)
    if (job === undefined || isFinal(job.state) || isFinal(state) || version <= job.reported) return
    job.reported = version
    job.state = state === "queued" ? "offered" : state
  }

  receipt(counter: number, number: number, lane: LaneName): string {
    const place = `${this.epoch} ${number}`
    // An order of the other lane is another order, with another receipt.
    const about = `${counter} ${lane}`
    // The same receipt is known again even when the device was accepted anew in between.
    const same = [...this.receipts].some(([key, of]) => key.endsWith(` ${number}`) && of === about)
    if (same) return "same"
    if (this.receipts.has(place)) return "conflict"
    this.receipts.set(place, about)
    const job = this.jobs.get(counter)
    if (job !== undefined && !job.receipt) Object.assign(job, { state: "succeeded", receipt: true })
    return "stored"
  }

  intervene(kind: "cancel" | "stop", counter: number): string {
    const job = this.jobs.get(counter)
    if (job === undefined) return "unknown"
    if (isFinal(job.state)) return "finished"
    job[kind] = true
    return "done"
  }

  readmit(): void {
    this.epoch++
    this.sequence++
    for (const job of this.jobs.values())
      if (!isFinal(job.state) && job.state !== "queued") job.state = "removed"
  }
}

const orderOf = (counter: number, lane: LaneName) => signedOrder(counter, { lane })
const cancelOf = (counter: number) => {
  const document = {
    type: "postern/cancel/v1" as const,
    order: orderId(counter),
    device: id,
    root_version: 1,
    issued_at_ms: nowMs,
    expires_at_ms: nowMs + 1
  }
  return { document, ...signAsOperator("cancel", document) }
}

/** Applies a step to both and compares their answers. */
const apply = (store: FleetMethods, model: Model, step: Step): void => {
  switch (step.kind) {
    case "submit": {
      const { digest, envelope, order } = orderOf(step.counter, step.lane)
      assert.strictEqual(
        store.submit(order, envelope, digest, "alice", nowMs),
        model.submit(step.counter, step.lane)
      )
      return
    }
    case "offer": {
      const mark = { root_version: 1, counter: step.above, order_digest: orderOf(1, "job").digest }
      const given = store.offer(id, step.lanes, step.above === 0 ? null : mark, Limits.pollOrders, nowMs)
      assert.deepStrictEqual(
        given.map((job) => job.order.counter),
        model.offer(step.above, step.lanes)
      )
      return
    }
    case "progress": {
      const { counter, state, version } = step
      const event = {
        order: orderId(counter),
        state,
        version,
        at_ms: nowMs,
        done_bytes: null,
        total_bytes: null
      }
      store.progress(id, [event])
      model.progress(counter, state, version)
      return
    }
    case "receipt": {
      const lane = model.jobs.get(step.counter)?.lane ?? "job"
      const { digest, envelope, receipt } = signedReceipt(step.number, null, orderOf(step.counter, lane))
      assert.strictEqual(
        store.addReceipt(receipt, envelope, digest, nowMs),
        model.receipt(step.counter, step.number, lane)
      )
      return
    }
    case "cancel": {
      const { document, envelope } = cancelOf(step.counter)
      const expected = model.intervene("cancel", step.counter)
      assert.strictEqual(store.cancel(document, envelope, "alice", nowMs), expected)
      return
    }
    case "stop": {
      assert.strictEqual(
        store.requestStop(orderId(step.counter), "alice", nowMs),
        model.intervene("stop", step.counter)
      )
      return
    }
    case "readmit": {
      store.object(id, "cloned", nowMs)
      model.readmit()
      assert.strictEqual(accept(store, device, { sequence: model.sequence }), "done")
    }
  }
}

const states = (store: FleetMethods) =>
  new Map(
    store.jobs({ device: id, open: false, limit: 100 }).map((job) => [
      job.order.counter,
      {
        state: job.state,
        cancel: job.cancel !== null,
        stop: job.stopRequested,
        receipt: job.receipt !== null
      }
    ])
  )

const modelStates = (model: Model) =>
  new Map(
    [...model.jobs].map(([counter, { cancel, receipt, state, stop }]) => [
      counter,
      { state, cancel, stop, receipt }
    ])
  )

describe("the fleet store", () => {
  it("does what its model does, step by step; versions rise and ends are ends", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) =>
        withStore((store) => {
          enrol(store)
          accept(store)
          const model = new Model()
          const versions = new Map<string, number>()
          for (const current of steps) {
            apply(store, model, current)
            const sort = (map: Map<number, unknown>) => [...map].sort(([left], [right]) => left - right)
            assert.deepStrictEqual(sort(states(store)), sort(modelStates(model)))
            for (const job of store.jobs({ device: id, open: false, limit: 100 })) {
              assert.isAtLeast(job.version, versions.get(job.id) ?? 0)
              versions.set(job.id, job.version)
            }
          }
          const open = store.jobs({ device: id, open: true, limit: 100 })
          const { cancels, stops } = store.interventions(id)
          assert.strictEqual(cancels.length, open.filter((job) => job.cancel !== null).length)
          assert.strictEqual(stops.length, open.filter((job) => job.stopRequested).length)
          const counted = Object.values(store.counts().jobs).reduce((sum, count) => sum + count, 0)
          assert.strictEqual(counted, model.jobs.size)
        })
      ),
      { numRuns: scaled(60) }
    )
  })

  it("every change made twice is one change", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 15 }), (steps) =>
        withStore((once) =>
          withStore((twice) => {
            for (const store of [once, twice]) {
              enrol(store)
              accept(store)
            }
            const [left, right] = [new Model(), new Model()]
            for (const current of steps.filter(({ kind }) => kind !== "readmit")) {
              apply(once, left, current)
              apply(twice, right, current)
              apply(twice, right, current)
            }
            const jobs = (store: FleetMethods) => store.jobs({ device: id, open: false, limit: 100 })
            assert.deepStrictEqual(jobs(twice), jobs(once))
            assert.deepStrictEqual(twice.audit(1_000), once.audit(1_000))
          })
        )
      ),
      { numRuns: scaled(30) }
    )
  })

  it("a higher root version counts before the counter, and the device's own place before ours", () =>
    withStore((store) => {
      enrol(store)
      accept(store)
      const submit = (counter: number, root_version: number) => {
        const { digest, envelope, order } = signedOrder(counter, {
          root_version,
          id: orderId(counter * 10 + root_version)
        })
        return store.submit(order, envelope, digest, "alice", nowMs)
      }
      assert.deepStrictEqual(
        [submit(5, 1), submit(1, 2), submit(9, 1)],
        ["queued", "queued", "sequence_taken"]
      )
      assert.deepInclude(store.sequence(id), { nextCounter: 6, rootVersion: 2 })
      const ahead = { root_version: 2, counter: 40, order_digest: signedOrder(40).digest }
      store.sawDevice(id, {
        atMs: nowMs,
        toldAtMs: nowMs,
        incarnation: "a".repeat(26) as never,
        highWater: ahead,
        blocked: null,
        lastReceipt: 0,
        degraded: [],
        rootVersion: 2,
        statement: null
      })
      assert.deepStrictEqual(store.sequence(id), {
        nextCounter: 41,
        previous: ahead.order_digest,
        rootVersion: 2
      })
      assert.strictEqual(submit(40, 2), "sequence_taken")
      assert.strictEqual(submit(41, 2), "queued")
    }))

  it("a receipt ends no order but the one it is about", () =>
    withStore((store) => {
      for (const [by, name] of [
        [device, "one"],
        [otherDevice, "two"]
      ] as const) {
        enrol(store, by)
        accept(store, by, { name: name as Name })
      }
      const { digest, envelope, order } = signedOrder(1)
      store.submit(order, envelope, digest, "alice", nowMs)
      const stateAfter = (changes: Parameters<typeof signedReceipt>[3], by = device) => {
        const made = signedReceipt(1, null, { order, digest }, changes, by)
        store.addReceipt(made.receipt, made.envelope, made.digest, nowMs)
        return store.job(order.id)?.state
      }
      assert.strictEqual(stateAfter({ device: otherDevice.id as DeviceId }, otherDevice), "queued")
      assert.strictEqual(stateAfter({ order_digest: signedOrder(2).digest }), "queued")
      assert.strictEqual(stateAfter({ order: null, number: 2 }), "queued")
      assert.strictEqual(stateAfter({ number: 3, state: "failed", reason: "exit_code" }), "failed")
      assert.strictEqual(stateAfter({ number: 4 }), "failed")
    }))

  it("an invitation lets in, not more devices at a time than allowed, and expires", () =>
    withStore((store, sql) => {
      const invitation = `inv_${"a".repeat(52)}` as InvitationId
      store.addInvitation(invitation, nowMs + 1_000, "alice", nowMs)
      assert.deepStrictEqual(
        [store.invitationValid(invitation, nowMs), store.invitationValid(invitation, nowMs + 1_000)],
        [true, false]
      )
      sql(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${Limits.invitationUses})
        INSERT INTO devices (device, status, enrolment, request, requested_at_ms, enrolled_at_ms, asked_at_ms, invitation)
        SELECT 'dev_invited' || i, 'pending', '{}', '{}', 0, ${nowMs}, ${nowMs}, '${invitation}' FROM n`)
      const proof = { id: invitation, key: device.signingKey, signature: "" }
      assert.strictEqual(enrol(store, otherDevice, { invitation: proof }), "full")
      sql("DELETE FROM devices WHERE device = 'dev_invited1'")
      assert.strictEqual(enrol(store, otherDevice, { invitation: proof }), "pending")
    }))

  it("newcomers are expected while an invitation has let nobody in, or a pre-authorisation was not used", () =>
    withStore((store, sql) => {
      const invitation = `inv_${"a".repeat(52)}` as InvitationId
      assert.isFalse(store.enrolmentOpen(nowMs))
      store.addInvitation(invitation, nowMs + 1_000, "alice", nowMs)
      assert.deepStrictEqual([store.enrolmentOpen(nowMs), store.enrolmentOpen(nowMs + 1_000)], [true, false])
      enrol(store, device, { invitation: { id: invitation, key: device.signingKey, signature: "" } })
      assert.isTrue(store.enrolmentOpen(nowMs))
      sql("UPDATE devices SET status = 'accepted'")
      assert.isFalse(store.enrolmentOpen(nowMs))
      sql(`INSERT INTO preauthorisations (subject, envelope, issued_at_ms, expires_at_ms)
        VALUES ('${otherDevice.id}', '{}', 0, ${nowMs + 1_000})`)
      assert.deepStrictEqual([store.enrolmentOpen(nowMs), store.enrolmentOpen(nowMs + 1_000)], [true, false])
      sql(`UPDATE preauthorisations SET used_by = '${otherDevice.id}'`)
      assert.isFalse(store.enrolmentOpen(nowMs))
    }))

  it("of too many without an invitation the one that was silent longest goes, and never one with", () =>
    withStore((store, sql) => {
      const invitation = `inv_${"a".repeat(52)}` as InvitationId
      store.addInvitation(invitation, nowMs + 1_000, "alice", nowMs)
      const proof = { id: invitation, key: device.signingKey, signature: "" }
      enrol(store, device, { invitation: proof })
      sql(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${Limits.pendingEnrolments})
        INSERT INTO devices (device, status, enrolment, request, requested_at_ms, enrolled_at_ms, asked_at_ms)
        SELECT 'dev_' || i, 'pending', '{}', '{}', 0, ${nowMs}, ${nowMs} + i FROM n`)
      assert.strictEqual(enrol(store, otherDevice), "pending")
      const isThere = (id: string) => store.device(id as DeviceId) !== null
      assert.deepStrictEqual([isThere("dev_1"), isThere("dev_2"), isThere(device.id)], [false, true, true])
      assert.strictEqual(store.counts().devices.pending, Limits.pendingEnrolments + 1)
    }))

  it("health is kept apart, newest first, each report once and not without end", () => {
    const database = openDatabase(":memory:")
    migrate(database, seriesDatabase)
    const series = seriesDatabase.build(database)
    const keep = { reports: 100, days: 90 }
    const add = (at_ms: number, atMs = nowMs) => series.addHealth(id, healthReport({ at_ms }), atMs, keep)
    for (let at = 0; at < 150; at++) add(at)
    add(149)
    const kept = series.health(id, 10_000)
    assert.strictEqual(kept.length, 100)
    assert.strictEqual(kept[0]?.at_ms, 149)
    // A report of another device, a year later, takes away what is too old, some at a time.
    for (let n = 0; n < 3; n++)
      series.addHealth(otherDevice.id as DeviceId, healthReport({ at_ms: n }), nowMs + 365 * 86_400_000, keep)
    assert.deepStrictEqual(series.health(id, 10_000), [])
    database.close()
  })
})
