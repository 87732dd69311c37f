import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Redacted, Schema } from "effect"
import { TestClock } from "effect/testing"
import { nothingDropped, retentionRound } from "../../src/actors/RetentionRound.ts"
import { RetentionKey } from "../../src/actors/ServerKeys.ts"
import { blobPath } from "../../src/adapters/blobs/BlobRules.ts"
import { hashToken } from "../../src/adapters/http/ManagementAccess.ts"
import { utf8 } from "../../src/crypto/Bytes.ts"
import { digestOf } from "../../src/crypto/Documents.ts"
import { BlobStore } from "../../src/ports/BlobStore.ts"
import { RetentionStore } from "../../src/ports/RetentionStore.ts"
import { RetentionConfig } from "../../src/schemas/ServerConfig.ts"
import {
  acceptedFleet,
  type Fleet,
  manage,
  putPayload,
  rootedFleet,
  send,
  servicesOver,
  submit
} from "../support/fleet.ts"
import { device, engine, nowMs, signedReceipt } from "../support/operators.ts"

const rulesOf = (changes: Partial<RetentionConfig> = {}): RetentionConfig =>
  Schema.decodeUnknownSync(RetentionConfig)(changes)

const dayMs = 24 * 3_600_000

/** One round over a fleet's disk, by these rules, so many days from now. */
const round = Effect.fnUntraced(function* (
  fleet: Fleet,
  inDays: number,
  changes: Partial<RetentionConfig> = {}
) {
  const clock = yield* Clock.Clock
  const nowMs = clock.currentTimeMillisUnsafe() + inDays * dayMs
  const later: Clock.Clock = Object.create(clock, {
    currentTimeMillisUnsafe: { value: () => nowMs },
    currentTimeMillis: { value: Effect.succeed(nowMs) }
  })
  return yield* retentionRound(rulesOf(changes)).pipe(
    Effect.provide(servicesOver(fleet.disk)),
    Effect.provideService(Clock.Clock, later)
  )
})

const token = `postern-token-v1.${"v".repeat(52)}`
const base = "/api/management/v1"

const viewedFleet = Effect.tap(acceptedFleet, (fleet) =>
  Effect.flatMap(Clock.currentTimeMillis, (nowMs) =>
    fleet.store.addToken("viewer", "viewer", hashToken(engine, Redacted.make(token)), nowMs)
  )
)
const get = (fleet: Fleet, path: string) => manage(fleet, token, "GET", `${base}${path}`)

/** A job that ran: output, artifacts, and the receipt with this number. */
const ended = Effect.fnUntraced(function* (
  fleet: Fleet,
  counter: number,
  previous: Parameters<typeof signedReceipt>[1]
) {
  const order = yield* submit(fleet, counter)
  const { id } = order.order
  yield* send(fleet, "PUT", `/orders/${id}/output/0`, { octets: utf8(`output ${counter}`) })
  const octets = utf8(`artifacts ${counter}`)
  yield* send(fleet, "PUT", `/orders/${id}/artifacts`, { octets, query: `?offset=0&total=${octets.length}` })
  const endedAtMs = yield* Clock.currentTimeMillis
  const receipt = signedReceipt(counter, previous, order, { ended_at_ms: endedAtMs })
  const reply = yield* send(fleet, "POST", "/receipts", { body: { receipts: [receipt.envelope] } })
  assert.strictEqual(reply.status, 200)
  return { id, digest: receipt.digest, payload: order.order.payload.digest }
})

describe("a round of retention", () => {
  it.effect("drops results by age, tells when and why afterwards, and refuses late ones", () =>
    Effect.gen(function* () {
      const fleet = yield* viewedFleet
      const { id } = yield* ended(fleet, 1, null)
      const younger = yield* ended(fleet, 2, null)
      fleet.disk.fleet.exec(
        `UPDATE jobs SET changed_at_ms = changed_at_ms - ${10 * dayMs} WHERE id = '${id}'`
      )
      const { dropped } = yield* round(fleet, 21)
      assert.strictEqual(dropped.results, 1)
      const job = yield* get(fleet, `/jobs/${id}`)
      const prunedAtMs = (job.json as { results_pruned_at_ms: number }).results_pruned_at_ms
      assert.isAbove(prunedAtMs, 0)
      for (const path of [`/jobs/${id}/output?from=0`, `/jobs/${id}/artifacts?offset=0`]) {
        const gone = yield* get(fleet, path)
        assert.strictEqual(gone.status, 410)
        assert.deepInclude(gone.json, { code: "gone", pruned_at_ms: prunedAtMs, why: "age" })
      }
      assert.isFalse([...fleet.disk.blobs.keys()].some((name) => name.includes(id)))
      assert.strictEqual((yield* get(fleet, `/jobs/${younger.id}/output?from=0`)).status, 200)
      const late = yield* send(fleet, "PUT", `/orders/${id}/output/1`, { octets: utf8("late") })
      assert.strictEqual(late.code, "gone")
    })
  )

  it.effect("drops the oldest results first where they take too much room", () =>
    Effect.gen(function* () {
      const fleet = yield* viewedFleet
      const first = yield* ended(fleet, 1, null)
      yield* TestClock.adjust("1 minute")
      const second = yield* ended(fleet, 2, null)
      const { dropped } = yield* round(fleet, 0, { results_bytes: 30 })
      assert.strictEqual(dropped.results, 1)
      assert.deepInclude((yield* get(fleet, `/jobs/${first.id}/output?from=0`)).json, { why: "size" })
      assert.strictEqual((yield* get(fleet, `/jobs/${second.id}/output?from=0`)).status, 200)
      assert.deepStrictEqual((yield* round(fleet, 0, { results_bytes: 30 })).dropped, nothingDropped)
    })
  )

  it.effect("keeps payloads that are needed or just came, and drops the others", () =>
    Effect.gen(function* () {
      const fleet = yield* viewedFleet
      const done = yield* ended(fleet, 1, null)
      const later = { expires_at_ms: nowMs + 10 * dayMs }
      const open = (yield* submit(fleet, 2, later)).order.payload.digest
      const name = { kind: "payload", digest: digestOf(engine, utf8("not submitted yet")) } as const
      const fresh = (yield* putPayload(fleet, utf8("not submitted yet"))).digest
      // Touched a moment before the round.
      const blob = fleet.disk.blobs.get(blobPath(name).join("/"))
      if (blob === undefined) throw new Error("the payload is not there")
      fleet.disk.blobs.set(blobPath(name).join("/"), { ...blob, changedAtMs: nowMs + 2 * dayMs })
      yield* round(fleet, 2)
      const kept = (yield* Effect.provide(
        Effect.flatMap(BlobStore, (blobs) => blobs.list("payload")),
        servicesOver(fleet.disk)
      )).map(({ name }) => (name as { digest: string }).digest)
      assert.notInclude(kept, done.payload)
      assert.sameMembers(kept, [open, fresh])
    })
  )

  it.effect("forgets old jobs but the device's last one, and says so of those", () =>
    Effect.gen(function* () {
      const fleet = yield* viewedFleet
      const first = yield* ended(fleet, 1, null)
      const second = yield* ended(fleet, 2, null)
      yield* round(fleet, 120)
      const gone = yield* get(fleet, `/jobs/${first.id}`)
      assert.strictEqual(gone.status, 410)
      assert.strictEqual((yield* get(fleet, `/jobs/${second.id}`)).status, 200)
      const sequence = yield* get(fleet, `/devices/${device.id}/sequence`)
      assert.deepInclude(sequence.json, { next_counter: 3 })
    })
  )

  it.effect("cuts chains of receipts at the newest old one, and never the newest", () =>
    Effect.gen(function* () {
      const fleet = yield* viewedFleet
      let previous: Parameters<typeof signedReceipt>[1] = null
      for (const counter of [1, 2, 3]) previous = (yield* ended(fleet, counter, previous)).digest
      yield* round(fleet, 1_100)
      const page = (yield* get(fleet, `/devices/${device.id}/receipts?from=1`)).json as {
        receipts: ReadonlyArray<{ number: number }>
        pruned_below: number | null
      }
      assert.deepStrictEqual(
        page.receipts.map(({ number }) => number),
        [3]
      )
      assert.strictEqual(page.pruned_below, 3)
      const standing = yield* fleet.store.standing(device.id as never)
      assert.strictEqual(standing.receipt?.number, 3)
    })
  )

  it.effect("clears away what a crash between row and file left, in either order", () =>
    Effect.gen(function* () {
      const fleet = yield* viewedFleet
      const { id } = yield* ended(fleet, 1, null)
      const services = servicesOver(fleet.disk)
      // As if the server died after the rows were marked and before the file was removed.
      const marked = yield* Effect.provide(
        Effect.flatMap(RetentionStore, (store) =>
          Effect.flatMap(Clock.currentTimeMillis, (nowMs) =>
            store.pruneResults({ beforeMs: nowMs, nowMs, why: "age", maximum: 10 })
          )
        ),
        services
      )
      assert.deepStrictEqual(
        marked.map(({ order }) => order),
        [id]
      )
      // And a file of an order that was never here.
      const stray = { kind: "artifacts", order: "01999999-0000-7000-8000-000000000001" } as never
      yield* fleet.blobs.write(stray, 0, 1, utf8("x"))
      const { dropped, storage } = yield* round(fleet, 0)
      assert.strictEqual(dropped.artifacts, 2)
      assert.deepInclude(storage, { artifact_files: 0, output_bytes: 0 })
    })
  )

  it.effect("forgets what expired, and audit lines beyond their number", () =>
    Effect.gen(function* () {
      const fleet = yield* rootedFleet
      const nowMs = yield* Clock.currentTimeMillis
      yield* fleet.store.addInvitation(`inv_${"a".repeat(52)}` as never, nowMs + 1_000, "alice", nowMs)
      yield* fleet.store.addToken("old", "viewer", "hash", nowMs, { expiresAtMs: nowMs + 1_000 })
      const { dropped } = yield* round(fleet, 31)
      assert.strictEqual(dropped.expired, 2)
      assert.deepStrictEqual(yield* fleet.store.tokens, [])
      const late = yield* round(fleet, 31, { audit_days: 0 })
      assert.strictEqual(late.dropped.audit, 3)
    })
  )
})

describe("the actor", () => {
  it.effect("looks by itself, answers what is kept, and joins those who ask at once to one round", () =>
    Effect.gen(function* () {
      const fleet = yield* viewedFleet
      const retention = fleet.system.ref(RetentionKey)
      assert.isNull(yield* retention.ask("Storage"))
      yield* TestClock.adjust("11 seconds")
      assert.isNotNull(yield* retention.ask("Storage"))
      const status = yield* get(fleet, "/status")
      assert.isAbove((status.json as { storage: { database_bytes: number } }).storage.database_bytes, 0)
      const tickets = yield* Effect.all([retention.ask("Sweep"), retention.ask("Sweep")])
      const dropped = yield* Effect.forEach(tickets, ({ answer }) => Deferred.await(answer))
      assert.deepStrictEqual(dropped, [nothingDropped, nothingDropped])
    })
  )
})
