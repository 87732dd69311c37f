/** A server that hides, forgets or makes up: each shows in the operator's own commands as an alarm. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { writeDeviceRecord } from "../../src/adapters/operator/DeviceBook.ts"
import { judgeWord, overdueText, owedReceipts } from "../../src/adapters/operator/DeviceWord.ts"
import { ManagementClient, ServerProblem } from "../../src/adapters/operator/ManagementClient.ts"
import { OperatorHomeAt, writeJson } from "../../src/adapters/operator/OperatorHome.ts"
import { forgottenBy } from "../../src/adapters/operator/ReceiptChain.ts"
import { type DeviceRecord, SentOrder, sentOrderFile } from "../../src/adapters/operator/Records.ts"
import { keepRoot } from "../../src/adapters/operator/TrustStore.ts"
import { CryptoEngine } from "../../src/ports/CryptoEngine.ts"
import { forgottenOrders, unseenOrders } from "../../src/programs/cli/Withheld.ts"
import type { DeviceStatement } from "../../src/schemas/DeviceStatement.ts"
import type { DeviceId } from "../../src/schemas/Ids.ts"
import type { RolloutControl } from "../../src/schemas/Rollout.ts"
import { statementOf } from "../support/fleet.ts"
import {
  device,
  deviceRecord,
  engine,
  nowMs,
  otherDevice,
  signAsOperator,
  signedOrder,
  someDigest,
  trust
} from "../support/operators.ts"
import { rolloutIdOf } from "../support/rollouts.ts"

const minute = 60_000
const { digest, envelope, order } = signedOrder(3)
const sent: SentOrder = {
  type: "postern/sent-order/v1",
  order: order.id,
  device: device.id as DeviceId,
  lane: "job",
  counter: 3,
  digest,
  envelope,
  name: "test",
  submitted: true,
  deadline_at_ms: order.deadline_at_ms,
  receipt: null
}
const last = { root_version: 1, counter: 3, digest }
const record: DeviceRecord = { ...deviceRecord, last_order: last }
const mark = (counter: number, order_digest = someDigest("9")) => ({ root_version: 1, counter, order_digest })

/** The book after the device's word was heard. */
const heard = (word: Partial<DeviceStatement>, before = record, atMs = nowMs) =>
  judgeWord(engine, before, statementOf(word), atMs)

describe("the device's own word", () => {
  it("tells a device that is away from a server that withholds, once the deadline has passed", () => {
    const late = order.deadline_at_ms + minute
    assert.match(overdueText(record, order), /the device is away, or the server withholds something/)
    assert.match(overdueText(heard({ at_ms: nowMs }).record, order), /was last heard before it/)
    const without = heard({ at_ms: late, high_water: mark(2) }).record
    assert.match(overdueText(without, order), /had not been given the order/)
    const withIt = heard({ at_ms: late, high_water: mark(3, digest) }).record
    assert.match(overdueText(withIt, order), /had taken the order/)
  })
  it("shows receipts that the server keeps back", () => {
    const claims = heard({ last_receipt: 5 }).record
    assert.deepStrictEqual(owedReceipts(claims, nowMs + 14 * minute), [])
    const later = heard({ last_receipt: 8, at_ms: nowMs + 10 * minute }, claims, nowMs + 10 * minute).record
    assert.match(owedReceipts(later, nowMs + 16 * minute).join(), /receipt 5 .* none above 0/)
    const shown = { ...later, last_receipt: { number: 5, digest: someDigest("5") } }
    assert.deepStrictEqual(owedReceipts(shown, nowMs + 16 * minute), [])
    const next = heard({ last_receipt: 8, at_ms: nowMs + 17 * minute }, shown, nowMs + 17 * minute).record
    assert.deepStrictEqual(owedReceipts(next, nowMs + 18 * minute), [], "it has its quarter of an hour")
  })
  it("shows that the device took another order than the one that was signed, or lost what it knew", () => {
    const alarms = heard({ high_water: mark(3, digest) }, heard({ high_water: mark(2) }).record).alarms
    assert.deepStrictEqual(alarms, [])
    assert.deepStrictEqual(heard({ high_water: mark(3, digest) }).alarms, [])
    const before = heard({ high_water: mark(3), at_ms: nowMs }).record
    assert.match(
      heard({ high_water: mark(3), at_ms: nowMs + 1 }, before).alarms.join(),
      /another order number 3/
    )
    assert.match(heard({ high_water: mark(2), at_ms: nowMs + 1 }, before).alarms.join(), /knows less/)
  })
  it("is not the server's to leave out, to make up or to set back", () => {
    const after = heard({ high_water: mark(3, digest), at_ms: nowMs + minute }).record
    assert.match(judgeWord(engine, after, null, nowMs).alarms.join(), /no longer shows/)
    const foreign = judgeWord(engine, after, statementOf({}, otherDevice), nowMs)
    assert.match(foreign.alarms.join(), /did not sign/)
    assert.strictEqual(heard({ at_ms: nowMs }, after).record, after, "an older word changes nothing")
  })
})

/** A server that answers as the test says. */
const lying = (answers: { readonly show?: unknown; readonly sequence?: unknown }) => {
  const missing = new ServerProblem({
    kind: "not_found",
    code: null,
    address: "http://liar.test",
    message: "there is no such job"
  })
  const api = {
    jobs: { show: () => (answers.show === undefined ? Effect.fail(missing) : Effect.succeed(answers.show)) },
    devices: { sequence: () => Effect.succeed(answers.sequence) }
  }
  return Layer.succeed(ManagementClient, {
    address: "http://liar.test",
    call: (_what: string, use: (client: never) => Effect.Effect<unknown, unknown>) => use(api as never)
  } as never)
}

/** Runs with an operator's home in which the order stands as sent. */
const atHome = <A, E, R>(
  book: DeviceRecord,
  server: Layer.Layer<ManagementClient>,
  use: Effect.Effect<A, E, R>
) =>
  Effect.acquireUseRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "postern-withheld-"))),
    (folder) =>
      Effect.gen(function* () {
        yield* keepRoot(1, trust.envelope)
        yield* writeDeviceRecord(book)
        yield* writeJson(sentOrderFile(sent.order), SentOrder, sent)
        return yield* use
      }).pipe(
        Effect.provide(Layer.mergeAll(OperatorHomeAt(folder), server, Layer.succeed(CryptoEngine, engine)))
      ),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
  )

describe("the operator's own records", () => {
  const past = TestClock.setTime(order.deadline_at_ms + minute)
  const cases = [
    ["an order that the server forgot", record, undefined, /the server forgot order .* for pi-cellar/],
    [
      "one it calls removed without a receipt",
      record,
      { receipt: null, state: "removed" },
      /no receipt for order/
    ],
    ["one it keeps from its lists", record, { receipt: null, state: "queued" }, /no receipt for order/],
    ["not one that was canceled before it was taken", record, { receipt: null, state: "canceled" }, /^$/],
    [
      "not one for a ledger that counts no more",
      { ...record, anew_at_ms: order.issued_at_ms + 1 },
      undefined,
      /^$/
    ],
    ["not one for a device that was turned away", { ...record, status: "revoked" as const }, undefined, /^$/]
  ] as const
  it.effect.each(cases.map(([what, book, show, alarm]) => ({ what, book, show, alarm })))(
    "show $what",
    ({ alarm, book, show }) =>
      Effect.gen(function* () {
        yield* past
        const alarms = yield* atHome(book, lying({ show }), unseenOrders(new Set()))
        assert.match(alarms.join(), alarm)
      })
  )
  it.effect("show nothing that was withdrawn, where an operator signed that its rollout ends", () =>
    Effect.gen(function* () {
      const id = rolloutIdOf(1)
      const alarmsAfter = Effect.fnUntraced(function* (
        action: RolloutControl["action"],
        rollout: RolloutControl["rollout"]
      ) {
        const control = { action, rollout, phase: 0, sequence: 1, root_version: 1, issued_at_ms: nowMs }
        const signed = signAsOperator("rolloutControl", { type: "postern/rollout-control/v1", ...control })
        const jobs = { show: () => Effect.succeed({ receipt: null, state: "removed" }) }
        const rollouts = {
          show: () => Effect.succeed({ rollout: { id }, controls: [signed.envelope] })
        }
        const server = Layer.succeed(ManagementClient, {
          address: "http://127.0.0.1:8470",
          call: (_what, use) => use({ jobs, rollouts } as never) as never
        })
        const planned = writeJson(sentOrderFile(sent.order), SentOrder, { ...sent, rollout: id })
        return yield* atHome(record, server, Effect.andThen(planned, unseenOrders(new Set())))
      })
      yield* past
      assert.deepStrictEqual(yield* alarmsAfter("abort", id), [])
      assert.lengthOf(yield* alarmsAfter("pause", id), 1, "nobody ended it")
      assert.lengthOf(yield* alarmsAfter("abort", rolloutIdOf(2)), 1, "another one was ended")
    })
  )
  it.effect("show nothing before the deadline, and nothing twice", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(nowMs)
      const queued = lying({ show: { receipt: null, state: "queued" } })
      assert.deepStrictEqual(yield* atHome(record, queued, unseenOrders(new Set())), [])
      yield* past
      assert.deepStrictEqual(yield* atHome(record, lying({}), unseenOrders(new Set([order.id]))), [])
    })
  )
  it.effect("show a sequence that is not the one that was signed", () =>
    Effect.gen(function* () {
      const say = (next_counter: number, previous: unknown) =>
        atHome(
          record,
          lying({ sequence: { next_counter, previous, root_version: 1 } }),
          forgottenOrders(record.device)
        )
      assert.deepStrictEqual(yield* say(4, digest), [])
      assert.match((yield* say(3, null)).join(), /forgot orders for pi-cellar/)
      assert.match((yield* say(4, someDigest("6"))).join(), /another order number 3/)
      assert.deepStrictEqual(forgottenBy(record, { nextCounter: 9, previous: someDigest("6") }), [])
      const leap = yield* say(Number.MAX_SAFE_INTEGER, digest)
      assert.match(leap.join(), /number 9007199254740991, far above the last one known here \(3\)/)
    })
  )
})
