/** Rollouts over the real tables, with whatever may happen in whatever order: devices, operators, crashes. */
import { afterAll, assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { migrate, openDatabase } from "../../../src/adapters/sqlite/Database.ts"
import { fleetDatabase } from "../../../src/adapters/sqlite/fleet/FleetDatabase.ts"
import type { RolloutRow } from "../../../src/ports/RolloutStore.ts"
import type { HighWater } from "../../../src/schemas/DeviceApi.ts"
import { type DeviceId, type Digest, OrderId } from "../../../src/schemas/Ids.ts"
import { Limits } from "../../../src/schemas/Limits.ts"
import { isEnded, type RolloutControl, type RolloutPlan } from "../../../src/schemas/Rollout.ts"
import { countsOf, nextStep, outcomeOf, requiredOf } from "../../../src/schemas/RolloutJudgement.ts"
import { isFinal, type WorkOrder } from "../../../src/schemas/WorkOrder.ts"
import { admission, enrolment } from "../../support/fleet.ts"
import { incarnation, nowMs, signedReceipt } from "../../support/operators.ts"
import { scaled } from "../../support/proof.ts"
import { planOf, RolloutDevice } from "../../support/rollouts.ts"

const maximumDevices = 6
const rings = Array.from(
  { length: maximumDevices },
  (_, index) =>
    new RolloutDevice(index, () => {
      throw new Error("these devices have no server")
    })
)
const signed = rings.map(({ ring }) => ({
  request: enrolment(nowMs, ring),
  accepted: admission(nowMs, {}, ring)
}))
const payload = {
  digest: `sha256:${"7".repeat(64)}` as Digest,
  size_bytes: 10,
  unpacked_bytes: 100,
  entries: 1
}
const envelope = { payloadType: "application/vnd.postern.order+json", payload: "", signatures: [] }

type Event =
  | { readonly kind: "poll" | "succeed" | "fail" | "ordinary" | "revoke"; readonly device: number }
  | { readonly kind: "pause" | "resume" | "look" | "remember" | "stale" }
  | { readonly kind: "pass"; readonly ms: number }

interface Job {
  readonly id: OrderId
  readonly planned: boolean
  ended: boolean
}

/** One registry with accepted devices; each world is undone when it ends. */
const database = openDatabase(":memory:")
migrate(database, fleetDatabase)
const store = fleetDatabase.build(database)
rings.forEach((device, index) => {
  const { accepted, request } = signed[index] as (typeof signed)[number]
  store.enrol(request.request, request.envelope, nowMs, 100)
  const named = { ...accepted.decision, name: device.name as never }
  store.admit(named, accepted.envelope, "alice", nowMs)
})
afterAll(() => database.close())

/** Devices that take what they are offered, and a server that may look or not. */
class World {
  private readonly store = store
  private readonly marks = new Map<number, HighWater>()
  private readonly receipts = new Map<number, number>()
  readonly jobs = new Map<number, Array<Job>>()
  readonly plan: RolloutPlan
  readonly devices: ReadonlyArray<RolloutDevice>
  atMs = nowMs
  private controls = 0
  private others = 0
  private remembered: RolloutRow | undefined

  constructor(sizes: ReadonlyArray<number>, percent: number, maximumFailures: number) {
    database.exec("SAVEPOINT world")
    this.devices = rings.slice(
      0,
      sizes.reduce((sum, size) => sum + size, 0)
    )
    const terms = { success_percent: percent, soak_ms: 1_000, timeout_ms: 10_000 }
    this.plan = planOf(
      this.devices,
      payload,
      nowMs,
      sizes.map((size) => ({ size, ...terms })),
      { maximum_failures: maximumFailures }
    )
    assert.strictEqual(this.store.addRollout(this.plan, envelope, payload.digest, "alice", nowMs), "added")
    for (const { device, order } of this.plan.phases.flatMap((phase) => phase.devices)) {
      const { nextCounter } = this.store.sequence(device)
      assert.strictEqual(this.submit(order, device, nextCounter + Limits.rolloutReserve), "queued")
    }
  }

  close(): void {
    database.exec("ROLLBACK TO world; RELEASE world")
  }

  get row(): RolloutRow {
    const row = this.store.rollout(this.plan.id)
    if (row === null) throw new Error("the rollout is gone")
    return row
  }

  get members() {
    return this.store.rolloutMembers(this.plan.id)
  }

  private submit(id: OrderId, device: DeviceId, counter: number) {
    const order: WorkOrder = {
      type: "postern/order/v1",
      id,
      device,
      lane: "job",
      counter,
      previous: null,
      root_version: 1,
      issued_at_ms: nowMs,
      expires_at_ms: this.plan.expires_at_ms,
      deadline_at_ms: this.plan.expires_at_ms,
      payload,
      results_to: []
    }
    const digest = `sha256:${id.replaceAll("-", "").padEnd(64, "0")}` as Digest
    return this.store.submit(order, envelope, digest, "alice", this.atMs)
  }

  /** The server looks, as its actor does. */
  look(from = this.row): void {
    let row = from
    for (let steps = 0; steps < 50; steps++) {
      const step = nextStep(row, this.store.rolloutTally(this.plan.id), this.atMs)
      if (step.kind === "wait") return
      const before = this.row.version
      const moved = this.store.moveRollout(this.plan.id, row.version, step, this.atMs)
      assert.strictEqual(moved === null, before !== row.version, "a stale look moves nothing")
      row = this.row
    }
    assert.fail("the rollout never comes to rest")
  }

  private poll(index: number): void {
    const device = this.devices[index] as RolloutDevice
    const mark = this.marks.get(index) ?? null
    for (const job of this.store.offer(device.id, ["job"], mark, 16, this.atMs)) {
      const { counter } = job.order
      assert.isAbove(counter, this.marks.get(index)?.counter ?? 0, "never below what it took")
      const planned = this.members.find(({ order }) => order === job.id)
      if (planned !== undefined) {
        assert.notInclude(["loading"], this.row.state)
        assert.isAtMost(planned.phase, this.row.phase, "never before its phase")
      }
      this.marks.set(index, { root_version: 1, counter, order_digest: job.digest })
      this.jobs.set(index, [
        ...(this.jobs.get(index) ?? []),
        { id: job.id, planned: planned !== undefined, ended: false }
      ])
      const running = { order: job.id, state: "running" as const, version: 1, at_ms: this.atMs }
      this.store.progress(device.id, [{ ...running, done_bytes: null, total_bytes: null }])
    }
  }

  private end(index: number, state: "succeeded" | "failed"): void {
    const device = this.devices[index] as RolloutDevice
    for (const job of this.jobs.get(index) ?? []) {
      if (job.ended) continue
      const number = (this.receipts.get(index) ?? 0) + 1
      const { digest, order } = this.store.job(job.id) ?? assert.fail("the job is gone")
      const { receipt } = signedReceipt(
        number,
        null,
        { order, digest },
        { state, device: device.id, incarnation }
      )
      const named = `sha256:${index}${number.toString(16)}`.padEnd(71, "0") as Digest
      assert.strictEqual(this.store.addReceipt(receipt, envelope, named, this.atMs), "stored")
      this.receipts.set(index, number)
      job.ended = true
    }
  }

  steer(action: RolloutControl["action"]): void {
    const { row } = this
    const control: RolloutControl = {
      type: "postern/rollout-control/v1",
      rollout: this.plan.id,
      action,
      phase: row.phase,
      sequence: ++this.controls,
      root_version: 1,
      issued_at_ms: this.atMs
    }
    const excused = this.members
      .filter((member) => ["failed", "missing"].includes(outcomeOf(row, member, this.atMs)))
      .map(({ order }) => order)
    const word = { ...envelope, payload: `${action}${this.controls}` }
    this.store.controlRollout(control, word, action === "resume" ? excused : [], "alice", this.atMs)
  }

  happen(event: Event): void {
    switch (event.kind) {
      case "poll":
        return this.poll(event.device % this.devices.length)
      case "succeed":
        return this.end(event.device % this.devices.length, "succeeded")
      case "fail":
        return this.end(event.device % this.devices.length, "failed")
      case "ordinary": {
        const { id } = this.devices[event.device % this.devices.length] as RolloutDevice
        const order = OrderId.make(
          `01900000-0000-7000-9000-${(++this.others).toString(16).padStart(12, "0")}`
        )
        const outcome = this.submit(order, id, this.store.sequence(id).nextCounter)
        return assert.include(["queued", "unknown_device"], outcome)
      }
      case "revoke": {
        const index = event.device % this.devices.length
        const { accepted } = signed[index] as (typeof signed)[number]
        const decision = { ...accepted.decision, decision: "revoke" as const, sequence: 2 }
        this.store.admit(decision, { ...accepted.envelope, payload: "" }, "alice", this.atMs)
        return
      }
      case "pass":
        this.atMs += event.ms
        return
      case "remember":
        this.remembered = this.row
        return
      case "stale":
        return this.remembered === undefined ? undefined : this.look(this.remembered)
      case "look":
        return this.look()
      case "pause":
      case "resume":
        return this.steer(event.kind)
    }
  }

  /** What holds at every moment. */
  check(): void {
    const { members, plan, row } = this
    const counts = countsOf(row, this.store.rolloutTally(plan.id), this.atMs)
    const total = Object.values(counts).reduce((sum, count) => sum + count, 0)
    assert.strictEqual(total, this.devices.length, "the totals add up")
    plan.phases.forEach((phase, index) => {
      if (index >= row.phase) return
      const counted = members.filter((member) => member.phase === index && !member.excused)
      const succeeded = counted.filter(({ state }) => state === "succeeded").length
      assert.isAtLeast(
        succeeded,
        requiredOf(counted.length, phase.success_percent),
        `phase ${index} was passed`
      )
    })
    const failed = members.filter(
      (member) => !member.excused && outcomeOf(row, member, this.atMs) === "failed"
    )
    const inFlight = plan.phases[Math.max(row.phase, 0)]?.devices.length ?? 0
    // Late receipts of silent devices of passed phases come on top, and none of those was still to be handed out.
    const late = members.filter((member) => member.phase < row.phase && member.state !== "succeeded").length
    assert.isAtMost(failed.length, plan.maximum_failures + inFlight + late)
  }

  /** Runs of the plan that have begun and not ended. */
  get running(): ReadonlyArray<OrderId> {
    return [...this.jobs.values()].flat().flatMap((job) => (job.planned && !job.ended ? [job.id] : []))
  }

  stops(index: number): ReadonlyArray<OrderId> {
    return this.store.interventions((this.devices[index] as RolloutDevice).id).stops
  }

  /** Every device answers and time passes, with an operator who always goes on. */
  finish(): void {
    for (let round = 0; round < 40 && !isEnded(this.row.state); round++) {
      this.devices.forEach((_, index) => {
        this.poll(index)
        this.end(index, "succeeded")
      })
      this.atMs += 11_000
      this.look()
      if (this.row.state === "paused") this.steer("resume")
      this.check()
    }
  }
}

const device = fc.nat(maximumDevices - 1)
const event: fc.Arbitrary<Event> = fc.oneof(
  { weight: 5, arbitrary: device.map((index): Event => ({ kind: "poll", device: index })) },
  { weight: 4, arbitrary: device.map((index): Event => ({ kind: "succeed", device: index })) },
  { weight: 2, arbitrary: device.map((index): Event => ({ kind: "fail", device: index })) },
  { weight: 2, arbitrary: device.map((index): Event => ({ kind: "ordinary", device: index })) },
  { weight: 1, arbitrary: device.map((index): Event => ({ kind: "revoke", device: index })) },
  { weight: 4, arbitrary: fc.integer({ min: 1, max: 12_000 }).map((ms): Event => ({ kind: "pass", ms })) },
  { weight: 6, arbitrary: fc.constant<Event>({ kind: "look" }) },
  {
    weight: 4,
    arbitrary: fc
      .constantFrom<Event["kind"]>("pause", "resume", "remember", "stale")
      .map((kind) => ({ kind }) as Event)
  }
)

const world = fc
  .record({
    sizes: fc
      .array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 3 })
      .filter((sizes) => sizes.reduce((sum, size) => sum + size, 0) <= maximumDevices),
    percent: fc.constantFrom(0, 50, 80, 100),
    maximumFailures: fc.nat(3)
  })
  .map(
    ({ maximumFailures, percent, sizes }) =>
      () =>
        new World(sizes, percent, maximumFailures)
  )

const withWorld = (make: () => World, run: (made: World) => void): void => {
  const made = make()
  try {
    run(made)
  } finally {
    made.close()
  }
}

const numRuns = scaled(150)

describe("a rollout, whatever happens", () => {
  it("never passes a phase that did not succeed, hands nothing out early or twice, and comes to its end", () => {
    fc.assert(
      fc.property(world, fc.array(event, { maxLength: 40 }), (make, events) =>
        withWorld(make, (made) => {
          for (const each of events) {
            made.happen(each)
            made.check()
          }
          made.finish()
          assert.isTrue(isEnded(made.row.state), made.row.state)
          assert.isTrue(made.members.every(({ state }) => state !== null))
        })
      ),
      { numRuns }
    )
  })

  it("hands out nothing of it while paused", () => {
    fc.assert(
      fc.property(world, fc.array(event, { maxLength: 25 }), (make, events) =>
        withWorld(make, (made) => {
          for (const each of events) made.happen(each)
          made.look()
          if (isEnded(made.row.state)) return
          made.steer("pause")
          // What was on its way is taken; from then on nothing comes.
          made.devices.forEach((_, index) => made.happen({ kind: "poll", device: index }))
          const before = new Set([...made.jobs.values()].flat().map(({ id }) => id))
          const offered = new Set(
            made.members.flatMap(({ order, state }) => (state === "queued" || state === null ? [] : [order]))
          )
          made.atMs += 3_600_000
          made.look()
          made.devices.forEach((_, index) => made.happen({ kind: "poll", device: index }))
          for (const { id, planned } of [...made.jobs.values()].flat())
            if (planned) assert.isTrue(before.has(id) && offered.has(id), `${id} was handed out in a pause`)
        })
      ),
      { numRuns }
    )
  })

  it("leaves nothing waiting after an abort, and tells everything that runs to stop", () => {
    fc.assert(
      fc.property(world, fc.array(event, { maxLength: 25 }), (make, events) =>
        withWorld(make, (made) => {
          for (const each of events) made.happen(each)
          made.look()
          if (isEnded(made.row.state)) return
          const revoked = new Set(
            made.members.filter(({ state }) => state === "removed").map(({ order }) => order)
          )
          made.steer("abort")
          assert.strictEqual(made.row.state, "aborted")
          const running = made.running
          made.devices.forEach((_, index) => made.happen({ kind: "poll", device: index }))
          assert.deepStrictEqual(made.running, running, "nobody begins it any more")
          const told = new Set(made.devices.flatMap((_, index) => made.stops(index)))
          for (const id of running)
            assert.isTrue(told.has(id) || revoked.has(id), `${id} is not told to stop`)
          for (const { order, state } of made.members)
            assert.isTrue(state !== "queued", `${order} still waits (${state})`)
          assert.isTrue(
            made.members.every(({ state }) => state !== null && (isFinal(state) || state !== "queued"))
          )
        })
      ),
      { numRuns }
    )
  })
})

describe("retention", () => {
  it("keeps the payload of an open rollout, also while no order of it is there", () => {
    withWorld(
      () => new World([2], 100, 0),
      (made) => {
        database.exec("DELETE FROM jobs")
        const unused = () => store.unusedPayloads([payload.digest], nowMs + 365 * 86_400_000)
        assert.deepStrictEqual(unused(), [])
        made.steer("abort")
        assert.deepStrictEqual(unused(), [payload.digest])
      }
    )
  })
})
