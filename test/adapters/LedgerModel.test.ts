import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import fc from "fast-check"
import type { Ledger } from "../../src/ports/Ledger.ts"
import { Limits } from "../../src/schemas/Limits.ts"
import { accept, conclusionAfter, memoryLedger, orderId } from "./support/ledger.ts"
import { property } from "./support/properties.ts"

type Open = Ledger["Service"]

/** What the model test does to ledger and model alike. */
const command = fc.oneof(
  fc.record({
    do: fc.constant("accept" as const),
    order: fc.integer({ min: 1, max: 8 }),
    root: fc.integer({ min: 1, max: 2 })
  }),
  fc.record({
    do: fc.constantFrom("advance" as const, "requeue" as const),
    order: fc.integer({ min: 1, max: 8 })
  }),
  fc.record({
    do: fc.constant("begin" as const),
    order: fc.integer({ min: 1, max: 8 }),
    idempotent: fc.boolean()
  }),
  fc.record({
    do: fc.constant("output" as const),
    order: fc.integer({ min: 1, max: 8 }),
    sequence: fc.nat(3)
  }),
  fc.record({
    do: fc.constant("conclude" as const),
    order: fc.option(fc.integer({ min: 1, max: 8 })),
    state: fc.constantFrom("succeeded" as const, "rejected" as const, "timed_out" as const)
  }),
  fc.record({ do: fc.constant("send" as const), count: fc.nat(4) })
)
type Command = typeof command extends fc.Arbitrary<infer A> ? A : never

interface ModelOrder {
  place: readonly [number, number]
  state: string
  attempts: number
  idempotent: boolean
  version: number
}

/** The ledger as a few lines of plain code: what must be true of it. */
class Model {
  readonly orders = new Map<number, ModelOrder>()
  readonly outbox: Array<string> = []
  readonly counts = { succeeded: 0, failed: 0, rejected: 0 }
  mark: readonly [number, number] = [0, 0]
  receipts = 0

  private open(order: number): ModelOrder | undefined {
    const known = this.orders.get(order)
    return known !== undefined && !["succeeded", "rejected", "timed_out"].includes(known.state)
      ? known
      : undefined
  }

  /** Whether the ledger must succeed; the model then has changed too. */
  apply(step: Command): boolean | string {
    switch (step.do) {
      case "accept": {
        const place = [step.root, step.order] as const
        if (place[0] < this.mark[0] || (place[0] === this.mark[0] && place[1] <= this.mark[1]))
          return "out_of_order"
        if (this.orders.has(step.order)) return "replayed"
        this.orders.set(step.order, { place, state: "queued", attempts: 0, idempotent: false, version: 0 })
        this.mark = place
        return "accepted"
      }
      case "advance": {
        const known = this.open(step.order)
        if (known === undefined) return false
        known.state = "downloading"
        known.version++
        return true
      }
      case "requeue": {
        const known = this.open(step.order)
        if (known === undefined || (known.attempts > 0 && !known.idempotent)) return false
        known.state = "queued"
        known.version++
        return true
      }
      case "begin": {
        const known = this.open(step.order)
        if (known === undefined) return false
        const mayRepeat = step.idempotent && (known.attempts === 0 || known.idempotent)
        if (known.attempts >= (mayRepeat ? Limits.runAttempts : 1)) return false
        Object.assign(known, {
          state: "running",
          attempts: known.attempts + 1,
          idempotent: step.idempotent,
          version: known.version + 1
        })
        return true
      }
      case "output": {
        const name = `output ${step.order} ${step.sequence}`
        if (!this.outbox.includes(name)) this.outbox.push(name)
        return true
      }
      case "conclude": {
        if (step.order !== null) {
          const known = this.open(step.order)
          if (known === undefined) return false
          known.state = step.state
          known.version++
        }
        this.receipts++
        this.outbox.push(`receipt ${this.receipts}`)
        this.counts[step.state === "timed_out" ? "failed" : step.state]++
        return true
      }
      case "send":
        this.outbox.splice(0, step.count)
        return true
    }
  }
}

const applyTo = (ledger: Open, step: Command): Effect.Effect<unknown, unknown> => {
  switch (step.do) {
    case "accept":
      return accept(ledger, step.order, { counter: step.order, root_version: step.root })
    case "advance":
      return ledger.advance(orderId(step.order), "downloading")
    case "requeue":
      return ledger.requeue(orderId(step.order))
    case "begin":
      return ledger.begin(orderId(step.order), step.idempotent, 1_700)
    case "output":
      return ledger.putOutput(orderId(step.order), step.sequence, new Uint8Array(3))
    case "conclude":
      return Effect.flatMap(ledger.chainHead, (head) =>
        ledger.conclude(conclusionAfter(head, step.order, step.state))
      )
    case "send":
      return Effect.flatMap(ledger.outbox(step.count), ledger.acknowledge)
  }
}

const compare = Effect.fnUntraced(function* (ledger: Open, model: Model) {
  for (const [number, expected] of model.orders) {
    const row = yield* ledger.find(orderId(number))
    const found = row === null ? null : [row.state, row.attempts, row.idempotent, row.version]
    assert.deepStrictEqual(found, [expected.state, expected.attempts, expected.idempotent, expected.version])
  }
  const names = (yield* ledger.outbox(1_000)).map((item) =>
    item.kind === "output"
      ? `output ${Number(item.order.slice(-12))} ${item.sequence}`
      : item.kind === "receipt"
        ? `receipt ${item.number}`
        : item.kind
  )
  assert.deepStrictEqual(names, model.outbox)
  assert.strictEqual((yield* ledger.outboxSize).items, model.outbox.length)
  assert.deepStrictEqual(yield* ledger.counts, model.counts)
  assert.strictEqual((yield* ledger.chainHead).number, model.receipts)
  const mark = yield* ledger.highWater
  assert.deepStrictEqual([mark?.root_version ?? 0, mark?.counter ?? 0], [...model.mark])
})

describe("the ledger against a model", () => {
  it.effect("agrees after every step, and a failed step changes nothing", () =>
    property(fc.array(command, { maxLength: 40 }), 80, (steps) =>
      Effect.gen(function* () {
        const ledger = yield* memoryLedger
        const model = new Model()
        for (const step of steps) {
          const expected = model.apply(step)
          const outcome = yield* Effect.result(applyTo(ledger, step))
          if (typeof expected === "string")
            assert.strictEqual(outcome._tag === "Success" ? outcome.success : "", expected)
          else assert.strictEqual(outcome._tag === "Success", expected, JSON.stringify(step))
          yield* compare(ledger, model)
        }
      })
    )
  )
})
