import { mkdtempSync, rmSync } from "node:fs"
import { request as httpRequest, type IncomingMessage } from "node:http"
import { connect, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Scope } from "effect"
import mqtt from "mqtt"
import type { ApiHandler } from "../../../src/adapters/http/Exchange.ts"
import { httpGateway } from "../../../src/adapters/http/HttpGateway.ts"
import { encodeJson, jsonType } from "../../../src/adapters/http/Json.ts"
import { embeddedBroker } from "../../../src/adapters/mqtt/EmbeddedBroker.ts"
import { MqttUpgrades } from "../../../src/adapters/mqtt/MqttUpgrades.ts"
import { openInProcess } from "../../../src/adapters/sqlite/InProcessDatabase.ts"
import { messagesDatabase } from "../../../src/adapters/sqlite/messages/MessagesDatabase.ts"
import { TestKit } from "../../../src/kernel/testing/TestKit.ts"
import { mqttPath } from "../../../src/schemas/MessagingOffer.ts"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "postern-upgrades-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

/** Gives back what was asked. */
const echo: ApiHandler = ({ body, method, path }) =>
  Effect.succeed({
    status: 200,
    headers: { "content-type": jsonType },
    body: encodeJson({ method, path, bytes: body.length })
  })

/** An open door, with a place for MQTT or without. */
const door = (upgrades: MqttUpgrades | null, maximum = 10) =>
  Effect.gen(function* () {
    const behaviour = httpGateway({
      at: { host: "127.0.0.1", port: 0 },
      maximumRequests: 100,
      upgrade: upgrades === null ? undefined : { path: mqttPath, maximum, take: upgrades.hand },
      apis: () => Effect.succeed({ device: echo, management: echo }),
      listening: () => Effect.void
    })
    const { ref } = yield* TestKit.start(behaviour, { spec: { shutdownMs: 3_000 } })
    return Number(new URL(yield* ref.ask("Address")).port)
  })

/** A broker that takes everybody; it is closed with the scope, or before. */
const broker = (upgrades: MqttUpgrades) =>
  Effect.gen(function* () {
    const database = yield* openInProcess(messagesDatabase, join(yield* folder, "messages.db"))
    const open = embeddedBroker({
      listen: null,
      upgrades,
      topicRoot: "mf2c",
      maximumConnections: 10,
      queuePackets: 100,
      database
    })
    const scope = yield* Scope.fork(yield* Effect.scope)
    const { addresses } = yield* open({
      authenticate: () => Effect.succeed("agent"),
      received: () => Effect.void,
      presence: () => Effect.void,
      refused: () => Effect.void
    }).pipe(Scope.provide(scope))
    assert.deepStrictEqual(addresses, [])
    return { close: Scope.close(scope, Exit.void) }
  })

const agent = (port: number, name: string, path: string = mqttPath) =>
  Effect.acquireRelease(
    Effect.tryPromise(() =>
      mqtt.connectAsync(`ws://127.0.0.1:${port}${path}`, {
        clientId: name,
        username: name,
        password: "any",
        reconnectPeriod: 0
      })
    ),
    (client) => Effect.promise(() => client.endAsync(true))
  )

const handshake = {
  connection: "Upgrade",
  upgrade: "websocket",
  "sec-websocket-version": "13",
  "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
  "sec-websocket-protocol": "mqtt"
}

interface Got {
  readonly status: number
  readonly headers: IncomingMessage["headers"]
  readonly body: string
  /** The open connection, where the protocol was changed. */
  readonly socket: Socket | null
}

/** Sends a request with the headers given, and takes whatever answer comes. */
const ask = (port: number, path: string, headers: Record<string, string>) =>
  Effect.acquireRelease(
    Effect.callback<Got, Error>((resume) => {
      const outgoing = httpRequest({ host: "127.0.0.1", port, path, headers, agent: false })
      const done = (incoming: IncomingMessage, socket: Socket | null, body: string) =>
        resume(Effect.succeed({ status: incoming.statusCode ?? 0, headers: incoming.headers, body, socket }))
      outgoing.on("upgrade", (incoming, socket) => done(incoming, socket as Socket, ""))
      outgoing.on("response", (incoming) => {
        let body = ""
        incoming.on("data", (part) => {
          body += part
        })
        incoming.on("end", () => done(incoming, null, body))
        incoming.on("error", (error) => resume(Effect.fail(error)))
      })
      outgoing.on("error", (error) => resume(Effect.fail(error)))
      outgoing.end()
    }),
    ({ socket }) => Effect.sync(() => socket?.destroy())
  )

describe("MQTT at an HTTP door", () => {
  it.effect("is handed to the broker, while requests are answered beside it", () =>
    Effect.gen(function* () {
      const upgrades = new MqttUpgrades()
      yield* broker(upgrades)
      const port = yield* door(upgrades)
      const bob = yield* agent(port, "bob")
      const heard = yield* Deferred.make<string>()
      bob.on("message", (_topic, payload) => Deferred.doneUnsafe(heard, Effect.succeed(payload.toString())))
      yield* Effect.promise(() => bob.subscribeAsync("mf2c/bob/#", { qos: 1 }))
      const alice = yield* agent(port, "alice")
      yield* Effect.promise(() => alice.publishAsync("mf2c/bob/public", "hello", { qos: 1 }))
      assert.strictEqual(yield* Deferred.await(heard), "hello")
      const plain = yield* ask(port, "/anything", {})
      assert.deepInclude(plain, { status: 200, body: '{"method":"GET","path":"/anything","bytes":0}' })
    })
  )

  it.effect("is answered 503 while there is no broker, and comes through when there is one again", () =>
    Effect.gen(function* () {
      const upgrades = new MqttUpgrades()
      const port = yield* door(upgrades)
      const early = yield* ask(port, mqttPath, handshake)
      assert.deepInclude(early, { status: 503, socket: null })
      assert.strictEqual(early.headers["retry-after"], "2")
      assert.deepInclude(JSON.parse(early.body), { error: "overloaded" })
      const first = yield* broker(upgrades)
      const bob = yield* agent(port, "bob")
      const lost = yield* Deferred.make<void>()
      bob.on("close", () => Deferred.doneUnsafe(lost, Effect.void))
      yield* first.close
      yield* Deferred.await(lost)
      assert.strictEqual((yield* ask(port, mqttPath, handshake)).status, 503)
      yield* broker(upgrades)
      assert.isTrue((yield* agent(port, "bob")).connected)
    })
  )

  it.effect("is taken at its path alone, and at doors that have it alone", () =>
    Effect.gen(function* () {
      const upgrades = new MqttUpgrades()
      yield* broker(upgrades)
      const port = yield* door(upgrades)
      for (const path of ["/", "/mqtt", `${mqttPath}/`, "/api/device/v1/poll"]) {
        const elsewhere = yield* ask(port, path, handshake)
        assert.deepInclude(elsewhere, { status: 200, socket: null }, path)
        assert.deepInclude(JSON.parse(elsewhere.body), { path })
        assert.strictEqual(elsewhere.headers.connection, "close")
      }
      const other = yield* door(null)
      const there = yield* ask(other, mqttPath, handshake)
      assert.deepInclude(there, { status: 200, socket: null })
    })
  )

  it.effect("leaves those alone who ask for something else, as clients of HTTP/2 do", () =>
    Effect.gen(function* () {
      const upgrades = new MqttUpgrades()
      yield* broker(upgrades)
      const port = yield* door(upgrades)
      const newer = { connection: "Upgrade, HTTP2-Settings", upgrade: "h2c", "http2-settings": "AAMAAABk" }
      const got = yield* ask(port, mqttPath, newer)
      assert.deepInclude(got, { status: 200, socket: null })
      assert.deepInclude(JSON.parse(got.body), { path: mqttPath })
    })
  )

  it.effect("has so many places and no more; one that is left is free again", () =>
    Effect.gen(function* () {
      const upgrades = new MqttUpgrades()
      yield* broker(upgrades)
      const port = yield* door(upgrades, 2)
      yield* agent(port, "alice")
      const bob = yield* agent(port, "bob")
      assert.strictEqual((yield* ask(port, mqttPath, handshake)).status, 503)
      yield* Effect.promise(() => bob.endAsync())
      const tryAgain: Effect.Effect<number, Error, Scope.Scope> = Effect.flatMap(
        ask(port, mqttPath, handshake),
        ({ status }) => (status === 503 ? tryAgain : Effect.succeed(status))
      )
      assert.strictEqual(yield* tryAgain, 101)
    })
  )

  it.effect("ends with its door", () =>
    Effect.gen(function* () {
      const upgrades = new MqttUpgrades()
      yield* broker(upgrades)
      const scope = yield* Scope.make()
      const port = yield* Scope.provide(door(upgrades), scope)
      const bob = yield* agent(port, "bob")
      const lost = yield* Deferred.make<void>()
      bob.on("close", () => Deferred.doneUnsafe(lost, Effect.void))
      yield* Scope.close(scope, Exit.void)
      yield* Deferred.await(lost)
    })
  )

  it.effect("is cut off when it says nothing that is MQTT", () =>
    Effect.gen(function* () {
      const upgrades = new MqttUpgrades()
      yield* broker(upgrades)
      const port = yield* door(upgrades)
      const socket = yield* Effect.acquireRelease(
        Effect.sync(() => connect(port, "127.0.0.1")),
        (open) => Effect.sync(() => open.destroy())
      )
      const closed = yield* Deferred.make<void>()
      socket.on("error", () => undefined)
      socket.on("close", () => Deferred.doneUnsafe(closed, Effect.void))
      socket.resume()
      const lines = [
        `GET ${mqttPath} HTTP/1.1`,
        "host: here",
        ...Object.entries(handshake).map((pair) => pair.join(": "))
      ]
      // Behind the handshake, what no WebSocket frame begins with.
      socket.write(`${lines.join("\r\n")}\r\n\r\n${"\xff".repeat(64)}`)
      yield* Deferred.await(closed)
      assert.isTrue((yield* agent(port, "alice")).connected)
    })
  )
})
