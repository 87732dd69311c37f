/** What the embedded broker lets many do, and those who are no agents: nobody keeps it from others, or fills it. */
import { subscribe, unsubscribe } from "node:diagnostics_channel"
import { connect as connectTcp, type Socket } from "node:net"
import { afterEach, assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { MqttClient } from "mqtt"
import { mqttBus } from "../../../src/adapters/mqtt/MqttBus.ts"
import { Limits } from "../../../src/schemas/Limits.ts"
import type { AgentName } from "../../../src/schemas/Topics.ts"
import { Bench, root, textsOf } from "../../support/brokerBench.ts"
import { waitUntil } from "../../support/Program.ts"

let bench: Bench
afterEach(() => bench.remove())

/** A CONNECT (MQTT 3.1.1, 3.1) with a clean session. */
const connectOf = (name: string, password: string): Buffer => {
  const fields = ["MQTT", name, name, password].map((text) =>
    Buffer.from(`\0${String.fromCharCode(text.length)}${text}`)
  )
  const [protocol, ...payload] = fields as [Buffer, ...Array<Buffer>]
  const rest = Buffer.concat([protocol, Buffer.of(4, 0xc2, 0, 30), ...payload])
  return Buffer.concat([Buffer.of(0x10, rest.length), rest])
}

/** The first four bytes that a connection is told, which are its CONNACK. */
const answerTo = (connect: Buffer): Promise<ReadonlyArray<number>> =>
  new Promise((done, fail) => {
    const { port } = new URL(bench.broker.addresses[0] as string)
    const socket = connectTcp(Number(port), "127.0.0.1")
    socket.once("data", (bytes) => {
      socket.destroy()
      done([...bytes.subarray(0, 4)])
    })
    socket.once("error", fail)
    socket.write(connect)
  })

/** What an agent's own bus makes of the broker's answer to it. */
const comesTo = (name: string, password: string) => {
  const { hostname, port } = new URL(bench.broker.addresses[0] as string)
  const dial = Effect.acquireRelease(
    Effect.sync(() => connectTcp(Number(port), hostname).on("error", () => undefined)),
    (socket) => Effect.sync(() => void socket.destroy())
  )
  const bus = mqttBus({
    find: Effect.succeed({ topicRoot: root, password: null, brokers: [{ mqtt: 4, dial }] })
  })
  return Effect.runPromise(
    Effect.flatMap(bus.find, ({ connect }) =>
      connect({
        name: name as AgentName,
        password: new TextEncoder().encode(password),
        will: { topic: `${root}/broker-services/status`, payload: new Uint8Array(1) },
        hasRoom: Effect.succeed(true),
        received: () => Effect.void
      })
    ).pipe(Effect.flip, Effect.scoped)
  )
}

/** A PUBLISH of QoS 1 (MQTT 3.1.1, 3.3). */
const publishOf = (topic: string, id: number): Buffer => {
  const rest = Buffer.concat([
    Buffer.of(0, topic.length),
    Buffer.from(topic),
    Buffer.of(id >> 8, id & 0xff),
    Buffer.from(String(id))
  ])
  return Buffer.concat([Buffer.of(0x32, rest.length), rest])
}

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

/** When a connection has ended. */
const endOf = (client: MqttClient): Promise<void> =>
  new Promise((done) => void client.once("close", () => done()))

describe("the embedded broker, with strangers and crowds", () => {
  it("keeps nothing of a stranger's for those who come later, and nothing that such a one left earlier", async () => {
    bench = new Bench()
    await bench.open()
    const keys = (name: string) => `${root}/${name}/public/handshake`
    const eve = await bench.client("eve", { role: "stranger" })
    await eve.publishAsync(keys("eve"), "x".repeat(60_000), { qos: 1, retain: true })
    await eve.publishAsync(keys("eve"), "and at once", { qos: 0, retain: true })
    // What an earlier broker kept; dave was an agent before it was turned away.
    const dave = await bench.client("dave")
    await dave.publishAsync(keys("dave"), "dave's", { qos: 1, retain: true })
    const alice = await bench.client("alice")
    await bench.know("alice")
    await alice.publishAsync(keys("alice"), "alice's", { qos: 1, retain: true })
    await Effect.runPromise(
      bench.broker.publish(`${root}/broker-services/discovery`, Buffer.from("all"), { retain: true })
    )
    const heardBy = async (name: string, expected: ReadonlyArray<string>) => {
      const bob = await bench.client(name)
      const heard = textsOf(bob)
      await bob.subscribeAsync([`${root}/+/public/#`, `${root}/broker-services/discovery`], { qos: 1 })
      await waitUntil("what is kept", () => expected.every((text) => heard.includes(text)))
      await bob.publishAsync(`${root}/${name}/public`, "now", { qos: 1 })
      await waitUntil("a message", () => heard.includes("now"))
      assert.sameMembers(heard, [...expected, "now"])
    }
    await heardBy("bob", ["alice's", "all", "dave's"])
    for (let opening = 0; opening < 2; opening++) {
      await bench.close()
      await bench.open()
      await heardBy(`carol-${opening}`, ["alice's", "all"])
    }
  })

  it("tells those for whom there is no room to come later, and not that they could not prove who they are", async () => {
    bench = new Bench()
    await bench.open(1_000, 1)
    await bench.client("alice")
    assert.deepStrictEqual(await answerTo(connectOf("bob", "agent")), [0x20, 2, 0, 3])
    assert.deepStrictEqual(await answerTo(connectOf("mallory", "no role")), [0x20, 2, 0, 5])
    assert.deepStrictEqual(bench.refused, ["bob too_many", "mallory bad_credentials"])
    const turnedAway = await comesTo("bob", "agent")
    assert.strictEqual(turnedAway.code, "unreachable")
    assert.include(turnedAway.message, "it takes no more connections at the moment")
    const unproven = await comesTo("mallory", "no role")
    assert.strictEqual(unproven.code, "refused")
    assert.include(unproven.message, "it does not take this agent's credentials")
    // Strangers have connections of their own.
    await bench.client("eve", { role: "stranger" })
    // A new connection takes the place of one that may be broken without the broker's knowing.
    assert.strictEqual((await answerTo(connectOf("alice", "agent")))[3], 0)
  })

  it("does not count a connection that ended while it was set up", async () => {
    bench = new Bench()
    await bench.open()
    const { port } = new URL(bench.broker.addresses[0] as string)
    let taken: Socket | undefined
    const note = (message: unknown) => {
      taken = (message as { readonly socket: Socket }).socket
    }
    subscribe("net.server.socket", note)
    let release: () => void = () => undefined
    const released = new Promise<void>((done) => {
      release = done
    })
    let isSetUp = false
    bench.before = (method) =>
      Effect.promise(async () => {
        if (method !== "forgetClient") return
        isSetUp = true
        await released
      })
    const socket = connectTcp(Number(port), "127.0.0.1")
    socket.on("error", () => undefined)
    socket.write(connectOf("ghost", "stranger"))
    await waitUntil("its session", () => isSetUp)
    unsubscribe("net.server.socket", note)
    socket.resetAndDestroy()
    await waitUntil("its end", () => taken?.closed === true)
    release()
    bench.before = () => Effect.void
    const bob = await bench.client("bob")
    await bob.publishAsync(`${root}/bob/public`, "here", { qos: 1 })
    assert.deepStrictEqual(await Effect.runPromise(bench.broker.connected), ["bob"])
    assert.deepStrictEqual(bench.presence, ["bob true"])
    // Its name is free, and whoever comes under it is counted once.
    const again = await bench.client("ghost", { role: "stranger" })
    again.stream.destroy()
    await waitUntil("its end", () => bench.presence.includes("ghost false"))
    assert.deepStrictEqual(bench.presence, ["bob true", "ghost true", "ghost false"])
  })

  it("hands broker services one word of a connection at a time, and so many a minute, whoever else floods", async () => {
    bench = new Bench()
    await bench.open()
    let inHand = 0
    let most = 0
    bench.take = () =>
      Effect.promise(async () => {
        inHand++
        most = Math.max(most, inHand)
        await new Promise((done) => setImmediate(done))
        inHand--
      })
    const shake = (client: MqttClient) =>
      client.publishAsync(`${root}/broker-services/handshake`, "word", { qos: 1 })
    const begunMs = performance.now()
    const eve = await bench.client("eve", { role: "stranger" })
    const { burst, perMinute } = Limits.messagingHandshakes
    const isEnded = endOf(eve)
    for (let index = 0; index < 100; index++) {
      eve.publish(`${root}/broker-services/handshake`, "word", { qos: 1 })
      if (index >= burst / 2) eve.publish(`${root}/eve/public/handshake`, "claim", { qos: 1 })
    }
    await isEnded
    const earned = Math.ceil(((performance.now() - begunMs) * perMinute) / 60_000)
    await waitUntil("all that was allowed", () => inHand === 0 && bench.received.length >= burst / 2)
    assert.strictEqual(most, 1)
    assert.isAtMost(bench.received.length, burst + earned)
    assert.strictEqual(bench.refused.filter((each) => each === "eve too_many").length, 1)
    const alice = await bench.client("alice")
    // An agent has the same allowance, and stays.
    await Promise.all(Array.from({ length: 100 }, () => shake(alice)))
    assert.isAtLeast(bench.received.filter(({ from }) => from === "alice").length, burst)
    assert.isAtLeast(
      bench.refused.filter((each) => each === "alice too_many").length,
      100 - burst - earned - 1
    )
    const carol = await bench.client("carol")
    await shake(carol)
    await carol.publishAsync(`${root}/broker-services/status`, "here", { qos: 1 })
    assert.deepStrictEqual(
      bench.received.slice(-2).map(({ from, topic }) => [from, topic.split("/").at(-1)]),
      [
        ["carol", "handshake"],
        ["carol", "status"]
      ]
    )
    // Messages are no words: they have their own bounds, with broker services.
    const before = bench.received.length
    await Promise.all(
      Array.from({ length: 100 }, () =>
        carol.publishAsync(`${root}/broker-services/private`, "message", { qos: 1 })
      )
    )
    assert.strictEqual(bench.received.length, before + 100)
  })

  it("lets strangers together say no more than broker services can bear, and agents are heard", async () => {
    bench = new Bench()
    await bench.open()
    const begunMs = performance.now()
    const shake = (client: MqttClient) =>
      client.publishAsync(`${root}/broker-services/handshake`, "word", { qos: 1 })
    const { burst, perMinute } = Limits.messagingStrangerWords
    for (let index = 0; index * Limits.messagingHandshakes.burst < burst + 64; index++) {
      const stranger = await bench.client(`stranger-${index}`, { role: "stranger" })
      await Promise.all(Array.from({ length: Limits.messagingHandshakes.burst }, () => shake(stranger)))
      await stranger.endAsync()
    }
    const earned = Math.ceil(((performance.now() - begunMs) * perMinute) / 60_000)
    assert.isAtLeast(bench.received.length, burst)
    assert.isAtMost(bench.received.length, burst + earned)
    await shake(await bench.client("alice"))
    assert.strictEqual(bench.received.at(-1)?.from, "alice")
  })

  it("ends a connection that names more filters at once than anybody may have, and counts that once", async () => {
    bench = new Bench()
    await bench.open()
    const filters = Array.from({ length: 20_000 }, (_, index) => `${root}/${index}`)
    for (const role of ["stranger", "agent"]) {
      const begging = await bench.client(`begging-${role}`, { role })
      const begged = endOf(begging)
      begging.subscribe(filters, { qos: 1 })
      // What comes behind it counts for nothing.
      begging.publish("nobody", "x", { qos: 0 })
      await begged
      const giving = await bench.client(`giving-${role}`, { role })
      const given = endOf(giving)
      giving.unsubscribe(filters)
      await given
    }
    assert.sameMembers(bench.refused, [
      "begging-stranger too_many",
      "giving-stranger too_many",
      "begging-agent too_many",
      "giving-agent too_many"
    ])
  })

  it("counts one refusal of a packet, however many filters it asks for", async () => {
    bench = new Bench()
    await bench.open()
    const mallory = await bench.client("mallory")
    const others = Array.from({ length: Limits.messagingFilters }, (_, index) => `${root}/${index}/private`)
    for (let packet = 0; packet < 3; packet++)
      await mallory.subscribeAsync(others, { qos: 1 }).catch(() => undefined)
    assert.deepStrictEqual(bench.refused, Array(3).fill("mallory not_permitted"))
  })

  for (const [what, ask] of [
    ["publishes", (client: MqttClient) => client.publish("nobody", "x", { qos: 0 })],
    ["subscribes to", (client: MqttClient) => client.subscribe(["a", "b", "c"], { qos: 1 })]
  ] as const) {
    it(`hangs up on a stranger that ${what} what it may not, again and again`, async () => {
      bench = new Bench()
      await bench.open()
      const begunMs = performance.now()
      const eve = await bench.client("eve", { role: "stranger" })
      const isEnded = endOf(eve)
      for (let index = 0; index < 5_000; index++) ask(eve)
      await isEnded
      const { burst, perMinute } = Limits.messagingHandshakes
      const earned = Math.ceil(((performance.now() - begunMs) * perMinute) / 60_000)
      assert.isAtLeast(bench.refused.length, burst)
      assert.isAtMost(bench.refused.length, burst + earned + 1)
      // Its next connection has an allowance of its own.
      const again = await bench.client("eve", { role: "stranger" })
      await again.publishAsync(`${root}/broker-services/handshake`, "word", { qos: 1 })
      assert.lengthOf(bench.received, 1)
    })
  }

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
