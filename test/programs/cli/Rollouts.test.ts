import { assert, describe, it } from "@effect/vitest"
import { Effect, Option, Result } from "effect"
import fc from "fast-check"
import type { DeviceRecord } from "../../../src/adapters/operator/Records.ts"
import { rolloutBar } from "../../../src/programs/cli/RolloutFollowing.ts"
import {
  parsePercent,
  parseTargets,
  phaseSizes,
  planPhases,
  type RolloutValues,
  requireLifetime
} from "../../../src/programs/cli/RolloutPhases.ts"
import {
  earlyReleases,
  type PhaseWitness,
  reachablePhase
} from "../../../src/programs/cli/RolloutVerification.ts"
import { stateText } from "../../../src/programs/cli/RolloutViews.ts"
import type { Digest, Name } from "../../../src/schemas/Ids.ts"
import type { RolloutView } from "../../../src/schemas/Rollout.ts"
import { deviceRecord, nowMs } from "../../support/operators.ts"
import { planOf, RolloutDevice } from "../../support/rollouts.ts"

const devices = Array.from(
  { length: 5 },
  (_, index) =>
    new RolloutDevice(index, () => {
      throw new Error("these devices have no server")
    })
)
const records: ReadonlyArray<DeviceRecord> = devices.map(({ id, name }) => ({
  ...deviceRecord,
  device: id,
  name: name as Name
}))

const values = (changes: Partial<RolloutValues> = {}): RolloutValues => ({
  group: Option.some("cellars"),
  canary: Option.none(),
  first: [],
  phases: Option.none(),
  success: Option.none(),
  maximumFailures: Option.none(),
  soak: 60_000,
  phaseTimeout: 3_600_000,
  ...changes
})

const planned = (changes: Partial<RolloutValues> = {}) =>
  Effect.runSync(Effect.result(planPhases(records, values(changes))))
const sizesOf = (changes: Partial<RolloutValues> = {}) =>
  Result.match(planned(changes), {
    onFailure: (error) => error.message,
    onSuccess: ({ phases }) => phases.map((phase) => phase.records.length)
  })

describe("the phases of a rollout", () => {
  it("are a canary and everybody else, unless something else is asked for", () => {
    assert.deepStrictEqual(sizesOf(), [1, 4])
    assert.deepStrictEqual(sizesOf({ canary: Option.some(0) }), [5])
    assert.deepStrictEqual(sizesOf({ phases: Option.some("50%,100%") }), [1, 2, 2])
    assert.deepStrictEqual(sizesOf({ phases: Option.some("1,3,100%") }), [1, 2, 2])
    assert.include(sizesOf({ phases: Option.some("50%") }), "end with everybody")
    assert.include(sizesOf({ phases: Option.some("50%,20%,100%") }), "must rise")
    for (const list of ["50%,20%,100%", "50%,20%", "50%", "100%,50%"]) {
      assert.isUndefined(parseTargets(list, 1), list)
    }
    assert.deepStrictEqual(parseTargets("1", 1), [1])
    assert.include(sizesOf({ canary: Option.some(6) }), "between 0 and the group's 5 devices")
  })

  it("put those first who are named", () => {
    const found = planned({ first: ["pi-3"] })
    const names = Result.isSuccess(found)
      ? found.success.phases.map(({ records: part }) => part.map(({ name }) => name))
      : []
    assert.deepStrictEqual(names as unknown, [["pi-3"], ["pi-0", "pi-1", "pi-2", "pi-4"]])
    assert.include(sizesOf({ first: ["pi-9"] }), "does not name one device")
  })

  it("always reach everybody exactly once", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 256 }),
        fc.nat(256),
        fc.array(fc.nat(100), { maxLength: 6 }),
        (total, canary, shares) => {
          const list = [...shares].sort((left, right) => left - right).map((share) => `${share}%`)
          const targets = parseTargets([...list, "100%"].join(","), total)
          assert.isDefined(targets)
          const sizes = phaseSizes(Math.min(canary, total), targets ?? [])
          assert.strictEqual(
            sizes.reduce((sum, size) => sum + size, 0),
            total
          )
          assert.isTrue(sizes.every((size) => size > 0))
        }
      )
    )
  })

  it("must fit into the orders' lifetime with every time-out and soak", () => {
    const found = planned()
    assert.isTrue(Result.isSuccess(found))
    if (Result.isFailure(found)) return
    const needed = 2 * 3_660_000
    assert.isTrue(
      Result.isSuccess(Effect.runSync(Effect.result(requireLifetime(found.success.phases, needed))))
    )
    assert.isTrue(
      Result.isFailure(Effect.runSync(Effect.result(requireLifetime(found.success.phases, needed - 1))))
    )
  })

  it("take a share in percent, with or without the sign", () => {
    assert.deepStrictEqual(["95%", "0", "100", "101%", "-1", "5.5%", ""].map(parsePercent), [
      95,
      0,
      100,
      undefined,
      undefined,
      undefined,
      undefined
    ])
  })
})

const payload = {
  digest: `sha256:${"7".repeat(64)}` as Digest,
  size_bytes: 10,
  unpacked_bytes: 10,
  entries: 1
}
const plan = planOf(devices, payload, nowMs, [{ size: 2, soak_ms: 600_000 }, { size: 3 }])
const second = 1_000

const witness = (phase: number, atSeconds: number | null, succeeded = true): PhaseWitness => ({
  name: `pi-${phase}`,
  phase,
  succeeded: succeeded && atSeconds !== null,
  receivedAtMs: atSeconds === null ? null : nowMs + atSeconds * second,
  endedAtMs: atSeconds === null ? null : nowMs + atSeconds * second
})

/** Judged a day later. */
const early = (witnesses: ReadonlyArray<PhaseWitness>, waived = -1) =>
  earlyReleases(plan, witnesses, waived, nowMs + 86_400_000)

describe("a server that releases early", () => {
  it("is found out when a later phase has receipts and the one before has not succeeded", () => {
    assert.deepStrictEqual(early([witness(0, 1), witness(0, 2), witness(1, 700)]), [])
    assert.lengthOf(early([witness(0, 1), witness(0, null), witness(1, 700)]), 1, "one is silent")
    assert.lengthOf(early([witness(0, 1), witness(0, 2, false), witness(1, 700)]), 1, "one failed")
    assert.lengthOf(early([witness(1, 700, false)]), 1, "the canaries were skipped; a failed one counts too")
    assert.deepStrictEqual(early([witness(0, 1), witness(0, null), witness(1, null)]), [])
  })

  it("is found out when it did not wait, as far as clocks tell", () => {
    assert.lengthOf(early([witness(0, 1), witness(0, 2), witness(1, 10)]), 1, "the soak was cut short")
    assert.deepStrictEqual(
      early([witness(0, 1), witness(0, 2), witness(1, 500)]),
      [],
      "within what clocks differ"
    )
    const ahead = witness(0, 400 * 86_400)
    assert.deepStrictEqual(
      early([ahead, witness(0, 2), witness(1, 10)]),
      [],
      "a clock of next year proves nothing"
    )
  })

  it("is not blamed for what an operator decided", () => {
    assert.deepStrictEqual(early([witness(0, 1), witness(0, 2, false), witness(1, 10)], 0), [])
  })
})

describe("the phase that a resume may be signed for", () => {
  it("is the one that the devices' receipts have reached, whatever the server says", () => {
    const reached = (witnesses: ReadonlyArray<PhaseWitness>, waived = -1) =>
      reachablePhase(plan, witnesses, waived)
    assert.strictEqual(reached([]), 0)
    assert.strictEqual(reached([witness(0, 1), witness(0, 2, false)]), 0)
    assert.strictEqual(reached([witness(0, 1), witness(0, 2)]), 1)
    assert.strictEqual(reached([witness(0, 1), witness(0, 2, false)], 0), 1, "an operator went on")
    assert.strictEqual(reached([0, 0, 1, 1, 1].map((phase) => witness(phase, 1))), 1, "there is no later one")
  })
})

describe("a rollout in words", () => {
  it("says where it stands", () => {
    const view = { phase: 1, phases: 3, settled_at_ms: null, state: "running", reason: null } as RolloutView
    assert.strictEqual(stateText(view), "phase 2 of 3")
    assert.strictEqual(stateText({ ...view, settled_at_ms: 5 }), "phase 2 of 3 has succeeded, soaking")
    assert.include(stateText({ ...view, state: "paused", reason: "too_few_succeeded" }), "too few")
    assert.strictEqual(stateText({ ...view, state: "completed" }), "completed")
    const counts = { absent: 0, waiting: 1, open: 1, succeeded: 2, failed: 0, missing: 0, withdrawn: 0 }
    assert.strictEqual(
      rolloutBar({ ...view, counts }),
      "phase 2 of 3 [############............] 2 succeeded, 1 open, 1 waiting"
    )
  })
})
