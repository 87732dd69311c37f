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
  const subscribe = (client: string) => rows.subscribe([{ client, filter: `mf2c/${client}/#`, qos: 1 }])
  subscribe("bob")
  let counter = 0
  return {
    subscribe,
    add: (inbox: string, payload = bytes(1)) =>
      rows.enqueue(
        ["bob"],
        { broker: "one", counter: counter++, topic: `mf2c/bob/${inbox}`, retain: false, payload },
        bounds
      ),
    /** One packet for several. */
    addFor: (clients: ReadonlyArray<string>) =>
      rows.enqueue(
        clients,
        { broker: "one", counter: counter++, topic: "mf2c/carol/public", retain: false, payload: bytes(1) },
        bounds
      ),
    acknowledge: (number: number) => rows.acknowledged("bob", { broker: "one", counter: number }),
    forget: () => rows.forgetClient("bob"),
    lengthOf: (client: string) => rows.waiting(client, 0, 1_000_000).length,
    waiting: () =>
      rows.waiting("bob", 0, 1_000_000).map(({ counter: number, payload, topic }) => ({
        number,
        size: payload.length,
        inbox: topic.slice("mf2c/bob/".length)
      })),
    close: () => database.close()
  }
}

describe("the queue of an agent that is away", () => {
  it("loses its oldest packets above its bound, public ones before what broker services signed", () => {
    const queue = makeQueue({ packets: 100, bytes: 1_000_000 })
    for (let index = 0; index < 20; index++) queue.add("private")
    let dropped = 0
    for (let index = 0; index < 500; index++)
      dropped += queue.add(index % 2 === 0 ? "public" : "public/pingreq")
    const left = queue.waiting()
    assert.strictEqual(left.length + dropped, 520)
    assert.isAtMost(left.length, 100)
    assert.strictEqual(left.filter(({ inbox }) => inbox === "private").length, 20)
    assert.strictEqual(left.at(-1)?.number, 519)
    for (let index = 0; index < 200; index++) queue.add("protected")
    const signed = queue.waiting()
    assert.isAtMost(signed.length, 100)
    assert.isFalse(signed.some(({ inbox, number }) => inbox === "private" && number === 0))
    assert.strictEqual(signed.at(-1)?.number, 719)
    queue.close()
  })

  it("is bounded in bytes as well", () => {
    const queue = makeQueue({ packets: 10_000, bytes: 1_000_000 })
    for (let index = 0; index < 100; index++) queue.add("private", bytes(100_000))
    const held = queue.waiting().reduce((sum, { size }) => sum + size, 0)
    assert.isAtMost(held, 1_000_000)
    assert.isAtLeast(queue.waiting().length, 1)
    queue.close()
  })

  it("is bounded for each of those who get the same", () => {
    for (const many of [2, 3, 16]) {
      const queue = makeQueue({ packets: 100, bytes: 1_000_000 })
      const clients = Array.from({ length: many }, (_, index) => `agent-${index}`)
      for (const client of clients) queue.subscribe(client)
      for (let index = 0; index < 300; index++) queue.addFor(clients)
      for (const client of clients) {
        assert.isAtMost(queue.lengthOf(client), 100, `${client} of ${many}`)
        assert.isAtLeast(queue.lengthOf(client), 84, `${client} of ${many}`)
      }
      queue.close()
    }
  })

  it("has room again for what was acknowledged, and all of it when its session was forgotten", () => {
    const queue = makeQueue({ packets: 100, bytes: 1_000_000 })
    for (let index = 0; index < 100; index++) queue.add("private")
    for (let index = 0; index < 60; index++) queue.acknowledge(index)
    for (let index = 0; index < 60; index++) assert.strictEqual(queue.add("private"), 0)
    assert.lengthOf(queue.waiting(), 100)
    queue.forget()
    assert.strictEqual(queue.add("private"), 0)
    assert.lengthOf(queue.waiting(), 0, "who subscribes to nothing")
    queue.subscribe("bob")
    for (let index = 0; index < 100; index++) assert.strictEqual(queue.add("private"), 0)
    assert.lengthOf(queue.waiting(), 100)
    queue.close()
  })
})
