import { DatabaseSync } from "node:sqlite"
import { assert, describe, it } from "@effect/vitest"
import { runBatch } from "../../../src/adapters/sqlite/Batch.ts"
import { agentBounds, agentDatabase } from "../../../src/adapters/sqlite/messages/AgentDatabase.ts"
import type { Draft, Received } from "../../../src/ports/AgentStore.ts"
import { type Message, MessageLimits } from "../../../src/schemas/Message.ts"

const secure = (number: number, expiresAtMs = 9_000): Received => ({
  _tag: "Secure",
  message: {
    id: `id ${number}`,
    from: "bob",
    body: number,
    expires_at_ms: expiresAtMs
  } as unknown as Message,
  receivedAtMs: 1_000
})
const open = (number: number): Received => ({
  _tag: "Public",
  message: { id: `id ${number}`, claimed_from: "bob", body: number } as never,
  receivedAtMs: 1_000
})

const draftOf = (number: number, issuedAtMs: number, expiresAtMs: number) =>
  ({
    id: `id ${number}`,
    body: number,
    issued_at_ms: issuedAtMs,
    expires_at_ms: expiresAtMs
  }) as unknown as Draft

const at = (nowMs: number, guessedIn: string | null = null) => ({ nowMs, guessedIn })

const built = (database: DatabaseSync, from = 0) => {
  for (const migration of agentDatabase.migrations.slice(from)) database.exec(migration)
  return agentDatabase.build(database)
}

const filled = () => {
  const database = new DatabaseSync(":memory:")
  const rows = built(database)
  database.exec("BEGIN")
  for (let number = 0; number < agentBounds.inbox; number++)
    rows.take(secure(number, number < 2 ? 2_000 : 9_000))
  return rows
}

describe("what an agent is to send, on disk", () => {
  it("makes room for new ones by those that have ended, and for no other", () => {
    const database = new DatabaseSync(":memory:")
    const rows = built(database)
    database.exec("BEGIN")
    for (let number = 0; number < agentBounds.drafts; number++)
      assert.deepStrictEqual(rows.queue(draftOf(number, 1_000, number < 2 ? 2_000 : 9_000), null), [])
    assert.strictEqual(rows.queue(draftOf(-1, 1_999, 9_000), null), "full")
    assert.deepStrictEqual(rows.queue(draftOf(-2, 2_000, 9_000), null), ["id 0", "id 1"] as never)
    assert.strictEqual(rows.counts().drafts, agentBounds.drafts - 1)
    assert.deepStrictEqual(rows.queue(draftOf(-3, 2_000, 9_000), null), [])
    assert.strictEqual(rows.queue(draftOf(-4, 2_000, 9_000), null), "full")
  })

  it("is looked through by place, without what has ended", () => {
    const rows = built(new DatabaseSync(":memory:"))
    for (let number = 1; number <= 5; number++)
      rows.queue(draftOf(number, 1_000, number === 3 ? 2_000 : 9_000), null)
    const bodies = (behind: number, maximum: number, nowMs: number) =>
      rows.queued(behind, maximum, nowMs).map(({ draft }) => draft.body)
    assert.deepStrictEqual(bodies(0, 9, 1_999), [1, 2, 3, 4, 5])
    assert.deepStrictEqual(bodies(0, 9, 2_000), [1, 2, 4, 5])
    const [, second] = rows.queued(0, 2, 2_000)
    assert.deepStrictEqual(bodies(second?.place as number, 1, 2_000), [4])
  })
})

describe("the times of what an agent is to send, on disk", () => {
  const timesOf = (rows: ReturnType<typeof built>) =>
    rows
      .queued(0, 9, 0)
      .map(({ draft: { body, expires_at_ms, issued_at_ms } }) => [body, issued_at_ms, expires_at_ms])

  it("are put right where they were guessed", () => {
    const rows = built(new DatabaseSync(":memory:"))
    rows.queue(draftOf(1, 1_000, 1_500), null)
    rows.queue(draftOf(2, 1_000, 1_500), "now")
    rows.queue(draftOf(3, 1_000, 1_500), "before")
    rows.queue(draftOf(4, 9_000, 9_500), "before")
    rows.settle({ guessedIn: "now", nowMs: 7_000, behindMs: 5_500 })
    const right = [
      [1, 1_000, 1_500],
      [2, 6_500, 7_000],
      [3, 1_000, 1_500],
      [4, 7_000, 7_500]
    ]
    assert.deepStrictEqual(timesOf(rows), right)
    rows.settle({ guessedIn: "now", nowMs: 8_000, behindMs: 5_500 })
    assert.deepStrictEqual(timesOf(rows), right)
  })

  it("are no measure for others while they are guessed", () => {
    const rows = built(new DatabaseSync(":memory:"))
    rows.take(secure(1, 2_000))
    rows.queue(draftOf(1, 1_000, 2_000), null)
    rows.queue(draftOf(2, 1_000, 2_000), "now")
    rows.queue(draftOf(3, 1_000, 2_000), "before")
    assert.deepStrictEqual(rows.prune(at(2_000, "now")), { unsent: ["id 2"] as never, untaken: 0 })
    assert.deepStrictEqual(rows.prune(at(2_000)), { unsent: ["id 1"] as never, untaken: 1 })
    assert.deepStrictEqual(timesOf(rows), [[3, 1_000, 2_000]])
  })

  it("are found in what an older version kept", () => {
    const database = new DatabaseSync(":memory:")
    for (const migration of agentDatabase.migrations.slice(0, 3)) database.exec(migration)
    const draft = draftOf(1, 1_000, 2_000)
    database
      .prepare("INSERT INTO drafts (id, expires_at_ms, draft) VALUES (?, ?, ?)")
      .run(draft.id, draft.expires_at_ms, JSON.stringify(draft))
    const rows = built(database, 3)
    assert.deepStrictEqual(rows.queued(0, 9, 0), [{ place: 1, draft }])
    rows.settle({ guessedIn: "now", nowMs: 500, behindMs: 500 })
    assert.deepStrictEqual(timesOf(rows), [[1, 1_000, 2_000]])
    assert.lengthOf(rows.prune(at(2_000)).unsent, 1)
  })
})

describe("the inbox of an agent on disk", () => {
  it("is counted anew where changes were taken back", () => {
    const database = new DatabaseSync(":memory:")
    const rows = built(database)
    // As SQLite itself does when there is no room for a commit.
    const lost = { ...rows, lose: () => database.exec("ROLLBACK") }
    const run = (method: string, ...args: ReadonlyArray<unknown>) =>
      runBatch(database, lost, [
        { id: 0, method, args },
        { id: 1, method: "lose", args: [] }
      ])
    for (let number = 0; number < 3; number++)
      runBatch(database, rows, [{ id: 0, method: "take", args: [secure(number, 2_000)] }])
    assert.strictEqual(rows.counts().inbox, 3)
    run("take", secure(3))
    assert.strictEqual(rows.counts().inbox, 3)
    run("prune", at(2_000))
    assert.strictEqual(rows.counts().inbox, 3)
  })

  it("knows also when it is full what it has, and takes again only when there is some room", () => {
    const rows = filled()
    assert.strictEqual(rows.take(secure(agentBounds.inbox)), "full")
    assert.strictEqual(rows.take(secure(5)), "seen")
    const room = agentBounds.inbox - agentBounds.inboxAgain
    const places = rows.waiting(0, room + 1).map(({ place }) => place)
    rows.dealtWith(places.slice(0, room))
    assert.strictEqual(rows.take(secure(agentBounds.inbox)), "full")
    assert.isFalse(rows.hasRoom())
    rows.dealtWith(places.slice(room))
    assert.isTrue(rows.hasRoom())
    for (let number = 0; number <= room; number++)
      assert.strictEqual(rows.take(secure(agentBounds.inbox + number)), "taken")
    assert.strictEqual(rows.take(secure(2 * agentBounds.inbox)), "full")
  })

  it("says that it is the ids where those are full, and takes again only when there is some room for them", () => {
    const database = new DatabaseSync(":memory:")
    const rows = built(database)
    const { seen, seenAgain } = agentBounds
    database.exec(`
      WITH RECURSIVE numbers (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM numbers WHERE n < ${seen})
      INSERT INTO seen SELECT 'dave', printf('%08d', n), n FROM numbers`)
    assert.strictEqual(rows.take(secure(1, seen)), "ids_full")
    assert.strictEqual(rows.take(open(1)), "taken")
    rows.prune(at(seen - seenAgain))
    assert.strictEqual(rows.take(secure(1, seen)), "ids_full")
    assert.isFalse(rows.hasRoom())
    rows.prune(at(seen - seenAgain + 1))
    assert.isTrue(rows.hasRoom())
    assert.strictEqual(rows.take(secure(1, seen)), "taken")
  })

  it("gives what has not ended, where it is told the time", () => {
    const rows = built(new DatabaseSync(":memory:"))
    for (let number = 1; number <= 3; number++) rows.take(secure(number, number * 2_000))
    const bodies = (nowMs?: number) => rows.waiting(0, 2, nowMs).map(({ received }) => received.message.body)
    assert.deepStrictEqual(bodies(), [1, 2])
    assert.deepStrictEqual(bodies(2_000), [2, 3])
  })

  it("forgets what nobody took in its time", () => {
    const rows = filled()
    assert.deepStrictEqual(rows.prune(at(1_999)), { unsent: [], untaken: 0 })
    assert.deepStrictEqual(rows.prune(at(2_000)), { unsent: [], untaken: 2 })
    assert.strictEqual(rows.counts().inbox, agentBounds.inbox - 2)
    assert.deepStrictEqual(
      rows.waiting(0, 1).map(({ received }) => received.message.body),
      [2]
    )
    assert.strictEqual(rows.prune(at(9_000)).untaken, agentBounds.inbox - 2)
    assert.strictEqual(rows.take(open(1)), "taken")
    assert.strictEqual(rows.prune(at(1_000 + MessageLimits.lifetimeMs - 1)).untaken, 0)
    assert.strictEqual(rows.prune(at(1_000 + MessageLimits.lifetimeMs)).untaken, 1)
  })

  it("finds out the end of what an older version kept", () => {
    const database = new DatabaseSync(":memory:")
    for (const migration of agentDatabase.migrations.slice(0, 2)) database.exec(migration)
    const put = database.prepare("INSERT INTO inbox (received) VALUES (?)")
    for (const received of [secure(1, 2_000), open(2)]) put.run(JSON.stringify(received))
    const rows = built(database, 2)
    assert.strictEqual(rows.prune(at(2_000)).untaken, 1)
    assert.deepStrictEqual(
      rows.waiting(0, 9).map(({ received }) => received.message.body),
      [2]
    )
    assert.strictEqual(rows.prune(at(1_000 + MessageLimits.lifetimeMs)).untaken, 1)
  })
})
