import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"
import { OrderId } from "../../src/schemas/Ids.ts"
import { Limits } from "../../src/schemas/Limits.ts"
import type { RolloutDetail, RolloutPlan } from "../../src/schemas/Rollout.ts"
import { startFleet } from "../support/fleet.ts"
import { nowMs } from "../support/operators.ts"
import {
  begin,
  makeRollouts,
  type PhaseTerms,
  planOf,
  type RolloutDevice,
  type Rollouts
} from "../support/rollouts.ts"

const phases = (...sizes: ReadonlyArray<number>): ReadonlyArray<PhaseTerms> => sizes.map((size) => ({ size }))

/** A world of devices with a rollout to all of them under way. */
const underWay = Effect.fnUntraced(function* (
  terms: ReadonlyArray<PhaseTerms>,
  changes: Partial<RolloutPlan> = {}
) {
  const world = yield* makeRollouts(terms.reduce((sum, { size }) => sum + size, 0))
  const plan = planOf(world.devices, world.payload, yield* Clock.currentTimeMillis, terms, changes)
  yield* begin(world, plan)
  return { world, plan, show: shown(world, plan.id) }
})

const shown = (world: Rollouts, id: string) =>
  Effect.map(world.get(`/rollouts/${id}`), ({ json }) => json as RolloutDetail)

/** Time passes, and whoever sleeps wakes. */
const pass = (ms: number) => TestClock.adjust(ms)
/** What was told is heard. */
const settle = pass(1)

const pollAll = (devices: ReadonlyArray<RolloutDevice>) =>
  Effect.forEach(devices, (device) => device.poll, { discard: true })

const holders = (devices: ReadonlyArray<RolloutDevice>) =>
  devices.filter(({ taken }) => taken.length > 0).map(({ name }) => name)

describe("a rollout", () => {
  it.effect("gives out nothing before every order is there, then phase by phase", () =>
    Effect.gen(function* () {
      const world = yield* makeRollouts(4)
      const { devices } = world
      const plan = planOf(devices, world.payload, yield* Clock.currentTimeMillis, phases(1, 1, 2))
      assert.strictEqual((yield* world.open(plan)).status, 200)
      const orders = plan.phases.flatMap((phase) => phase.devices)
      for (const { device, order } of orders.slice(0, 3))
        yield* world.submitOrder({ id: order, device, counter: 50_000 })
      yield* settle
      yield* pollAll(devices)
      assert.deepStrictEqual(holders(devices), [], "one order is missing")
      const last = orders[3] as (typeof orders)[number]
      yield* world.submitOrder({ id: last.order, device: last.device, counter: 50_000 })
      yield* settle
      yield* pollAll(devices)
      assert.deepStrictEqual(holders(devices), ["pi-0"], "the canary alone")

      yield* (devices[0] as RolloutDevice).end("succeeded")
      yield* settle
      yield* pollAll(devices)
      assert.deepStrictEqual(holders(devices), ["pi-0"], "it soaks")
      yield* pass(60_000)
      yield* pollAll(devices)
      assert.deepStrictEqual(holders(devices), ["pi-0", "pi-1"])
      yield* (devices[1] as RolloutDevice).end("succeeded")
      yield* pass(60_001)
      yield* pollAll(devices)
      assert.strictEqual(holders(devices).length, 4)
      for (const device of devices) yield* device.end("succeeded")
      yield* settle
      const { devices: rows, rollout } = yield* shown(world, plan.id)
      assert.deepInclude(rollout, { state: "completed", phase: 2 })
      assert.deepInclude(rollout.counts, { succeeded: 4, failed: 0, missing: 0, open: 0, waiting: 0 })
      assert.isTrue(rows.every(({ outcome }) => outcome === "succeeded"))
    })
  )

  it.effect(
    "pauses itself as soon as too few can succeed, hands out nothing then, and goes on when told",
    () =>
      Effect.gen(function* () {
        const { plan, show, world } = yield* underWay(phases(2, 2))
        const [first, second] = world.devices as [RolloutDevice, RolloutDevice]
        yield* settle
        yield* first.poll
        yield* first.end("failed")
        yield* settle
        assert.deepInclude((yield* show).rollout, { state: "paused", reason: "too_few_succeeded", phase: 0 })
        // The other device of the phase never polled: its order went back behind the gate.
        yield* pollAll(world.devices)
        assert.deepStrictEqual(holders(world.devices), ["pi-0"])
        yield* pass(600_000)
        yield* pollAll(world.devices)
        assert.deepStrictEqual(holders(world.devices), ["pi-0"])

        assert.strictEqual((yield* world.steer(plan.id, "resume", 1, 0)).status, 200)
        yield* settle
        yield* pollAll(world.devices)
        assert.deepStrictEqual(holders(world.devices), ["pi-0", "pi-1"], "the rest of the phase")
        yield* second.end("succeeded")
        yield* pass(60_001)
        yield* pollAll(world.devices)
        assert.strictEqual(holders(world.devices).length, 4)
        const { devices: rows } = yield* show
        assert.deepStrictEqual(
          rows.filter(({ excused }) => excused).map(({ device }) => device),
          [first.id]
        )
      })
  )

  it.effect(
    "counts a silent device as missing when the phase's time is over, and its clock stands still in a pause",
    () =>
      Effect.gen(function* () {
        const { plan, show, world } = yield* underWay([{ size: 2, success_percent: 50 }, { size: 1 }])
        const [first, , third] = world.devices as [RolloutDevice, RolloutDevice, RolloutDevice]
        yield* settle
        yield* first.poll
        yield* first.end("succeeded")
        yield* pass(1_800_000)
        assert.deepInclude((yield* show).rollout.counts, { succeeded: 1, open: 1, missing: 0, waiting: 1 })
        yield* world.steer(plan.id, "pause", 1, 0)
        yield* pass(3_600_000)
        assert.deepInclude((yield* show).rollout.counts, { open: 1, missing: 0 })
        yield* world.steer(plan.id, "resume", 2, 0)
        yield* pass(1_700_000)
        assert.deepInclude((yield* show).rollout.counts, { open: 1, missing: 0 })
        yield* pass(110_000)
        assert.deepInclude((yield* show).rollout.counts, { missing: 1, open: 0 })
        yield* pass(60_001)
        yield* third.poll
        assert.strictEqual(third.taken.length, 1, "it went on without the silent one")
      })
  )

  it.effect("is stopped by the bound of failures over all phases", () =>
    Effect.gen(function* () {
      const { show, world } = yield* underWay(
        [
          { size: 2, success_percent: 0, soak_ms: 0 },
          { size: 2, success_percent: 0 }
        ],
        { maximum_failures: 1 }
      )
      yield* settle
      yield* pollAll(world.devices)
      for (const device of world.devices.slice(0, 1)) yield* device.end("failed")
      for (const device of world.devices.slice(1, 2)) yield* device.end("succeeded")
      yield* settle
      yield* settle
      assert.deepInclude((yield* show).rollout, { state: "running", phase: 1 })
      yield* pollAll(world.devices)
      yield* (world.devices[2] as RolloutDevice).end("failed")
      yield* settle
      assert.deepInclude((yield* show).rollout, { state: "paused", reason: "too_many_failures" })
    })
  )

  it.effect("lets a device's other work pass below the order that waits, and still gets it in", () =>
    Effect.gen(function* () {
      const { world } = yield* underWay(phases(1, 1))
      const [first, second] = world.devices as [RolloutDevice, RolloutDevice]
      yield* settle
      const counter = yield* world.nextCounter(second)
      assert.isBelow(counter, Limits.rolloutReserve)
      const id = OrderId.make("01900000-0000-7000-9000-000000000001")
      assert.strictEqual((yield* world.submitOrder({ id, device: second.id, counter })).status, 200)
      yield* second.poll
      assert.deepStrictEqual(
        second.taken.map(({ order }) => order.id),
        [id]
      )
      yield* second.end("succeeded")
      yield* first.poll
      yield* first.end("succeeded")
      yield* pass(60_001)
      yield* second.poll
      assert.strictEqual(second.taken.length, 2, "the rollout's order came after")
      assert.isAbove(yield* world.nextCounter(second), Limits.rolloutReserve)
    })
  )

  it.effect("loses a device whose other orders went past its place", () =>
    Effect.gen(function* () {
      const { plan, show, world } = yield* underWay([{ size: 1 }, { size: 2, success_percent: 50 }])
      const second = world.devices[1] as RolloutDevice
      yield* settle
      const id = OrderId.make("01900000-0000-7000-9000-000000000002")
      const counter = 5 * Limits.rolloutReserve
      assert.strictEqual((yield* world.submitOrder({ id, device: second.id, counter })).status, 200)
      const order = plan.phases[1]?.devices[0]?.order as OrderId
      assert.deepInclude(yield* world.fleet().store.job(order), { state: "removed", reason: "overtaken" })
      yield* second.poll
      assert.deepStrictEqual(
        second.taken.map((taken) => taken.order.id),
        [id]
      )
      const row = (yield* show).devices.find(({ device }) => device === second.id)
      assert.strictEqual(row?.outcome, "withdrawn")
    })
  )

  it.effect("when aborted takes back what waits and stops what runs, and the places are spent", () =>
    Effect.gen(function* () {
      const { plan, show, world } = yield* underWay(phases(2, 2))
      const [first, , third] = world.devices as [RolloutDevice, RolloutDevice, RolloutDevice]
      yield* settle
      yield* first.poll
      const aborted = yield* world.steer(plan.id, "abort", 1, 0)
      assert.deepInclude(aborted.json, { state: "aborted" })
      yield* settle
      yield* pollAll(world.devices)
      assert.deepStrictEqual(holders(world.devices), ["pi-0"], "nobody else gets it")
      assert.deepStrictEqual([...first.stops], [plan.phases[0]?.devices[0]?.order])
      yield* first.end("canceled")
      yield* settle
      const { devices: rows, rollout } = yield* show
      assert.strictEqual(rollout.counts.open, 0)
      assert.strictEqual(rows.length, 4)
      assert.isAbove(
        yield* world.nextCounter(third),
        Limits.rolloutReserve,
        "the withdrawn order can never come back"
      )
      const late = yield* world.steer(plan.id, "resume", 2, 0)
      assert.deepInclude(late.json, { code: "rollout_ended" })
      const { order } = plan.phases[1]?.devices[0] ?? assert.fail("there is no second phase")
      const there = yield* world.fleet().store.job(order)
      assert.strictEqual(
        (yield* world.post("/jobs", there?.envelope)).status,
        200,
        "sent again, it is the same"
      )
      const other = yield* world.submitOrder({ id: order, device: third.id, counter: 900_000 })
      assert.deepInclude(other.json, { code: "rollout_ended" })
    })
  )

  it.effect("goes on after the server was killed at any step", () =>
    Effect.gen(function* () {
      const { show, world } = yield* underWay(phases(1, 1, 1))
      const reborn = Effect.gen(function* () {
        const { disk, stop } = world.fleet()
        yield* stop
        world.replace(yield* startFleet(disk))
        yield* pass(1_000)
      })
      for (const device of world.devices) {
        yield* reborn
        yield* device.poll
        assert.strictEqual(device.taken.length, 1, `${device.name} has it`)
        yield* reborn
        yield* device.end("succeeded")
        yield* reborn
        yield* pass(61_000)
      }
      assert.deepInclude((yield* show).rollout, { state: "completed" })
    })
  )

  it.effect("ends when its time is over, and what waits is taken back", () =>
    Effect.gen(function* () {
      const short = { timeout_ms: 60_000, soak_ms: 0 }
      const { plan, show, world } = yield* underWay(
        [
          { size: 1, ...short },
          { size: 1, ...short }
        ],
        { expires_at_ms: nowMs + 600_000 }
      )
      yield* settle
      yield* world.steer(plan.id, "pause", 1, 0)
      yield* pass(600_000)
      yield* pass(15_000)
      const { rollout } = yield* show
      assert.strictEqual(rollout.state, "expired")
      assert.strictEqual(
        (yield* world.fleet().store.job(plan.phases[1]?.devices[0]?.order as OrderId))?.state,
        "removed"
      )
    })
  )

  it.effect("a device that is revoked counts as missing", () =>
    Effect.gen(function* () {
      const { plan, world } = yield* underWay([{ size: 2, success_percent: 50 }])
      yield* settle
      const store = world.fleet().store
      const row = yield* store.device((world.devices[1] as RolloutDevice).id)
      if (row?.admitted == null || row.admission === null) throw new Error("it was not accepted")
      const revoked = { ...row.admitted, decision: "revoke" as const, sequence: row.admitted.sequence + 1 }
      yield* store.admit(
        revoked,
        { ...row.admission, payload: "b3RoZXI=" },
        "alice",
        yield* Clock.currentTimeMillis
      )
      yield* (world.devices[0] as RolloutDevice).poll
      yield* (world.devices[0] as RolloutDevice).end("succeeded")
      yield* pass(15_001)
      const { rollout } = yield* shown(world, plan.id)
      assert.deepInclude(rollout, { state: "completed" })
      assert.deepInclude(rollout.counts, { succeeded: 1, missing: 1 })
    })
  )
})

describe("what a rollout refuses", () => {
  it.effect("a device in two of them, an order other than planned, words out of turn or by strangers", () =>
    Effect.gen(function* () {
      const { plan, world } = yield* underWay(phases(1, 1))
      yield* settle
      const atMs = yield* Clock.currentTimeMillis
      const other = planOf(world.devices.slice(1), world.payload, atMs, phases(1), {}, 1)
      assert.deepInclude((yield* world.open(other)).json, { code: "in_rollout" })
      assert.strictEqual((yield* world.open(plan)).status, 200, "the same plan again is no mistake")

      assert.strictEqual((yield* world.steer(plan.id, "pause", 3, 0)).status, 200)
      assert.deepInclude((yield* world.steer(plan.id, "resume", 2, 0)).json, { code: "stale_control" })
      assert.deepInclude((yield* world.steer(plan.id, "resume", 4, 1)).json, { code: "refused" })
      assert.strictEqual((yield* world.steer(plan.id, "resume", 4, 0)).status, 200)
      assert.deepInclude((yield* world.steer(plan.id, "resume", 5, 0)).json, { code: "not_paused" })
    })
  )

  it.effect("an order that differs from the plan", () =>
    Effect.gen(function* () {
      const world = yield* makeRollouts(2)
      const plan = planOf(world.devices, world.payload, yield* Clock.currentTimeMillis, phases(1, 1))
      yield* world.open(plan)
      const planned = plan.phases[0]?.devices[0] as { device: never; order: OrderId }
      const base = { id: planned.order, device: planned.device, counter: 7 }
      for (const changes of [
        { device: (world.devices[1] as RolloutDevice).id },
        { lane: "service" as const },
        { expires_at_ms: plan.expires_at_ms - 1, deadline_at_ms: plan.expires_at_ms - 1 }
      ]) {
        const reply = yield* world.submitOrder({ ...base, ...changes })
        assert.strictEqual(reply.status, 422, JSON.stringify(changes))
      }
      assert.strictEqual((yield* world.submitOrder(base)).status, 200)
    })
  )
})
