import { DatabaseSync } from "node:sqlite"
import { assert, describe, it } from "@effect/vitest"
import { messagesMigrations } from "../../../src/adapters/sqlite/messages/MessagesSchema.ts"
import { relayMethods } from "../../../src/adapters/sqlite/messages/RelayRows.ts"
import type { Name } from "../../../src/schemas/Ids.ts"
import { type MessageId, MessageLimits } from "../../../src/schemas/Message.ts"

const idOf = (number: number) =>
  [...number.toString(32).padStart(26, "0")]
    .map((digit) => "abcdefghijklmnopqrstuvwxyz234567"[Number.parseInt(digit, 32)])
    .join("") as MessageId
const [alice, bob] = ["alice" as Name, "bob" as Name]
const delivery = { to: bob, inbox: "private" as const, wire: Uint8Array.of(1) }

describe("what broker services remember of ids", () => {
  it("is bounded for each sender, and forgets none before its time", () => {
    const database = new DatabaseSync(":memory:")
    for (const migration of messagesMigrations) database.exec(migration)
    const rows = relayMethods(database)
    database.exec("BEGIN")
    const accept = (sender: Name, number: number, expiresAtMs: number) =>
      rows.accept(sender, idOf(number), expiresAtMs, [delivery]).outcome
    assert.strictEqual(accept(alice, 0, 1_000), "stored")
    for (let number = 1; number < MessageLimits.seenPerSender; number++)
      rows.accept(alice, idOf(number), 2_000, [])
    assert.strictEqual(accept(alice, MessageLimits.seenPerSender, 2_000), "full")
    assert.strictEqual(accept(alice, 0, 1_000), "replayed")
    assert.strictEqual(accept(bob, 0, 2_000), "stored")
    rows.prune(1_000)
    assert.strictEqual(accept(alice, MessageLimits.seenPerSender, 2_000), "stored")
    assert.strictEqual(accept(alice, MessageLimits.seenPerSender + 1, 2_000), "full")
    // Known from the rows, not from what this life has counted.
    const again = relayMethods(database)
    assert.strictEqual(again.accept(alice, idOf(0), 3_000, []).outcome, "full")
    database.exec("COMMIT")
    database.close()
  })
})
