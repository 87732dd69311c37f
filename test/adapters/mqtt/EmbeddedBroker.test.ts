import { subscribe, unsubscribe } from "node:diagnostics_channel"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:http"
import { type AddressInfo, connect as connectTcp, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import mqtt, { type MqttClient } from "mqtt"
import { embeddedBroker } from "../../../src/adapters/mqtt/EmbeddedBroker.ts"
import { MqttUpgrades } from "../../../src/adapters/mqtt/MqttUpgrades.ts"
import { openInProcess } from "../../../src/adapters/sqlite/InProcessDatabase.ts"
import { messagesDatabase } from "../../../src/adapters/sqlite/messages/MessagesDatabase.ts"
import type { BrokerHandlers, OpenBroker, Publication } from "../../../src/ports/MessageBroker.ts"
import type { AgentRow } from "../../../src/ports/MessageStore.ts"
import type { Name } from "../../../src/schemas/Ids.ts"
import { Limits } from "../../../src/schemas/Limits.ts"
import type { TopicRole } from "../../../src/schemas/TopicRights.ts"
import { waitUntil } from "../../support/Program.ts"

const root = "mf2c"
type Success<A> = A extends Effect.Effect<infer S, infer _E, infer _R> ? S : never
const openMessages = (folder: string) => openInProcess(messagesDatabase, join(folder, "messages.db"))

/** A broker over a folder, and what it told. */
class Bench {
  readonly folder = mkdtempSync(join(tmpdir(), "postern-broker-"))
  readonly received: Array<Publication> = []
  readonly refused: Array<string> = []
  readonly presence: Array<string> = []
  readonly clients: Array<MqttClient> = []
  readonly upgrades = new MqttUpgrades()
  private readonly http = createServer()
  broker!: OpenBroker
  private scope: Scope.Closeable | undefined
  /** What takes a publication; replaced by tests. */
  take: (publication: Publication) => Effect.Effect<void> = () => Effect.void
  /** What a call to the database waits for; replaced by tests. */
  before: (method: string) => Effect.Effect<void> = () => Effect.void
  private database!: Success<ReturnType<typeof openMessages>>

  private readonly handlers: BrokerHandlers = {
    authenticate: (_name, password) => {
      const role = new TextDecoder().decode(password)
      return Effect.succeed(["agent", "stranger"].includes(role) ? (role as TopicRole) : null)
    },
    received: (publication) =>
      Effect.suspend(() => {
        this.received.push(publication)
        return this.take(publication)
      }),
    presence: (name, connected) => Effect.sync(() => void this.presence.push(`${name} ${connected}`)),
    refused: (name, reason) => Effect.sync(() => void this.refused.push(`${name} ${reason}`))
  }

  async open(queuePackets = 1_000): Promise<void> {
    const scope = Effect.runSync(Scope.make())
    this.scope = scope
    this.broker = await Effect.runPromise(
      Effect.gen({ self: this }, function* () {
        const database = yield* openMessages(this.folder)
        this.database = database
        return yield* embeddedBroker({
          listen: { host: "127.0.0.1", port: 0 },
          upgrades: this.upgrades,
          topicRoot: root,
          maximumConnections: 50,
          queuePackets,
          database: {
            call: (method, ...args) => Effect.andThen(this.before(method), database.call(method, ...args))
          }
        })(this.handlers)
      }).pipe(Scope.provide(scope))
    )
  }

  /** Broker services have come to know an agent. */
  async know(agent: string): Promise<void> {
    const row: AgentRow = {
      agent: agent as Name,
      device: "" as AgentRow["device"],
      signingKey: "" as AgentRow["signingKey"],
      agreement: { key: "", version: 1 },
      visible: true,
      edgeDevices: [],
      session: "" as AgentRow["session"],
      status: "C",
      statusAtMs: 0,
      shakenAtMs: 0
    }
    await Effect.runPromise(this.database.call("putAgent", row))
  }

  /** An HTTP server that hands everything over. */
  async web(): Promise<string> {
    this.http.on("upgrade", (request, socket, head) => {
      if (!this.upgrades.hand(request, socket, head)) socket.destroy()
    })
    await new Promise<void>((done) => this.http.listen(0, "127.0.0.1", done))
    return `ws://127.0.0.1:${(this.http.address() as AddressInfo).port}`
  }

  async close(): Promise<void> {
    this.http.close()
    for (const client of this.clients.splice(0)) await client.endAsync(true)
    if (this.scope !== undefined) await Effect.runPromise(Scope.close(this.scope, Exit.void))
    this.scope = undefined
  }

  async client(
    name: string,
    options: { clean?: boolean; role?: string; web?: boolean; will?: { topic: string; text: string } } = {}
  ) {
    const { clean = false, role = "agent", web = false, will } = options
    const url = web ? await this.web() : (this.broker.addresses[0] as string)
    const client = await mqtt.connectAsync(url, {
      clientId: name,
      username: name,
      password: role,
      clean,
      ...(will === undefined ? {} : { will: { topic: will.topic, payload: Buffer.from(will.text), qos: 1 } }),
      reconnectPeriod: 0
    })
    client.on("error", () => undefined)
    this.clients.push(client)
    return client
  }
}

let bench: Bench
afterEach(async () => {
  await bench.close()
  rmSync(bench.folder, { recursive: true })
})

const textsOf = (client: MqttClient): Array<string> => {
  const texts: Array<string> = []
  client.on("message", (_topic, payload) => void texts.push(payload.toString()))
  return texts
}

/** A CONNECT (MQTT 3.1.1, 3.1) with a clean session. */
const connectOf = (name: string, password: string): Buffer => {
  const fields = ["MQTT", name, name, password].map((text) =>
    Buffer.from(`\0${String.fromCharCode(text.length)}${text}`)
  )
  const [protocol, ...payload] = fields as [Buffer, ...Array<Buffer>]
  const rest = Buffer.concat([protocol, Buffer.of(4, 0xc2, 0, 30), ...payload])
  return Buffer.concat([Buffer.of(0x10, rest.length), rest])
}

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
    const flood = Array.from({ length: 100 }, () => shake(eve))
    const own = Array.from({ length: 100 }, () =>
      eve.publishAsync(`${root}/eve/public/handshake`, "claim", { qos: 1 })
    )
    await Promise.all([...flood, ...own])
    assert.strictEqual(most, 1)
    const { burst, perMinute } = Limits.messagingHandshakes
    const earned = Math.ceil(((performance.now() - begunMs) * perMinute) / 60_000)
    assert.isAtLeast(bench.received.length, burst)
    assert.isAtMost(bench.received.length, burst + earned)
    assert.isAtLeast(bench.refused.filter((each) => each === "eve too_many").length, 200 - burst - earned)
    const alice = await bench.client("alice")
    await shake(alice)
    await alice.publishAsync(`${root}/broker-services/status`, "here", { qos: 1 })
    assert.deepStrictEqual(
      bench.received.slice(-2).map(({ from, topic }) => [from, topic.split("/").at(-1)]),
      [
        ["alice", "handshake"],
        ["alice", "status"]
      ]
    )
    // Messages are no words: they have their own bounds, with broker services.
    const before = bench.received.length
    await Promise.all(
      Array.from({ length: 100 }, () =>
        alice.publishAsync(`${root}/broker-services/private`, "message", { qos: 1 })
      )
    )
    assert.strictEqual(bench.received.length, before + 100)
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
    await grantedOf(filters)
    assert.deepStrictEqual(bench.refused, ["alice too_many"])
    await alice.unsubscribeAsync(filters[0] as string)
    assert.deepStrictEqual(await grantedOf(filters.at(-1) as string), [1])
  })
})
