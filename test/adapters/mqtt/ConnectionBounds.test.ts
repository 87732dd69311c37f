/** What one connection may have in hand at the embedded broker: who floods waits for itself, and nobody else does. */
import { connect as connectTcp } from "node:net"
import { afterEach, assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Limits } from "../../../src/schemas/Limits.ts"
import { Bench, root, textsOf } from "../../support/brokerBench.ts"
import { waitUntil } from "../../support/Program.ts"
import { connectOf, publishOf } from "./rawPackets.ts"

let bench: Bench
afterEach(() => bench.remove())

/** What takes a turn of the event loop, and how much of it went on at once at the most. */
const overlapping = () => {
  let inHand = 0
  const counts = { most: 0, all: 0 }
  const work = async (): Promise<void> => {
    counts.all++
    counts.most = Math.max(counts.most, ++inHand)
    await new Promise((done) => setImmediate(done))
    inHand--
  }
  return { counts, work }
}

describe("one connection", () => {
  for (const when of ["with", "after"])
    it(`works on so many packets of a connection at once, of those that come ${when} its CONNECT, and on all in their order`, async () => {
      bench = new Bench()
      const count = 300
      await bench.open(count)
      const bob = await bench.client("bob")
      const heard = textsOf(bob)
      await bob.subscribeAsync(`${root}/bob/#`, { qos: 1 })
      const { counts, work } = overlapping()
      bench.before = (method) => (method === "enqueue" ? Effect.promise(work) : Effect.void)
      const { port } = new URL(bench.broker.addresses[0] as string)
      const socket = connectTcp(Number(port), "127.0.0.1")
      const ids = Array.from({ length: count }, (_, index) => index + 1)
      const connect = connectOf("alice", "agent")
      const publications = Buffer.concat(ids.map((id) => publishOf(`${root}/bob/public`, id)))
      if (when === "with") socket.write(Buffer.concat([connect, publications]))
      else socket.once("data", () => void socket.write(publications)).write(connect)
      await waitUntil("all of them", () => heard.length >= count)
      socket.destroy()
      assert.deepStrictEqual(heard, ids.map(String))
      assert.deepStrictEqual(counts, { most: Limits.messagingInHand, all: count })
    })

  it("hears of an agent while broker services take long for as many messages as it may send at once", async () => {
    bench = new Bench()
    await bench.open()
    let release: () => void = () => undefined
    const released = new Promise<void>((done) => {
      release = done
    })
    bench.take = () => Effect.promise(() => released)
    const alice = await bench.client("alice")
    const heard = textsOf(alice)
    await alice.subscribeAsync(`${root}/alice/#`, { qos: 1 })
    const sending = Array.from({ length: 8 }, () =>
      alice.publishAsync(`${root}/broker-services/private`, "message", { qos: 1 })
    )
    await waitUntil("the first", () => bench.received.length === 1)
    await alice.publishAsync(`${root}/alice/public`, "and another", { qos: 1 })
    await waitUntil("another", () => heard.length === 1)
    assert.lengthOf(bench.received, 1)
    release()
    await Promise.all(sending)
    assert.lengthOf(bench.received, 8)
  })

  it("leaves cleanly, without its last will, also where its DISCONNECT must wait", async () => {
    bench = new Bench()
    await bench.open()
    const bob = await bench.client("bob")
    const heard = textsOf(bob)
    await bob.subscribeAsync(`${root}/bob/#`, { qos: 1 })
    const topic = `${root}/bob/public`
    const alice = await bench.client("alice", { will: { topic, text: "gone" } })
    let release: () => void = () => undefined
    const released = new Promise<void>((done) => {
      release = done
    })
    bench.before = (method) => (method === "enqueue" ? Effect.promise(() => released) : Effect.void)
    const ids = Array.from({ length: Limits.messagingInHand + 1 }, (_, index) => index + 1)
    const disconnect = Buffer.of(0xe0, 0)
    alice.stream.end(Buffer.concat([...ids.map((id) => publishOf(topic, id)), disconnect]))
    await waitUntil("its end", () => bench.presence.includes("alice false"))
    release()
    // What goes to bob later comes later.
    const carol = await bench.client("carol")
    await carol.publishAsync(topic, "later", { qos: 1 })
    await waitUntil("what came later", () => heard.includes("later"))
    assert.include(heard, "1")
    assert.notInclude(heard, "gone")
  })

  it("writes down once what one packet subscribes to", async () => {
    bench = new Bench()
    await bench.open()
    const { counts, work } = overlapping()
    bench.before = (method) => (method === "subscribe" ? Effect.promise(work) : Effect.void)
    const alice = await bench.client("alice")
    const filters = Array.from({ length: Limits.messagingFilters }, (_, index) => `${root}/alice/${index}`)
    assert.lengthOf(await alice.subscribeAsync(filters, { qos: 1 }), filters.length)
    assert.strictEqual(counts.all, 1)
    const { subscriptions } = await Effect.runPromise(bench.database.call("sessions"))
    assert.sameMembers(
      subscriptions.map(({ filter }) => filter),
      filters
    )
  })
})
