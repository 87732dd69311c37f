import { DatabaseSync } from "node:sqlite"
import { assert, describe, it } from "@effect/vitest"
import { runBatch } from "../../../src/adapters/sqlite/Batch.ts"
import { agentBounds, agentDatabase } from "../../../src/adapters/sqlite/messages/AgentDatabase.ts"
import type { Received } from "../../../src/ports/AgentStore.ts"
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
    run("prune", 2_000)
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
    rows.prune(seen - seenAgain)
    assert.strictEqual(rows.take(secure(1, seen)), "ids_full")
    assert.isFalse(rows.hasRoom())
    rows.prune(seen - seenAgain + 1)
    assert.isTrue(rows.hasRoom())
    assert.strictEqual(rows.take(secure(1, seen)), "taken")
  })

  it("forgets what nobody took in its time", () => {
    const rows = filled()
    assert.deepStrictEqual(rows.prune(1_999), { unsent: [], untaken: 0 })
    assert.deepStrictEqual(rows.prune(2_000), { unsent: [], untaken: 2 })
    assert.strictEqual(rows.counts().inbox, agentBounds.inbox - 2)
    assert.deepStrictEqual(
      rows.waiting(0, 1).map(({ received }) => received.message.body),
      [2]
    )
    assert.strictEqual(rows.prune(9_000).untaken, agentBounds.inbox - 2)
    assert.strictEqual(rows.take(open(1)), "taken")
    assert.strictEqual(rows.prune(1_000 + MessageLimits.lifetimeMs - 1).untaken, 0)
    assert.strictEqual(rows.prune(1_000 + MessageLimits.lifetimeMs).untaken, 1)
  })

  it("finds out the end of what an older version kept", () => {
    const database = new DatabaseSync(":memory:")
    for (const migration of agentDatabase.migrations.slice(0, 2)) database.exec(migration)
    const put = database.prepare("INSERT INTO inbox (received) VALUES (?)")
    for (const received of [secure(1, 2_000), open(2)]) put.run(JSON.stringify(received))
    const rows = built(database, 2)
    assert.strictEqual(rows.prune(2_000).untaken, 1)
    assert.deepStrictEqual(
      rows.waiting(0, 9).map(({ received }) => received.message.body),
      [2]
    )
    assert.strictEqual(rows.prune(1_000 + MessageLimits.lifetimeMs).untaken, 1)
  })
})
