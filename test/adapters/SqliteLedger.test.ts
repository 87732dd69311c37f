import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Limits } from "../../src/schemas/Limits.ts"
import {
  accept,
  conclusionAfter,
  digestFor,
  envelope,
  memoryLedger,
  orderDigest,
  orderId,
  orderOf,
  reasonOf
} from "./support/ledger.ts"

describe("the ledger", () => {
  it.effect("takes orders above the high-water mark, once", () =>
    Effect.gen(function* () {
      const ledger = yield* memoryLedger
      assert.isNull(yield* ledger.highWater)
      assert.strictEqual(yield* accept(ledger, 5), "accepted")
      assert.strictEqual(yield* accept(ledger, 5), "out_of_order")
      assert.strictEqual(yield* accept(ledger, 4), "out_of_order")
      assert.strictEqual(yield* accept(ledger, 7, { id: orderId(5) }), "replayed")
      assert.deepStrictEqual(yield* ledger.highWater, {
        root_version: 1,
        counter: 5,
        order_digest: orderDigest(5)
      })
      // A newer root begins a higher place whatever the counter.
      assert.strictEqual(yield* accept(ledger, 1, { root_version: 2 }), "accepted")
      assert.strictEqual(yield* accept(ledger, 9, { root_version: 1 }), "out_of_order")
      const line = (yield* ledger.unfinished()).map((row) => row.order.counter)
      assert.deepStrictEqual(line, [5, 1])
    })
  )

  it.effect("keeps lanes apart, and orders as they came", () =>
    Effect.gen(function* () {
      const ledger = yield* memoryLedger
      yield* accept(ledger, 1)
      yield* accept(ledger, 2, { lane: "service" })
      yield* accept(ledger, 3)
      const lane = (name: "job" | "service") =>
        Effect.map(ledger.unfinished(name), (rows) => rows.map((row) => row.order.counter))
      assert.deepStrictEqual(yield* lane("job"), [1, 3])
      assert.deepStrictEqual(yield* lane("service"), [2])
      assert.deepStrictEqual((yield* ledger.find(orderId(2)))?.order, orderOf(2, { lane: "service" }))
      assert.isNull(yield* ledger.find(orderId(9)))
    })
  )

  it.effect("counts attempts before the start, and never begins twice what may run once", () =>
    Effect.gen(function* () {
      const ledger = yield* memoryLedger
      yield* accept(ledger, 1)
      assert.strictEqual(yield* ledger.advance(orderId(1), "downloading"), 1)
      assert.strictEqual(yield* ledger.advance(orderId(1), "verifying"), 2)
      assert.deepStrictEqual(yield* ledger.begin(orderId(1), false, 1_700), { version: 3, attempts: 1 })
      assert.match(
        yield* reasonOf(ledger.begin(orderId(1), false, 1_800)),
        /was begun 1 times; 1 are allowed/
      )
      assert.match(yield* reasonOf(ledger.begin(orderId(1), true, 1_800)), /1 are allowed/)
      assert.match(yield* reasonOf(ledger.requeue(orderId(1))), /may not be run again/)
      const row = yield* ledger.find(orderId(1))
      assert.deepStrictEqual([row?.state, row?.attempts, row?.startedAtMs], ["running", 1, 1_700])

      yield* accept(ledger, 2)
      for (let attempt = 1; attempt <= Limits.runAttempts; attempt++) {
        assert.strictEqual((yield* ledger.begin(orderId(2), true, 1_700)).attempts, attempt)
        yield* ledger.requeue(orderId(2))
      }
      assert.match(yield* reasonOf(ledger.begin(orderId(2), true, 1_800)), /was begun 3 times/)
      assert.match(yield* reasonOf(ledger.advance(orderId(9), "downloading")), /is not known/)
    })
  )

  it.effect("ends an order, its receipt, the chain and the outbox in one step or not at all", () =>
    Effect.gen(function* () {
      const ledger = yield* memoryLedger
      yield* accept(ledger, 1)
      yield* ledger.putOutput(orderId(1), 0, new Uint8Array(10))
      const head = yield* ledger.chainHead
      assert.deepStrictEqual(head, { number: 0, digest: null })
      const artifacts = { path: "/spool/x.age", sizeBytes: 500 }
      const conclusion = { ...conclusionAfter(head, 1), artifacts }
      for (const broken of [
        { ...conclusion, number: 2 },
        { ...conclusion, previous: digestFor("other") },
        { ...conclusion, order: orderId(9) },
        { ...conclusion, orderDigest: digestFor("other") },
        { ...conclusion, order: null }
      ]) {
        yield* Effect.flip(ledger.conclude(broken))
        assert.deepStrictEqual(yield* ledger.chainHead, head)
        assert.strictEqual((yield* ledger.outboxSize).items, 1)
        assert.strictEqual((yield* ledger.find(orderId(1)))?.state, "queued")
        assert.isFalse(yield* ledger.concluded(conclusion.orderDigest))
      }
      yield* ledger.conclude(conclusion)
      assert.isTrue(yield* ledger.concluded(orderDigest(1)))
      assert.strictEqual((yield* ledger.find(orderId(1)))?.state, "succeeded")
      assert.deepStrictEqual(yield* ledger.unfinished(), [])
      assert.deepStrictEqual(
        (yield* ledger.outbox(10)).map((item) => item.kind),
        ["output", "artifacts", "receipt"]
      )
      assert.match(yield* reasonOf(ledger.conclude(conclusionAfter(yield* ledger.chainHead, 1))), /has ended/)
      assert.match(yield* reasonOf(ledger.advance(orderId(1), "downloading")), /has ended/)
      assert.deepStrictEqual(yield* ledger.counts, { succeeded: 1, failed: 0, rejected: 0 })
    })
  )

  it.effect("remembers refusals by key, the newest thousand", () =>
    Effect.gen(function* () {
      const ledger = yield* memoryLedger
      for (let number = 0; number <= Limits.ledgerRefusals; number++) {
        yield* ledger.conclude(conclusionAfter(yield* ledger.chainHead, null, "rejected"))
      }
      assert.isFalse(yield* ledger.concluded(digestFor("refused 1")))
      assert.isTrue(yield* ledger.concluded(digestFor("refused 2")))
      const again = {
        ...conclusionAfter(yield* ledger.chainHead, null, "rejected"),
        orderDigest: digestFor("refused 9")
      }
      assert.match(yield* reasonOf(ledger.conclude(again)), /was concluded before/)
      assert.strictEqual((yield* ledger.counts).rejected, Limits.ledgerRefusals + 1)
    })
  )

  it.effect("forgets a receipt only by number and digest", () =>
    Effect.gen(function* () {
      const ledger = yield* memoryLedger
      yield* ledger.conclude(conclusionAfter(yield* ledger.chainHead, null, "rejected"))
      const [receipt] = yield* ledger.outbox(1)
      if (receipt?.kind !== "receipt") throw new Error("there is no receipt")
      yield* ledger.acknowledge([{ ...receipt, digest: digestFor("other") }])
      yield* ledger.acknowledge([{ ...receipt, number: 2 }])
      assert.strictEqual((yield* ledger.outboxSize).items, 1)
      yield* ledger.acknowledge([receipt])
      assert.deepStrictEqual(yield* ledger.outboxSize, { items: 0, bytes: 0 })
      assert.strictEqual((yield* ledger.chainHead).number, 1)
    })
  )

  it.effect("cuts output when the outbox is full, and drops no receipt", () =>
    Effect.gen(function* () {
      const ledger = yield* memoryLedger
      yield* accept(ledger, 1)
      const large = { path: "/spool/x.age", sizeBytes: Limits.outboxBytes }
      yield* ledger.conclude({ ...conclusionAfter(yield* ledger.chainHead, 1), artifacts: large })
      assert.isFalse(yield* ledger.putOutput(orderId(2), 0, new Uint8Array(1)))
      yield* accept(ledger, 2)
      yield* ledger.conclude(conclusionAfter(yield* ledger.chainHead, 2, "failed"))
      assert.strictEqual((yield* ledger.outboxSize).items, 3)
      assert.match(
        yield* reasonOf(
          ledger.putOutput(orderId(3), 0, new Uint8Array(Limits.outputChunkEncryptedBytes + 1))
        ),
        /chunk/
      )
    })
  )

  it.effect("drops the waiting output of an order that is run again, and no other", () =>
    Effect.gen(function* () {
      const ledger = yield* memoryLedger
      for (const order of [1, 2])
        for (const sequence of [0, 1]) yield* ledger.putOutput(orderId(order), sequence, Uint8Array.of(order))
      assert.isTrue(yield* ledger.putOutput(orderId(1), 0, Uint8Array.of(9)))
      yield* ledger.dropOutput(orderId(1))
      const left = yield* ledger.outbox(10)
      assert.deepStrictEqual(
        left.map((item) => (item.kind === "output" ? [item.order, item.sequence, [...item.bytes]] : [])),
        [
          [orderId(2), 0, [2]],
          [orderId(2), 1, [2]]
        ]
      )
    })
  )

  it.effect("remembers cancels and orders until they expire", () =>
    Effect.gen(function* () {
      const ledger = yield* memoryLedger
      assert.isTrue(yield* ledger.rememberCancel(orderId(1), envelope, 5_000))
      assert.isFalse(yield* ledger.rememberCancel(orderId(1), envelope, 6_000))
      yield* accept(ledger, 1)
      yield* accept(ledger, 2)
      yield* ledger.conclude(conclusionAfter(yield* ledger.chainHead, 1, "canceled"))
      yield* ledger.prune(5_500)
      assert.isTrue(yield* ledger.isCanceled(orderId(1)))
      assert.deepStrictEqual(yield* ledger.cancels, [orderId(1)])
      assert.isNull(yield* ledger.find(orderId(1)))
      // Unfinished orders stay until they are concluded, expired or not.
      assert.isNotNull(yield* ledger.find(orderId(2)))
      yield* ledger.prune(6_000)
      assert.isFalse(yield* ledger.isCanceled(orderId(1)))
      // What is forgotten is still below the high-water mark.
      assert.strictEqual(yield* accept(ledger, 1), "out_of_order")
    })
  )
})
