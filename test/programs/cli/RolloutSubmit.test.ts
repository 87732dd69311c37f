import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { deviceRecord as recordOf, writeDeviceRecord } from "../../../src/adapters/operator/DeviceBook.ts"
import { ManagementClient, ServerProblem } from "../../../src/adapters/operator/ManagementClient.ts"
import { OperatorHome, OperatorHomeAt, writeJson } from "../../../src/adapters/operator/OperatorHome.ts"
import { keyFileBytes, profileOf } from "../../../src/adapters/operator/OperatorKeys.ts"
import { OperatorProfile, operatorFile, operatorKeyFile } from "../../../src/adapters/operator/Records.ts"
import { rolloutRecord, writeRolloutRecord } from "../../../src/adapters/operator/RolloutRecords.ts"
import { keepRoot } from "../../../src/adapters/operator/TrustStore.ts"
import { SystemEntropy } from "../../../src/adapters/SystemEntropy.ts"
import { verifyOrder } from "../../../src/crypto/Trust.ts"
import { CryptoEngine } from "../../../src/ports/CryptoEngine.ts"
import { resumeGroup } from "../../../src/programs/cli/RolloutSubmit.ts"
import { Screen } from "../../../src/programs/cli/Screen.ts"
import type { DsseEnvelope } from "../../../src/schemas/Dsse.ts"
import type { Digest, Name } from "../../../src/schemas/Ids.ts"
import { Limits } from "../../../src/schemas/Limits.ts"
import type { WorkOrder } from "../../../src/schemas/WorkOrder.ts"
import { deviceRecord, engine, operator, server, signAsOperator, trust } from "../../support/operators.ts"
import { planOf, RolloutDevice } from "../../support/rollouts.ts"

const devices = Array.from(
  { length: 4 },
  (_, index) =>
    new RolloutDevice(index, () => {
      throw new Error("these devices have no server")
    })
)
const payload = {
  digest: `sha256:${"7".repeat(64)}` as Digest,
  size_bytes: 10,
  unpacked_bytes: 10,
  entries: 1
}
const plan = planOf(devices, payload, 0, [{ size: 1 }, { size: 3 }])
const { digest, envelope } = signAsOperator("rollout", plan)

const problem = (kind: ServerProblem["kind"], code: ServerProblem["code"]) =>
  new ServerProblem({ kind, code, address: "http://127.0.0.1:8470", message: "it said no" })

/** A server that takes orders, until it has had enough of them. */
class FakeServer {
  readonly plans: Array<DsseEnvelope> = []
  readonly orders: Array<WorkOrder> = []
  /** Orders it still takes before it fails. */
  left = Number.POSITIVE_INFINITY
  /** Places that somebody else took just before. */
  taken = 0
  /** Why it does not take the plan. */
  objection: ServerProblem | null = null

  readonly layer = Layer.succeed(ManagementClient, {
    address: "http://127.0.0.1:8470",
    call: (_what, use) => use(this.api as never) as never
  })

  private readonly api = {
    rollouts: {
      open: ({ payload: opened }: { readonly payload: DsseEnvelope }) =>
        Effect.suspend(() =>
          this.objection === null
            ? Effect.sync(() => void this.plans.push(opened))
            : Effect.fail(this.objection)
        ),
      jobs: () => Effect.sync(() => ({ jobs: this.orders.map(({ id }) => ({ id })) }))
    },
    devices: {
      sequence: () => Effect.succeed({ next_counter: 7 + this.taken, previous: null, root_version: 1 })
    },
    jobs: {
      submit: ({ payload: sent }: { readonly payload: DsseEnvelope }) =>
        Effect.suspend(() => {
          const verified = verifyOrder(engine, trust.root, sent)
          if (verified._tag === "Failure") throw verified.failure
          if (this.left === 0) return Effect.fail(problem("unexpected", null))
          const order = verified.success.document
          if (order.counter < 7 + this.taken + Limits.rolloutReserve)
            return Effect.fail(problem("conflict", "sequence_taken"))
          this.left--
          this.orders.push(order)
          return Effect.succeed({ id: order.id })
        })
    }
  }
}

const silent = Layer.succeed(Screen, {
  outIsTerminal: false,
  errIsTerminal: false,
  canAsk: false,
  color: false,
  columns: () => 80,
  write: () => Effect.void,
  failure: () => undefined
})

/** The home of the operator whose plan it is. */
const furnished = Effect.gen(function* () {
  const home = yield* OperatorHome
  yield* writeJson(operatorFile, OperatorProfile, profileOf(operator))
  const file = yield* Effect.provide(keyFileBytes(operator.stored, null), SystemEntropy)
  yield* home.createBytes(operatorKeyFile, file)
  yield* keepRoot(1, trust.envelope)
  for (const { id, name, ring } of devices) {
    const own = { device: id, name: name as Name, signing_key: ring.signingKey, recipient: ring.recipient }
    yield* writeDeviceRecord({ ...deviceRecord, ...own })
  }
  yield* writeRolloutRecord({
    type: "postern/rollout-record/v1",
    id: plan.id,
    digest,
    envelope,
    sealed: false,
    submitted: false,
    ended: false
  })
})

/** Runs over a home and a server of its own. */
const withHome = <E>(
  work: (
    made: FakeServer
  ) => Effect.Effect<
    void,
    E,
    OperatorHome | ManagementClient | Screen | CryptoEngine | Layer.Success<typeof SystemEntropy>
  >
) =>
  Effect.acquireUseRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "postern-rollout-"))),
    (folder) => {
      const made = new FakeServer()
      return Effect.andThen(furnished, work(made)).pipe(
        Effect.provide(
          Layer.mergeAll(
            OperatorHomeAt(folder),
            made.layer,
            silent,
            SystemEntropy,
            Layer.succeed(CryptoEngine, engine)
          )
        )
      )
    },
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
  )

describe("a rollout whose submission was cut off", () => {
  it.effect("goes on with the same plan and the orders that are missing, under the ids of the plan", () =>
    withHome((made) =>
      Effect.gen(function* () {
        made.left = 2
        yield* Effect.flip(resumeGroup(plan.id))
        assert.isFalse((yield* rolloutRecord(plan.id))?.submitted)
        assert.lengthOf(made.orders, 2)

        // The third was signed; its place was taken meanwhile.
        made.left = 1
        made.taken = 3
        yield* Effect.flip(resumeGroup(plan.id))
        made.left = Number.POSITIVE_INFINITY
        yield* resumeGroup(plan.id)

        const planned = plan.phases.flatMap((phase) => phase.devices)
        assert.deepStrictEqual(
          made.orders.map(({ device, id }) => ({ device, order: id })),
          planned,
          "each order once, and for the device of the plan"
        )
        assert.deepStrictEqual(
          made.orders.map(({ counter }) => counter - Limits.rolloutReserve),
          [7, 7, 10, 10]
        )
        for (const order of made.orders) {
          assert.strictEqual(order.expires_at_ms, plan.expires_at_ms)
          assert.strictEqual(order.payload.digest, payload.digest)
          assert.deepStrictEqual(order.results_to as ReadonlyArray<string>, [
            operator.recipient,
            server.recipient
          ])
        }
        assert.isTrue((yield* rolloutRecord(plan.id))?.submitted)
        assert.isTrue(made.plans.every((opened) => opened.payload === envelope.payload))
        const first = yield* recordOf((devices[0] as RolloutDevice).id)
        assert.isNull(first?.last_order, "other orders go below it")
      })
    )
  )

  it.effect("is still known here when the server cannot take its plan again now", () =>
    withHome((made) =>
      Effect.gen(function* () {
        made.left = 2
        yield* Effect.flip(resumeGroup(plan.id))
        for (const [kind, code] of [
          ["conflict", "root_expired"],
          ["refused", null]
        ] as const) {
          made.objection = problem(kind, code)
          yield* Effect.flip(resumeGroup(plan.id))
          assert.strictEqual((yield* rolloutRecord(plan.id))?.digest, digest)
        }
        made.objection = null
        made.left = Number.POSITIVE_INFINITY
        yield* resumeGroup(plan.id)
        assert.lengthOf(made.orders, 4)
      })
    )
  )

  it.effect("gives a restored server the orders again that it lost", () =>
    withHome((made) =>
      Effect.gen(function* () {
        yield* resumeGroup(plan.id)
        const lost = made.orders.splice(1, 2)
        yield* resumeGroup(plan.id)
        assert.deepStrictEqual(made.orders.slice(2), lost, "the very same ones")
      })
    )
  )
})
