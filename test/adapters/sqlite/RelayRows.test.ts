import { DatabaseSync } from "node:sqlite"
import { assert, describe, it } from "@effect/vitest"
import { runBatch } from "../../../src/adapters/sqlite/Batch.ts"
import { messagesMigrations } from "../../../src/adapters/sqlite/messages/MessagesSchema.ts"
import { relayMethods } from "../../../src/adapters/sqlite/messages/RelayRows.ts"
import type { DeviceId, Name } from "../../../src/schemas/Ids.ts"
import { Limits } from "../../../src/schemas/Limits.ts"
import { type MessageId, MessageLimits } from "../../../src/schemas/Message.ts"
import { countedDatabase } from "../support/countedDatabase.ts"

const idOf = (number: number) =>
  [...number.toString(32).padStart(26, "0")]
    .map((digit) => "abcdefghijklmnopqrstuvwxyz234567"[Number.parseInt(digit, 32)])
    .join("") as MessageId
const [first, second] = ["device 1" as DeviceId, "device 2" as DeviceId]
const bob = "bob" as Name
const delivery = { to: bob, inbox: "private" as const, wire: Uint8Array.of(1) }

describe("what broker services remember of ids", () => {
  it("is bounded for each sender, and forgets none before its time", () => {
    const database = new DatabaseSync(":memory:")
    for (const migration of messagesMigrations) database.exec(migration)
    const rows = relayMethods(database)
    database.exec("BEGIN")
    const accept = (sender: DeviceId, number: number, expiresAtMs: number, nowMs = 0) =>
      rows.accept(sender, idOf(number), expiresAtMs, [delivery], nowMs).outcome
    assert.strictEqual(accept(first, 0, 1_000), "stored")
    for (let number = 1; number < MessageLimits.seenPerSender; number++)
      rows.accept(first, idOf(number), number < 3 ? 1_000 : 2_000, [], 0)
    assert.strictEqual(accept(first, MessageLimits.seenPerSender, 2_000), "full")
    assert.strictEqual(accept(first, 0, 1_000), "replayed")
    assert.strictEqual(accept(first, MessageLimits.seenPerSender, 2_000, 999), "full")
    assert.strictEqual(accept(second, 0, 1_000), "stored")
    // Those that have ended count no more, whether the store was pruned since or not.
    for (let number = 0; number < 3; number++)
      assert.strictEqual(accept(first, MessageLimits.seenPerSender + number, 2_000, 1_000), "stored")
    assert.strictEqual(accept(first, MessageLimits.seenPerSender + 3, 2_000, 1_000), "full")
    assert.strictEqual(accept(second, 0, 1_500), "stored")
    assert.strictEqual(accept(second, 0, 1_500), "replayed")
    // Known from the rows, not from what this life has counted.
    const again = relayMethods(database)
    assert.strictEqual(again.accept(first, idOf(0), 3_000, [], 1_000).outcome, "full")
    while (again.prune(2_000).isMore);
    assert.strictEqual(again.accept(first, idOf(0), 3_000, [], 2_000).outcome, "stored")
    database.exec("COMMIT")
    database.close()
  })
})

describe("what has expired", () => {
  const opened = () => {
    const counted = countedDatabase()
    const { database } = counted
    const rows = relayMethods(database)
    const left = (table: string) =>
      (database.prepare(`SELECT count(*) AS n FROM ${table}`).get() as { n: number }).n
    database.exec("BEGIN")
    return { ...counted, rows, left }
  }

  it("goes in small transactions, and what has not stays", () => {
    const { database, left, plansOf, rows } = opened()
    for (let number = 0; number < 6_000; number++)
      rows.accept(number % 2 === 0 ? first : second, idOf(number), number < 5_000 ? 1_000 : 2_000, [], 0)
    for (let number = 6_000; number < 6_600; number++)
      rows.accept(first, idOf(number), number < 6_500 ? 1_000 : 2_000, [delivery], 0)
    let expired = 0
    for (let isMore = true; isMore; ) {
      const [ids, waiting] = [left("seen"), left("deliveries")]
      const step = rows.prune(1_000)
      isMore = step.isMore
      expired += step.expired
      assert.isAtMost(ids - left("seen"), 2_048)
      assert.isAtMost(waiting - left("deliveries"), 256)
    }
    assert.strictEqual(expired, 500)
    assert.deepStrictEqual([left("seen"), left("deliveries")], [1_100, 100])
    assert.deepStrictEqual(
      plansOf(/expires_at_ms <= /).filter((plan) => /SCAN|TEMP B-TREE/.test(plan)),
      []
    )
    database.close()
  })

  it("goes by few at a time where they are large", () => {
    const { database, left, rows } = opened()
    const wire = new Uint8Array(256 * 1024)
    for (let number = 0; number < 40; number++)
      rows.accept(first, idOf(number), 1_000, [{ ...delivery, wire }], 0)
    assert.deepStrictEqual(rows.prune(1_000), { expired: 16, isMore: true })
    assert.deepStrictEqual(rows.prune(1_000), { expired: 16, isMore: true })
    assert.deepStrictEqual(rows.prune(1_000), { expired: 8, isMore: false })
    assert.strictEqual(left("deliveries"), 0)
    database.close()
  })

  it("does not count for a sender, however much of others has to go before", () => {
    const { database, rows } = opened()
    for (let number = 0; number < 5_000; number++) rows.accept(second, idOf(number), 500, [], 0)
    for (let number = 0; number < MessageLimits.seenPerSender; number++)
      rows.accept(first, idOf(number), number === 0 ? 1_000 : 2_000, [], 0)
    const accept = (number: number) =>
      rows.accept(first, idOf(MessageLimits.seenPerSender + number), 2_000, [], 1_000).outcome
    assert.deepStrictEqual([accept(0), accept(1)], ["stored", "full"])
    database.close()
  })
})

describe("ids of a layout that kept them by name", () => {
  it("are those of the devices that have the names", () => {
    const database = new DatabaseSync(":memory:")
    for (const migration of messagesMigrations.slice(0, 5)) database.exec(migration)
    database.exec(`
      INSERT INTO agents VALUES ('alice', 'device 1', '', '', 1, 1, '[]', '', 'C', 0, 0);
      INSERT INTO seen VALUES ('alice', '${idOf(1)}', 2000), ('nobody', '${idOf(2)}', 2000)`)
    for (const migration of messagesMigrations.slice(5)) database.exec(migration)
    const rows = relayMethods(database)
    const outcomes = [first, second].map((device) => rows.accept(device, idOf(1), 2_000, [], 0).outcome)
    assert.deepStrictEqual(outcomes, ["replayed", "stored"])
    database.close()
  })
})

describe("what waits for a recipient", () => {
  const opened = () => {
    const database = new DatabaseSync(":memory:")
    for (const migration of messagesMigrations) database.exec(migration)
    database.exec("BEGIN")
    return relayMethods(database)
  }
  const storedOf = (rows: ReturnType<typeof relayMethods>, number: number, to: Name, bytes = 1) =>
    rows.accept(first, idOf(number), 2_000, [{ ...delivery, to, wire: new Uint8Array(bytes) }], 0).deliveries

  it("is bounded in messages, for each by itself; what goes makes room", () => {
    const rows = opened()
    for (let number = 0; number < Limits.undeliveredMessages; number++)
      assert.lengthOf(storedOf(rows, number, bob), 1)
    assert.lengthOf(storedOf(rows, 20_000, bob), 0)
    const carol = "carol" as Name
    const both = [delivery, { ...delivery, to: carol }]
    const mixed = rows.accept(first, idOf(20_001), 2_000, both, 0)
    assert.deepStrictEqual(
      mixed.deliveries.map(({ to }) => to),
      [carol]
    )
    const [oldest] = rows.undelivered(bob, 0, 1)
    rows.delivered([oldest?.place ?? 0])
    assert.lengthOf(storedOf(rows, 20_002, bob), 1)
    assert.lengthOf(storedOf(rows, 20_003, bob), 0)
    rows.dropAgent(bob)
    assert.lengthOf(storedOf(rows, 20_004, bob), 1)
    assert.deepStrictEqual(rows.backlogs([bob, carol]), [
      { agent: bob, undelivered: 1, queued: 0 },
      { agent: carol, undelivered: 1, queued: 0 }
    ])
  })

  it("is told without being read, and read by its places", () => {
    const rows = opened()
    const wires = [Uint8Array.of(1, 2), Uint8Array.of(3, 4, 5)]
    const [one, two] = wires.flatMap(
      (wire, number) => rows.accept(first, idOf(number), 2_000, [{ ...delivery, wire }], 0).deliveries
    )
    assert.deepStrictEqual(rows.undelivered(null, 0, 10), [
      { place: one?.place ?? 0, to: bob, bytes: 2 },
      { place: two?.place ?? 0, to: bob, bytes: 3 }
    ])
    rows.delivered([one?.place ?? 0])
    const read = rows.deliveries([one?.place ?? 0, two?.place ?? 0])
    assert.deepStrictEqual(
      read.map(({ place, wire }) => [place, [...wire]]),
      [[two?.place, [3, 4, 5]]]
    )
  })

  it("is bounded in bytes", () => {
    const rows = opened()
    const size = 200 * 1024
    const fitting = Math.floor(Limits.messagingQueueBytes / size)
    for (let number = 0; number < fitting; number++) assert.lengthOf(storedOf(rows, number, bob, size), 1)
    assert.lengthOf(storedOf(rows, 20_000, bob, size), 0)
    rows.prune(2_000)
    assert.lengthOf(storedOf(rows, 20_001, bob, size), 1)
  })
})

describe("stores that are full", () => {
  const many = ["bob", "carol", "dave"] as [Name, Name, Name]
  const forAll = (wire = Uint8Array.of(1)) => many.map((to) => ({ ...delivery, to, wire }))
  const filled = () => {
    const counted = countedDatabase()
    const rows = relayMethods(counted.database)
    counted.database.exec("BEGIN")
    for (let number = 0; number < Limits.undeliveredMessages; number++)
      rows.accept(first, idOf(number), number < 5 ? 1_000 : 2_000, forAll(), 0)
    counted.database.exec("COMMIT")
    const placesOf = (to: Name, maximum: number) => rows.undelivered(to, 0, maximum).map(({ place }) => place)
    let number = Limits.undeliveredMessages
    /** How many are stored. */
    const send = (nowMs = 0) => rows.accept(first, idOf(number++), 2_000, forAll(), nowMs).deliveries.length
    return { ...counted, rows, placesOf, send }
  }

  it("are measured once each, whatever is delivered to others", () => {
    const { database, placesOf, rows, runsOf, send } = filled()
    for (let time = 0; time < 10; time++) {
      rows.delivered(placesOf(many[0], 1))
      assert.strictEqual(send(), 1)
      assert.strictEqual(send(), 0)
    }
    assert.strictEqual(runsOf(/count\(\*\).*FROM deliveries/), many.length)
    database.close()
  })

  it("have room for exactly what went from them", () => {
    const { database, placesOf, rows, runsOf, send } = filled()
    rows.delivered([...placesOf(many[0], 8), 1_000_000])
    rows.delivered(placesOf(many[1], 6))
    // Five of each had a shorter life; only those of the third are left.
    rows.prune(1_000)
    for (let time = 0; time < 5; time++) assert.strictEqual(send(1_000), 3)
    assert.strictEqual(send(1_000), 2)
    assert.strictEqual(send(1_000), 1)
    assert.strictEqual(send(1_000), 1)
    assert.strictEqual(send(1_000), 0)
    assert.strictEqual(runsOf(/count\(\*\).*FROM deliveries/), many.length)
    database.close()
  })

  it("are full still where what went from them was put back", () => {
    const { database, placesOf, rows, send } = filled()
    const methods = { ...rows, lose: () => database.exec("ROLLBACK") }
    const args = [first, idOf(50_000), 2_000, forAll(), 0]
    const replies = runBatch(database, methods, [
      { id: 0, method: "delivered", args: [placesOf(many[0], 100)] },
      { id: 1, method: "accept", args },
      { id: 2, method: "lose", args: [] }
    ])
    assert.isTrue(replies.every(({ ok }) => !ok))
    assert.strictEqual(send(), 0)
    database.close()
  })
})

describe("a disk without a byte", () => {
  it("does not use up what a sender may have remembered", () => {
    const database = new DatabaseSync(":memory:")
    for (const migration of messagesMigrations) database.exec(migration)
    const rows = relayMethods(database)
    database.exec("BEGIN")
    for (let number = 0; number < MessageLimits.seenPerSender - 5; number++)
      rows.accept(first, idOf(number), 2_000, [], 0)
    database.exec("COMMIT")
    const { page_count: pages } = database.prepare("PRAGMA page_count").get() as { page_count: number }
    const accept = (number: number, wire: Uint8Array) =>
      runBatch(database, rows, [
        { id: 0, method: "accept", args: [first, idOf(number), 2_000, [{ ...delivery, wire }], 0] }
      ])[0]
    database.exec(`PRAGMA max_page_count = ${pages}`)
    for (let attempt = 0; attempt < 10; attempt++)
      assert.include(accept(MessageLimits.seenPerSender, new Uint8Array(100_000)), { ok: false })
    database.exec(`PRAGMA max_page_count = ${pages + 1_000}`)
    const reply = accept(MessageLimits.seenPerSender, new Uint8Array(100_000))
    assert.isTrue(reply?.ok)
    assert.include((reply as { value: unknown }).value, { outcome: "stored" })
    database.close()
  })
})
