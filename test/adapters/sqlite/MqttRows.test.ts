import { DatabaseSync } from "node:sqlite"
import { assert, describe, it } from "@effect/vitest"
import { messagesMigrations } from "../../../src/adapters/sqlite/messages/MessagesSchema.ts"
import { mqttMethods } from "../../../src/adapters/sqlite/messages/MqttRows.ts"

const bytes = (length: number) => new Uint8Array(length)

/** A queue for bob, and a way to fill it. */
const makeQueue = (bounds: { readonly packets: number; readonly bytes: number }) => {
  const database = new DatabaseSync(":memory:")
  for (const migration of messagesMigrations) database.exec(migration)
  const rows = mqttMethods(database)
  let counter = 0
  return {
    add: (inbox: string, payload = bytes(1)) =>
      rows.enqueue(
        ["bob"],
        { broker: "one", counter: counter++, topic: `mf2c/bob/${inbox}`, retain: false, payload },
        bounds
      ),
    waiting: () =>
      rows.waiting("bob", 0, 1_000_000).map(({ counter: number, payload, topic }) => ({
        number,
        size: payload.length,
        inbox: topic.slice("mf2c/bob/".length)
      })),
    close: () => database.close()
  }
}

/** A queue is counted at every sixteenth packet. */
const slack = 16

describe("the queue of an agent that is away", () => {
  it("loses its oldest packets above its bound, public ones before what broker services signed", () => {
    const queue = makeQueue({ packets: 100, bytes: 1_000_000 })
    for (let index = 0; index < 20; index++) queue.add("private")
    let dropped = 0
    for (let index = 0; index < 500; index++)
      dropped += queue.add(index % 2 === 0 ? "public" : "public/pingreq")
    const left = queue.waiting()
    assert.strictEqual(left.length + dropped, 520)
    assert.isAtMost(left.length, 100 + slack)
    assert.strictEqual(left.filter(({ inbox }) => inbox === "private").length, 20)
    assert.strictEqual(left.at(-1)?.number, 519)
    for (let index = 0; index < 200; index++) queue.add("protected")
    const signed = queue.waiting()
    assert.isAtMost(signed.length, 100 + slack)
    assert.isFalse(signed.some(({ inbox, number }) => inbox === "private" && number === 0))
    assert.strictEqual(signed.at(-1)?.number, 719)
    queue.close()
  })

  it("is bounded in bytes as well", () => {
    const queue = makeQueue({ packets: 10_000, bytes: 1_000_000 })
    for (let index = 0; index < 100; index++) queue.add("private", bytes(100_000))
    const held = queue.waiting().reduce((sum, { size }) => sum + size, 0)
    assert.isAtMost(held, 1_000_000 + slack * 100_000)
    assert.isAtLeast(queue.waiting().length, 1)
    queue.close()
  })
})
