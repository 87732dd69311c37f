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
import { connectOf } from "./rawPackets.ts"

let bench: Bench
afterEach(() => bench.remove())

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
        password: Effect.succeed(new TextEncoder().encode(password)),
        will: { topic: `${root}/broker-services/status`, payload: new Uint8Array(1) },
        hasRoom: Effect.succeed(true),
        received: () => Effect.void
      })
    ).pipe(Effect.flip, Effect.scoped)
  )
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

  it("counts those that are being let in, until they are here or have gone", async () => {
    bench = new Bench()
    await bench.open(1_000, 1)
    let release: () => void = () => undefined
    const released = new Promise<void>((done) => {
      release = done
    })
    let setUps = 0
    bench.before = (method) =>
      Effect.promise(async () => {
        if (method !== "forgetClient") return
        setUps++
        await released
      })
    const { port } = new URL(bench.broker.addresses[0] as string)
    const alice = connectTcp(Number(port), "127.0.0.1")
    alice.write(connectOf("alice", "agent"))
    await waitUntil("alice's session", () => setUps === 1)
    const bob = answerTo(connectOf("bob", "agent"))
    await waitUntil("a judgement of bob", () => setUps + bench.refused.length === 2)
    assert.deepStrictEqual(bench.refused, ["bob too_many"])
    assert.strictEqual((await bob)[3], 3)
    alice.resetAndDestroy()
    await waitUntil("room for bob", async () => {
      const coming = answerTo(connectOf("bob", "agent"))
      release()
      return (await coming)[3] === 0
    })
    await waitUntil("bob's end", () => bench.presence.includes("bob false"))
    assert.strictEqual((await answerTo(connectOf("carol", "agent")))[3], 0)
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
    const earnedUntilNow = () => Math.ceil(((performance.now() - begunMs) * perMinute) / 60_000)
    const earned = earnedUntilNow()
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
      100 - burst - earnedUntilNow() - 1
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
})
