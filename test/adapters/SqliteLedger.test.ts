import { spawn } from "node:child_process"
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import fc from "fast-check"
import { openDatabase } from "../../src/adapters/sqlite/Database.ts"
import type { Ledger } from "../../src/ports/Ledger.ts"
import { Limits } from "../../src/schemas/Limits.ts"
import { temporaryFolder } from "./support/folders.ts"
import { conclusionAfter, digestFor, envelope, ledgerIn, memoryLedger, orderDigest, orderId, orderOf } from "./support/ledger.ts"
import { property } from "./support/properties.ts"
import { hasSmallDisk, smallDisk } from "./support/smallDisk.ts"

type Open = Ledger["Service"]

const accept = (ledger: Open, number: number, change: Parameters<typeof orderOf>[1] = {}) =>
  ledger.accept(orderOf(number, change), envelope, orderDigest(number), 1_500)

const reasonOf = <A, E extends { readonly reason: string }>(effect: Effect.Effect<A, E>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason)

describe("the ledger", () => {
  it.effect("takes orders above the high-water mark, once", () =>
    Effect.gen(function* () {
      const ledger = yield* memoryLedger
      assert.isNull(yield* ledger.highWater)
      assert.strictEqual(yield* accept(ledger, 5), "accepted")
      assert.strictEqual(yield* accept(ledger, 5), "out_of_order")
      assert.strictEqual(yield* accept(ledger, 4), "out_of_order")
      assert.strictEqual(yield* accept(ledger, 7, { id: orderId(5) }), "replayed")
      assert.deepStrictEqual(yield* ledger.highWater, { root_version: 1, counter: 5, order_digest: orderDigest(5) })
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
      const lane = (name: "job" | "service") => Effect.map(ledger.unfinished(name), (rows) => rows.map((row) => row.order.counter))
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
      assert.match(yield* reasonOf(ledger.begin(orderId(1), false, 1_800)), /was begun 1 times; 1 are allowed/)
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
      assert.deepStrictEqual((yield* ledger.outbox(10)).map((item) => item.kind), ["output", "artifacts", "receipt"])
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
      const again = { ...conclusionAfter(yield* ledger.chainHead, null, "rejected"), orderDigest: digestFor("refused 9") }
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
      const database = openDatabase(":memory:")
      yield* Effect.addFinalizer(() => Effect.sync(() => database.close()))
      const ledger = yield* memoryLedger
      yield* accept(ledger, 1)
      const large = { path: "/spool/x.age", sizeBytes: Limits.outboxBytes }
      yield* ledger.conclude({ ...conclusionAfter(yield* ledger.chainHead, 1), artifacts: large })
      assert.isFalse(yield* ledger.putOutput(orderId(2), 0, new Uint8Array(1)))
      yield* accept(ledger, 2)
      yield* ledger.conclude(conclusionAfter(yield* ledger.chainHead, 2, "failed"))
      assert.strictEqual((yield* ledger.outboxSize).items, 3)
      assert.match(yield* reasonOf(ledger.putOutput(orderId(3), 0, new Uint8Array(Limits.outputChunkEncryptedBytes + 1))), /chunk/)
    })
  )

  it.effect("drops the waiting output of an order that is run again, and no other", () =>
    Effect.gen(function* () {
      const ledger = yield* memoryLedger
      for (const order of [1, 2]) for (const sequence of [0, 1]) yield* ledger.putOutput(orderId(order), sequence, Uint8Array.of(order))
      assert.isTrue(yield* ledger.putOutput(orderId(1), 0, Uint8Array.of(9)))
      yield* ledger.dropOutput(orderId(1))
      const left = yield* ledger.outbox(10)
      assert.deepStrictEqual(left.map((item) => (item.kind === "output" ? [item.order, item.sequence, [...item.bytes]] : [])), [
        [orderId(2), 0, [2]],
        [orderId(2), 1, [2]]
      ])
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

/** What the model test does to ledger and model alike. */
const command = fc.oneof(
  fc.record({ do: fc.constant("accept" as const), order: fc.integer({ min: 1, max: 8 }), root: fc.integer({ min: 1, max: 2 }) }),
  fc.record({ do: fc.constantFrom("advance" as const, "requeue" as const), order: fc.integer({ min: 1, max: 8 }) }),
  fc.record({ do: fc.constant("begin" as const), order: fc.integer({ min: 1, max: 8 }), idempotent: fc.boolean() }),
  fc.record({ do: fc.constant("output" as const), order: fc.integer({ min: 1, max: 8 }), sequence: fc.nat(3) }),
  fc.record({ do: fc.constant("conclude" as const), order: fc.option(fc.integer({ min: 1, max: 8 })), state: fc.constantFrom("succeeded" as const, "rejected" as const, "timed_out" as const) }),
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
    return known !== undefined && !["succeeded", "rejected", "timed_out"].includes(known.state) ? known : undefined
  }

  /** Whether the ledger must succeed; the model then has changed too. */
  apply(step: Command): boolean | string {
    switch (step.do) {
      case "accept": {
        const place = [step.root, step.order] as const
        if (place[0] < this.mark[0] || (place[0] === this.mark[0] && place[1] <= this.mark[1])) return "out_of_order"
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
        if (known === undefined || known.attempts >= (step.idempotent ? Limits.runAttempts : 1)) return false
        Object.assign(known, { state: "running", attempts: known.attempts + 1, idempotent: step.idempotent, version: known.version + 1 })
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
      return Effect.flatMap(ledger.chainHead, (head) => ledger.conclude(conclusionAfter(head, step.order, step.state)))
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
    item.kind === "output" ? `output ${Number(item.order.slice(-12))} ${item.sequence}` : item.kind === "receipt" ? `receipt ${item.number}` : item.kind
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
          if (typeof expected === "string") assert.strictEqual(outcome._tag === "Success" ? outcome.success : "", expected)
          else assert.strictEqual(outcome._tag === "Success", expected, JSON.stringify(step))
          yield* compare(ledger, model)
        }
      })
    )
  )
})

/** Runs the writer until it has said so many lines, kills it without warning and gives what it said. */
const writeAndKill = (stateFolder: string, first: number, lines: number) =>
  Effect.callback<ReadonlyArray<string>>((resume) => {
    const script = join(import.meta.dirname, "support/ledgerWriter.ts")
    const child = spawn(process.execPath, [script, stateFolder, String(first)], { stdio: ["ignore", "pipe", "inherit"] })
    const said: Array<string> = []
    createInterface({ input: child.stdout }).on("line", (line) => {
      if (said.push(line) === lines) child.kill("SIGKILL")
    })
    child.on("close", () => resume(Effect.succeed(said)))
    return Effect.sync(() => void child.kill("SIGKILL"))
  })

describe("the ledger on disk", () => {
  it.effect("holds all it ever said it holds when its program is killed in mid-work", () =>
    Effect.gen(function* () {
      const state = join(yield* temporaryFolder, "state")
      let first = 1
      let incarnation: string | undefined
      for (const lines of [7, 31, 64, 122]) {
        const said = yield* writeAndKill(state, first, lines)
        assert.isAtLeast(said.length, lines)
        yield* Effect.scoped(
          Effect.gen(function* () {
            const ledger = yield* ledgerIn(state)
            incarnation ??= ledger.incarnation
            assert.strictEqual(ledger.incarnation, incarnation)
            for (const line of said) {
              const [what, number] = line.split(" ") as [string, string]
              const row = yield* ledger.find(orderId(Number(number)))
              if (what === "accepted") assert.isNotNull(row)
              else if (what === "begun") assert.strictEqual(row?.attempts, 1)
              else assert.strictEqual(row?.state, "succeeded")
            }
            const last = (yield* ledger.highWater)?.counter ?? 0
            let succeeded = 0
            for (let number = 1; number <= last; number++) {
              const row = yield* ledger.find(orderId(number))
              if (row === null) throw new Error(`order ${number} is lost`)
              if (row.state === "succeeded") succeeded++
            }
            const head = yield* ledger.chainHead
            assert.strictEqual(head.number, succeeded)
            assert.strictEqual((yield* ledger.counts).succeeded, succeeded)
            const receipts = (yield* ledger.outbox(10_000)).flatMap((item) => (item.kind === "receipt" ? [item.number] : []))
            assert.deepStrictEqual(receipts, receipts.map((_, index) => head.number - receipts.length + 1 + index))
            // What was cut off in mid-run is found again, once.
            const cutOff = yield* ledger.unfinished()
            assert.isAtMost(cutOff.length, 1)
            for (const row of cutOff) {
              yield* ledger.conclude(conclusionAfter(yield* ledger.chainHead, Number(row.order.id.slice(-12)), "succeeded"))
            }
            first = last + 1
          })
        )
      }
    }),
    60_000
  )

  it.effect("is private, fully flushed, and keeps its identity", () =>
    Effect.gen(function* () {
      const state = join(yield* temporaryFolder, "state")
      const incarnation = yield* Effect.scoped(Effect.map(ledgerIn(state), (ledger) => ledger.incarnation))
      assert.match(incarnation, /^[a-z2-7]{26}$/)
      assert.strictEqual((yield* ledgerIn(state)).incarnation, incarnation)
      assert.strictEqual(statSync(join(state, "ledger.db")).mode & 0o777, 0o600)
      const database = openDatabase(join(state, "ledger.db"))
      assert.strictEqual(database.prepare("PRAGMA synchronous").get()?.["synchronous"], 2)
      assert.strictEqual(database.prepare("PRAGMA journal_mode").get()?.["journal_mode"], "wal")
      database.close()
      const other = join(yield* temporaryFolder, "other")
      assert.notStrictEqual((yield* ledgerIn(other)).incarnation, incarnation)
    })
  )

  it.effect("says so when its file is damaged, and does not replace it", () =>
    Effect.gen(function* () {
      const state = join(yield* temporaryFolder, "state")
      yield* Effect.scoped(
        Effect.gen(function* () {
          const ledger = yield* ledgerIn(state)
          for (let number = 1; number <= 30; number++) yield* accept(ledger, number)
        })
      )
      const path = join(state, "ledger.db")
      const sound = readFileSync(path)
      const damages: ReadonlyArray<(bytes: Buffer) => void> = [
        (bytes) => bytes.fill(0, 0, 100),
        (bytes) => bytes.fill(0xff, 4096, 8192),
        (bytes) => bytes.fill(0x41, 20_000, 28_000)
      ]
      for (const damage of damages) {
        const bytes = Buffer.from(sound)
        damage(bytes)
        writeFileSync(path, bytes)
        const error = yield* Effect.flip(Effect.scoped(ledgerIn(state)))
        assert.strictEqual(error._tag, "LedgerError")
        assert.match(error.reason, /malformed|damaged|not a database/)
        assert.match(error.reason, /restore it or move it away/)
        assert.isTrue(existsSync(path))
      }
    })
  )

  it.effect("refuses a row that was changed on disk", () =>
    Effect.gen(function* () {
      const state = join(yield* temporaryFolder, "state")
      const ledger = yield* ledgerIn(state)
      yield* accept(ledger, 1)
      const database = openDatabase(join(state, "ledger.db"))
      database.exec(`UPDATE orders SET document = replace(document, '"counter":1', '"counter":-1')`)
      database.close()
      assert.match(yield* reasonOf(ledger.find(orderId(1))), /an order in the ledger is damaged/)
    })
  )

  it.effect("refuses a folder that others can enter", () =>
    Effect.gen(function* () {
      const state = join(yield* temporaryFolder, "state")
      mkdirSync(state, { mode: 0o755 })
      assert.match(yield* reasonOf(Effect.scoped(ledgerIn(state))), /open to other users/)
    })
  )

  it.effect.skipIf(!hasSmallDisk())("changes nothing when the disk is full, and goes on when there is room again", () =>
    Effect.gen(function* () {
      const mount = yield* smallDisk(yield* temporaryFolder, 1_024)
      const ballast = join(mount, "ballast")
      writeFileSync(ballast, new Uint8Array(300_000))
      const ledger = yield* ledgerIn(join(mount, "state"))
      let stored = 0
      let failure: { readonly reason: string } | undefined
      while (failure === undefined) {
        const outcome = yield* Effect.result(ledger.putOutput(orderId(1), stored, new Uint8Array(10_000)))
        if (outcome._tag === "Success") stored++
        else failure = outcome.failure
        assert.isBelow(stored, 1_000)
      }
      assert.match(failure.reason, /disk is full.*Free some room/s)
      assert.strictEqual((yield* ledger.outboxSize).items, stored)
      assert.strictEqual((yield* ledger.chainHead).digest, null)
      rmSync(ballast)
      yield* ledger.acknowledge((yield* ledger.outbox(1_000)).slice(0, stored - 5))
      assert.strictEqual(yield* accept(ledger, 1), "accepted")
      yield* ledger.conclude(conclusionAfter(yield* ledger.chainHead, 1))
      assert.strictEqual((yield* ledger.chainHead).number, 1)
    })
  )
})
