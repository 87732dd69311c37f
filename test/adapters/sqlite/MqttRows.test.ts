import { assert, describe, it } from "@effect/vitest"
import { runBatch } from "../../../src/adapters/sqlite/Batch.ts"
import { mqttMethods } from "../../../src/adapters/sqlite/messages/MqttRows.ts"
import { countedDatabase } from "../support/countedDatabase.ts"

const bytes = (length: number) => new Uint8Array(length)

/** A queue for bob, and a way to fill it. */
const makeQueue = (bounds: { readonly packets: number; readonly bytes: number }) => {
  const { database, plansOf, runsOf } = countedDatabase()
  const rows = mqttMethods(database)
  const subscribe = (client: string) => rows.subscribe([{ client, filter: `mf2c/${client}/#`, qos: 1 }])
  subscribe("bob")
  let counter = 0
  return {
    rows,
    database,
    plansOf,
    runsOf,
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

  it("is measured once, and never sorted, however long it is full", () => {
    const queue = makeQueue({ packets: 1_000, bytes: 1_000_000 })
    for (let index = 0; index < 1_000; index++) queue.add(index < 900 ? "private" : "public")
    for (let index = 0; index < 500; index++) assert.strictEqual(queue.add("private"), 1)
    for (let index = 1_000; index < 1_400; index++) queue.acknowledge(index)
    for (let index = 0; index < 400; index++) assert.strictEqual(queue.add("public"), 0)
    assert.strictEqual(queue.add("protected"), 1)
    assert.lengthOf(queue.waiting(), 1_000)
    assert.strictEqual(queue.runsOf(/count\(\*\)/), 1)
    const plans = queue.plansOf(/FROM outgoing/)
    assert.isAbove(plans.length, 5)
    assert.deepStrictEqual(
      plans.filter((plan) => /SCAN|TEMP B-TREE/.test(plan)),
      []
    )
    queue.close()
  })

  it("loses as much as is needed for a large packet, and no more", () => {
    const queue = makeQueue({ packets: 10_000, bytes: 100_000 })
    for (let index = 0; index < 500; index++) queue.add("private", bytes(100))
    for (let index = 0; index < 500; index++) queue.add("public", bytes(100))
    assert.strictEqual(queue.add("private", bytes(60_000)), 600)
    const left = queue.waiting()
    assert.strictEqual(left[0]?.number, 100)
    assert.deepStrictEqual(
      left.filter(({ inbox }) => inbox === "public"),
      []
    )
    assert.lengthOf(left, 401)
    queue.close()
  })

  it("keeps to its bound where what went from it was put back", () => {
    const bounds = { packets: 100, bytes: 1_000_000 }
    const queue = makeQueue(bounds)
    for (let index = 0; index < 100; index++) queue.add("private")
    // The whole transaction is lost, as on a full disk.
    const methods = { ...queue.rows, lose: () => queue.database.exec("ROLLBACK") }
    const numbers = Array.from({ length: 100 }, (_, counter) => counter)
    const packet = { broker: "two", topic: "mf2c/bob/private", retain: false, payload: bytes(1) }
    const replies = runBatch(queue.database, methods, [
      ...numbers.map((counter) => ({
        id: counter,
        method: "acknowledged",
        args: ["bob", { broker: "one", counter }]
      })),
      { id: 100, method: "enqueue", args: [["bob"], { ...packet, counter: 0 }, bounds] },
      { id: 101, method: "lose", args: [] }
    ])
    assert.isTrue(replies.every(({ ok }) => !ok))
    for (let index = 0; index < 50; index++) queue.add("private")
    assert.lengthOf(queue.waiting(), 100)
    queue.close()
  })
})
