import { connect as connectTcp } from "node:net"
import { afterEach, assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import mqtt from "mqtt"
import type { Name } from "../../../src/schemas/Ids.ts"
import { Limits } from "../../../src/schemas/Limits.ts"
import { Bench, root, textsOf } from "../../support/brokerBench.ts"
import { waitUntil } from "../../support/Program.ts"

let bench: Bench
afterEach(() => bench.remove())

describe("the embedded broker", () => {
  it("carries public messages, over TCP and WebSocket", async () => {
    bench = new Bench()
    await bench.open()
    const bob = await bench.client("bob", { web: true })
    const heard = textsOf(bob)
    await bob.subscribeAsync(`${root}/bob/#`, { qos: 1 })
    const alice = await bench.client("alice")
    await alice.publishAsync(`${root}/bob/public`, "hello", { qos: 1 })
    await waitUntil("the message", () => heard.length === 1)
    assert.deepStrictEqual(heard, ["hello"])
  })

  it("keeps sessions, queues and what is retained over its own end", async () => {
    bench = new Bench()
    await bench.open()
    const before = await bench.client("bob")
    await before.subscribeAsync(`${root}/bob/#`, { qos: 1 })
    await before.endAsync()
    const alice = await bench.client("alice")
    await bench.know("alice")
    await alice.publishAsync(`${root}/alice/public/where`, "the shed", { qos: 1, retain: true })
    for (let index = 0; index < 100; index++)
      await alice.publishAsync(`${root}/bob/public`, String(index), { qos: 1 })
    await bench.close()
    await bench.open()
    const bob = await mqtt.connect(bench.broker.addresses[0] as string, {
      clientId: "bob",
      username: "bob",
      password: "agent",
      clean: false,
      reconnectPeriod: 0
    })
    bench.clients.push(bob)
    const heard = textsOf(bob)
    await waitUntil("the queue", () => heard.length >= 100)
    assert.deepStrictEqual(
      heard,
      Array.from({ length: 100 }, (_, index) => String(index))
    )
    await bob.subscribeAsync(`${root}/+/public/#`, { qos: 1 })
    await waitUntil("what is retained", () => heard.length > 100)
    assert.strictEqual(heard[100], "the shed")
  })

  it("acknowledges what is for broker services when it is safe, and not before", async () => {
    bench = new Bench()
    await bench.open()
    let release: () => void = () => undefined
    const released = new Promise<void>((done) => {
      release = done
    })
    bench.take = () => Effect.promise(() => released)
    const alice = await bench.client("alice")
    let acknowledged = false
    const sending = alice.publishAsync(`${root}/broker-services/private`, "secret", { qos: 1 }).then(() => {
      acknowledged = true
    })
    await waitUntil("the publication", () => bench.received.length === 1)
    // Another agent's message goes the whole way meanwhile.
    const carol = await bench.client("carol")
    await carol.publishAsync(`${root}/alice/public`, "hello", { qos: 1 })
    assert.isFalse(acknowledged)
    release()
    await sending
    assert.deepStrictEqual(
      bench.received.map(({ from, role, topic }) => ({ from, role, topic })),
      [{ from: "alice", role: "agent", topic: `${root}/broker-services/private` }] as never
    )
  })

  it("swallows and counts what may not be written; refuses what may not be read", async () => {
    bench = new Bench()
    await bench.open()
    const bob = await bench.client("bob")
    const heard = textsOf(bob)
    await bob.subscribeAsync(`${root}/bob/#`, { qos: 1 })
    const mallory = await bench.client("mallory")
    for (const inbox of ["protected", "private", "handshake", "public/handshake", "nonsense"])
      await mallory.publishAsync(`${root}/bob/${inbox}`, inbox, { qos: 1 })
    await mallory.publishAsync("$SYS/x", "x", { qos: 1 })
    await mallory.publishAsync(`${root}/broker-services/discovery`, "nobody", { qos: 1 })
    for (const filter of [
      "#",
      `${root}/#`,
      `${root}/bob/#`,
      `${root}/bob/private`,
      `${root}/+/private`,
      "$SYS/#"
    ]) {
      const [granted] = await mallory.subscribeAsync(filter, { qos: 1 }).catch(() => [{ qos: 128 }])
      assert.strictEqual(granted?.qos, 128, filter)
    }
    const stranger = await bench.client("stranger", { role: "stranger" })
    await stranger.publishAsync(`${root}/bob/public`, "stranger", { qos: 1 })
    await mallory.publishAsync(`${root}/bob/public`, "allowed", { qos: 1 })
    await waitUntil("the one that is allowed", () => heard.length > 0)
    assert.deepStrictEqual(heard, ["allowed"])
    assert.strictEqual(bench.refused.filter((each) => each === "mallory not_permitted").length, 13)
    assert.include(bench.refused, "stranger not_permitted")
    assert.lengthOf(bench.received, 0)
  })

  it("ends a connection that publishes with QoS 2, and neither hands it on nor cuts off whoever would get it", async () => {
    bench = new Bench()
    await bench.open()
    const bob = await bench.client("bob")
    const heard = textsOf(bob)
    await bob.subscribeAsync(`${root}/bob/#`, { qos: 2 })
    for (const topic of [`${root}/bob/public`, `${root}/broker-services/status`]) {
      const mallory = await bench.client("mallory")
      const closed = new Promise<void>((done) => mallory.once("close", () => done()))
      mallory.publish(topic, "exactly once", { qos: 2 })
      await closed
    }
    const alice = await bench.client("alice")
    await alice.publishAsync(`${root}/bob/public`, "at least once", { qos: 1 })
    await waitUntil("a message", () => heard.includes("at least once"))
    assert.deepStrictEqual(heard, ["at least once"])
    assert.lengthOf(bench.received, 0)
    assert.isTrue(bob.connected)
  })

  it("turns away who has no credentials, another's name, or the services' own", async () => {
    bench = new Bench()
    await bench.open()
    const attempt = (clientId: string, username: string, password: string) =>
      mqtt
        .connectAsync(bench.broker.addresses[0] as string, {
          clientId,
          username,
          password,
          reconnectPeriod: 0
        })
        .then(
          () => "connected",
          (error: { readonly code?: number }) => error.code
        )
    assert.strictEqual(await attempt("bob", "bob", "wrong"), 5)
    assert.strictEqual(await attempt("bob", "alice", "agent"), 5)
    assert.strictEqual(await attempt("broker-services", "broker-services", "agent"), 5)
    assert.strictEqual(await attempt("no/name", "no/name", "agent"), 5)
  })

  it("expels an agent at once, session included", async () => {
    bench = new Bench()
    await bench.open()
    const bob = await bench.client("bob")
    await bob.subscribeAsync(`${root}/bob/#`, { qos: 1 })
    const closed = new Promise<void>((done) => bob.once("close", () => done()))
    await Effect.runPromise(bench.broker.expel("bob" as never))
    await closed
    const alice = await bench.client("alice")
    await alice.publishAsync(`${root}/bob/public`, "too late", { qos: 1 })
    const again = await bench.client("bob")
    const heard = textsOf(again)
    await again.subscribeAsync(`${root}/bob/#`, { qos: 1 })
    await alice.publishAsync(`${root}/bob/public`, "new", { qos: 1 })
    await waitUntil("the new message", () => heard.length > 0)
    assert.deepStrictEqual(heard, ["new"])
  })

  it("is held up by no reader that does not read", async () => {
    bench = new Bench()
    await bench.open()
    const slow = await bench.client("slow")
    await slow.subscribeAsync(`${root}/slow/#`, { qos: 1 })
    ;(slow.stream as unknown as { pause: () => void }).pause()
    const bob = await bench.client("bob")
    const heard = textsOf(bob)
    await bob.subscribeAsync(`${root}/bob/#`, { qos: 1 })
    const alice = await bench.client("alice")
    const large = "x".repeat(100_000)
    for (let index = 0; index < 120; index++) {
      await alice.publishAsync(`${root}/slow/public`, large, { qos: 1 })
      await alice.publishAsync(`${root}/bob/public`, String(index), { qos: 1 })
    }
    await waitUntil("all of bob's", () => heard.length === 120)
    await waitUntil("the slow one is cut off", async () =>
      (await Effect.runPromise(bench.broker.connected)).every((name) => name !== "slow")
    )
  })

  it("cuts off who sends packets beyond all bounds", async () => {
    bench = new Bench()
    await bench.open()
    const { port } = new URL(bench.broker.addresses[0] as string)
    const socket = connectTcp(Number(port), "127.0.0.1")
    socket.on("error", () => undefined)
    const closed = new Promise<void>((done) => socket.once("close", () => done()))
    // A CONNECT of 200 MB.
    socket.write(Buffer.from([0x10, 0x80, 0x84, 0xaf, 0x5f]))
    const chunk = Buffer.alloc(64 * 1024)
    let sent = 0
    const push = () => {
      while (sent < 2_000_000 && socket.writable) {
        sent += chunk.length
        if (!socket.write(chunk)) return void socket.once("drain", push)
      }
    }
    push()
    await closed
    const alice = await bench.client("alice")
    await alice
      .publishAsync(`${root}/broker-services/private`, "y".repeat(257 * 1024), { qos: 1 })
      .catch(() => undefined)
    await waitUntil("the refusal", () => bench.refused.includes("alice too_large") || !alice.connected)
    assert.lengthOf(bench.received, 0)
  })

  it("keeps nothing for a filter that was refused, though it was asked for with one that was not", async () => {
    bench = new Bench()
    await bench.open()
    const mallory = await bench.client("mallory")
    const heard = textsOf(mallory)
    const filters = [`${root}/mallory/#`, `${root}/bob/private`]
    await mallory.subscribeAsync(filters, { qos: 1 }).catch(() => undefined)
    const publish = (to: string, text: string) =>
      Effect.runPromise(bench.broker.publish(`${root}/${to}/private`, new TextEncoder().encode(text)))
    await publish("bob", "while she is here")
    await mallory.endAsync()
    await publish("bob", "while she is away")
    await publish("mallory", "her own")
    await bench.close()
    await bench.open()
    await publish("bob", "after a restart")
    const again = await bench.client("mallory")
    again.on("message", (_topic, payload) => void heard.push(payload.toString()))
    await publish("mallory", "the last")
    await waitUntil("her own messages", () => heard.includes("the last"))
    assert.deepStrictEqual(
      heard.filter((text) => !["her own", "the last"].includes(text)),
      []
    )
  })

  it("lets strangers leave nothing behind: no session, no will", async () => {
    bench = new Bench()
    await bench.open()
    const bob = await bench.client("bob")
    const heard = textsOf(bob)
    await bob.subscribeAsync(`${root}/bob/#`, { qos: 1 })
    const will = { topic: `${root}/bob/public`, text: "a stranger's last word" }
    const stranger = await bench.client("eve", { role: "stranger", will })
    await stranger.subscribeAsync(`${root}/eve/handshake`, { qos: 1 })
    stranger.stream.destroy()
    await waitUntil("its end", () => bench.presence.includes("eve false"))
    const taken = await Effect.runPromise(
      bench.broker.publish(`${root}/eve/handshake`, new TextEncoder().encode("an answer"))
    )
    assert.isFalse(taken)
    const alice = await bench.client("alice", { will: { ...will, text: "an agent's last word" } })
    alice.stream.destroy()
    await waitUntil("the agent's will", () => heard.length > 0)
    assert.deepStrictEqual(heard, ["an agent's last word"])
  })

  it("keeps so much below a name and no more, and nothing of an agent that is expelled", async () => {
    bench = new Bench()
    await bench.open()
    const alice = await bench.client("alice")
    const keep = (topic: string, text: string) =>
      alice.publishAsync(`${root}/alice/public/${topic}`, text, { qos: 1, retain: true })
    const most = Limits.messagingRetained
    for (let index = 0; index < most + 3; index++) await keep(`at/${index}`, "kept")
    await keep("at/0", "kept anew")
    await keep("at/1", "")
    await keep("large", "x".repeat(Limits.messagingRetainedBytes))
    const bob = await bench.client("bob")
    const heard = textsOf(bob)
    await bob.subscribeAsync(`${root}/alice/public/#`, { qos: 1 })
    await waitUntil("what is kept", () => heard.length === most - 1)
    assert.strictEqual(heard.filter((text) => text === "kept anew").length, 1)
    assert.strictEqual(bench.refused.filter((each) => each === "alice too_many").length, 4)
    await Effect.runPromise(bench.broker.expel("alice" as Name))
    await bench.close()
    await bench.open()
    const carol = await bench.client("carol")
    const later = textsOf(carol)
    await carol.subscribeAsync(`${root}/+/public/#`, { qos: 1 })
    await bench.client("dave").then((dave) => dave.publishAsync(`${root}/carol/public`, "now", { qos: 1 }))
    await waitUntil("a message", () => later.length > 0)
    assert.deepStrictEqual(later, ["now"])
  })

  it("takes so many filters of one agent and no more, until it gives one up", async () => {
    bench = new Bench()
    await bench.open()
    const alice = await bench.client("alice")
    const filters = Array.from(
      { length: Limits.messagingFilters + 1 },
      (_, index) => `${root}/alice/${index}`
    )
    const grantedOf = async (asked: string | Array<string>) =>
      (await alice.subscribeAsync(asked, { qos: 1 }).catch(() => [])).map(({ qos }) => qos)
    await grantedOf(filters.slice(0, -1))
    assert.lengthOf(bench.refused, 0)
    await grantedOf(filters.at(-1) as string)
    assert.deepStrictEqual(bench.refused, ["alice too_many"])
    await alice.unsubscribeAsync(filters[0] as string)
    assert.deepStrictEqual(await grantedOf(filters.at(-1) as string), [1])
  })
})
