/** The device's way to the broker that its server offers: by every route that a device may have, against a real broker. */
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { createServer as createHttpServer } from "node:http"
import { type AddressInfo, connect, type Server } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createServer as createTlsServer } from "node:tls"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Layer } from "effect"
import { embeddedBroker } from "../../../src/adapters/mqtt/EmbeddedBroker.ts"
import { MqttUpgrades } from "../../../src/adapters/mqtt/MqttUpgrades.ts"
import { offeredBus } from "../../../src/adapters/mqtt/OfferedBus.ts"
import { makeConnections } from "../../../src/adapters/net/Connections.ts"
import { makeRoutes, type Route, type Routes } from "../../../src/adapters/net/Routes.ts"
import { openInProcess } from "../../../src/adapters/sqlite/InProcessDatabase.ts"
import { messagesDatabase } from "../../../src/adapters/sqlite/messages/MessagesDatabase.ts"
import { DeviceClock } from "../../../src/ports/DeviceClock.ts"
import { type LinkError, ServerLink, ServerRefused } from "../../../src/ports/ServerLink.ts"
import type { MessagingOffer, OfferedBroker } from "../../../src/schemas/MessagingOffer.ts"
import { waitUntil } from "../../support/Program.ts"
import { describeWith } from "../../support/requires.ts"
import { type SocksAnswer, socksServer } from "../net/SocksServer.ts"

const folderOf = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "postern-bus-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
)

/** A listener on a free port of loopback, for as long as the scope is open. */
const listening = <S extends Server>(server: S) =>
  Effect.acquireRelease(
    Effect.callback<number>((resume) => {
      const sockets = new Set<{ destroy: () => void }>()
      server.on("connection", (socket) => sockets.add(socket.on("error", () => undefined)))
      server.once("close", () => sockets.clear())
      Object.assign(server, { cut: () => sockets.forEach((socket) => void socket.destroy()) })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed((server.address() as AddressInfo).port)))
    }),
    () =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        ;(server as unknown as { cut: () => void }).cut()
      })
  )

/** A broker by TCP and by WebSocket, and what it saw of its agents. */
const brokerOf = Effect.gen(function* () {
  const folder = yield* folderOf
  const upgrades = new MqttUpgrades()
  const presence: Array<string> = []
  const database = yield* openInProcess(messagesDatabase, join(folder, "messages.db"))
  const broker = yield* embeddedBroker({
    listen: { host: "127.0.0.1", port: 0 },
    upgrades,
    topicRoot: "fleet",
    maximumConnections: 50,
    queuePackets: 1_000,
    database
  })({
    authenticate: (_name, password) =>
      Effect.succeed(new TextDecoder().decode(password) === "proof" ? "agent" : null),
    received: () => Effect.void,
    presence: (name, connected) => Effect.sync(() => void presence.push(`${name} ${connected}`)),
    refused: () => Effect.void
  })
  const web = createHttpServer()
  web.on("upgrade", (request, socket, head) => {
    const isHere = request.url === "/api/device/v1/mqtt"
    if (!isHere || !upgrades.hand(request, socket, head)) socket.destroy()
  })
  return {
    tcp: Number(new URL(broker.addresses[0] as string).port),
    web: yield* listening(web),
    presence
  }
})

const offering = (brokers: ReadonlyArray<Partial<OfferedBroker> & { readonly url: string }>) => ({
  type: "postern/messaging-offer/v1" as const,
  topic_root: "fleet" as MessagingOffer["topic_root"],
  brokers: brokers.map((broker) => ({ mqtt: 4 as const, ca: null, ...broker })),
  password: null
})

const serverTimeMs = 1_800_000_000_000

/** The bus of a device whose server answers like this. */
const busBy = (
  routes: Routes,
  answer: Effect.Effect<MessagingOffer, LinkError>,
  settings: { readonly broker?: string; readonly ca_file?: string } = {}
) =>
  Effect.gen(function* () {
    const connections = yield* makeConnections(routes)
    const told: Array<number> = []
    const bus = yield* offeredBus({
      connections,
      settings: { broker: null, mqtt: 4, ca_file: null, ...settings }
    }).pipe(
      Effect.provide(
        Layer.mergeAll(
          Layer.succeed(ServerLink, {
            messaging: Effect.map(answer, (body) => ({ body, serverTimeMs, rootVersion: 1 }))
          } as unknown as ServerLink["Service"]),
          Layer.succeed(DeviceClock, {
            nowMs: Effect.succeed(0),
            proven: Effect.succeed(true),
            accept: (atMs: number) => Effect.sync(() => told.push(atMs))
          })
        )
      )
    )
    return { bus, told }
  })

/** Connects as an agent, sends itself a public message, and waits until it is there. */
const exchange = (routes: Routes, brokers: Parameters<typeof offering>[0], settings = {}) =>
  Effect.scoped(
    Effect.gen(function* () {
      const { bus, told } = yield* busBy(routes, Effect.succeed(offering(brokers)), settings)
      const door = yield* bus.find
      assert.strictEqual(door.topicRoot, "fleet")
      assert.deepStrictEqual(told, [serverTimeMs])
      const came = yield* Deferred.make<string>()
      const link = yield* door.connect({
        name: "pi",
        password: Effect.succeed(new TextEncoder().encode("proof")),
        will: { topic: "fleet/broker-services/status", payload: new Uint8Array(1) },
        hasRoom: Effect.succeed(true),
        received: ({ payload }) => Effect.asVoid(Deferred.succeed(came, new TextDecoder().decode(payload)))
      })
      assert.deepStrictEqual(yield* link.subscribe(["fleet/pi/#"]), [])
      yield* link.publish("fleet/pi/public", new TextEncoder().encode("hello"))
      assert.strictEqual(yield* Deferred.await(came), "hello")
      yield* link.leave
    })
  )

const by = (route: Route): Routes => ({ to: () => Effect.succeed(route) })
const direct = by({ _tag: "Direct" })
const upstream = (kind: "socks5" | "http", port: number): Routes =>
  by({
    _tag: "Upstream",
    proxy: { kind, host: "127.0.0.1", port, credentials: { user: "me", password: "secret" } }
  })
const portOf = (endpoint: object) => ("port" in endpoint ? (endpoint.port as number) : 0)

/** A proxy that connects to these ports, whatever it is asked for, and what it was asked for. */
const connectProxy = (port: number) =>
  Effect.gen(function* () {
    const asked: Array<string | undefined> = []
    const proxy = createHttpServer()
    proxy.on("connect", (request, socket) => {
      asked.push(`${request.url} ${request.headers["proxy-authorization"]}`)
      const onward = connect(port, "127.0.0.1", () => {
        socket.write("HTTP/1.1 200 Fine\r\n\r\n")
        socket.pipe(onward)
        onward.pipe(socket)
      })
      for (const end of [socket, onward]) end.on("error", () => undefined)
      onward.on("close", () => socket.destroy())
      socket.on("close", () => onward.destroy())
    })
    return { asked, port: yield* listening(proxy) }
  })

describe("the broker that the server offers", () => {
  it.live("is reached directly, by TCP and by WebSocket", () =>
    Effect.gen(function* () {
      const { presence, tcp, web } = yield* brokerOf
      yield* exchange(direct, [{ url: `mqtt://127.0.0.1:${tcp}` }])
      yield* exchange(direct, [{ url: `ws://127.0.0.1:${web}/api/device/v1/mqtt` }])
      assert.deepStrictEqual(
        presence.filter((event) => event === "pi true"),
        ["pi true", "pi true"]
      )
    })
  )

  it.live("is reached through proxies, which alone hear its name", () =>
    Effect.gen(function* () {
      const { tcp, web } = yield* brokerOf
      for (const [url, port, target] of [
        ["mqtt://broker.invalid", tcp, "broker.invalid:1883"],
        ["ws://broker.invalid/api/device/v1/mqtt", web, "broker.invalid:80"]
      ] as const) {
        const socks = yield* socksServer(() => port)
        yield* exchange(upstream("socks5", portOf(socks.endpoint)), [{ url }])
        assert.deepStrictEqual(
          socks.asks.map(({ host, password, port: to, user }) => ({
            target: `${host}:${to}`,
            user,
            password
          })),
          [{ target, user: "me", password: "secret" }]
        )
        const http = yield* connectProxy(port)
        yield* exchange(upstream("http", http.port), [{ url }])
        assert.deepStrictEqual(http.asked, [`${target} Basic ${Buffer.from("me:secret").toString("base64")}`])
      }
    })
  )

  it.live("is reached through Tor on a circuit of its own, another one after each loss", () =>
    Effect.gen(function* () {
      const { presence, web } = yield* brokerOf
      const socks = yield* socksServer(() => web)
      const routes = by({ _tag: "Tor", endpoint: socks.endpoint })
      const onion = `${"a".repeat(55)}d.onion`
      yield* Effect.scoped(
        Effect.gen(function* () {
          const { bus } = yield* busBy(
            routes,
            Effect.succeed(offering([{ url: `ws://${onion}/api/device/v1/mqtt` }]))
          )
          for (let turn = 0; turn < 2; turn++) {
            const { connect } = yield* bus.find
            const ended = yield* Effect.scoped(
              Effect.gen(function* () {
                const link = yield* connect({
                  name: "pi",
                  password: Effect.succeed(new TextEncoder().encode("proof")),
                  will: { topic: "fleet/broker-services/status", payload: new Uint8Array(1) },
                  hasRoom: Effect.succeed(true),
                  received: () => Effect.void
                })
                for (const socket of socks.sockets) socket.destroy()
                return yield* link.ended
              })
            )
            assert.isString(ended)
            // Not only when its keep-alive is over.
            const isGone = () => presence.filter((event) => event === "pi false").length > turn
            yield* Effect.promise(() => waitUntil("the broker to know", isGone, 20_000))
          }
        })
      )
      assert.deepStrictEqual(
        socks.asks.map(({ host }) => host),
        [onion, onion]
      )
      assert.strictEqual(new Set(socks.asks.map(({ user }) => user)).size, 2)
    })
  )

  it.live("is never reached but through Tor where all is to go through it", () =>
    Effect.gen(function* () {
      const { presence, web } = yield* brokerOf
      const state = {
        phase: "off" as const,
        progress: 0,
        summary: "not started",
        reason: null,
        problem: "failed" as const,
        clockSkewSeconds: null,
        clockDoubt: null
      }
      const routes = makeRoutes({
        mode: "always",
        proxy: null,
        tor: {
          endpoint: () => Effect.succeed(null),
          state: Effect.succeed(state),
          changed: () => Effect.never
        }
      })
      const { bus } = yield* busBy(
        routes,
        Effect.succeed(offering([{ url: `ws://localhost:${web}/api/device/v1/mqtt` }]))
      )
      const { connect } = yield* bus.find
      const error = yield* Effect.flip(
        connect({
          name: "pi",
          password: Effect.succeed(new TextEncoder().encode("proof")),
          will: { topic: "fleet/broker-services/status", payload: new Uint8Array(1) },
          hasRoom: Effect.succeed(true),
          received: () => Effect.void
        })
      )
      assert.strictEqual(error.code, "unreachable")
      assert.include(error.reason, "it needs Tor, which is not ready")
      assert.deepStrictEqual(presence, [])
    })
  )

  it.live("is another one where the first is away, and none where it refuses", () =>
    Effect.gen(function* () {
      const { presence, tcp } = yield* brokerOf
      const away = yield* Effect.scoped(listening(createHttpServer()))
      yield* exchange(direct, [{ url: `mqtt://127.0.0.1:${away}` }, { url: `mqtt://127.0.0.1:${tcp}` }])
      assert.include(presence, "pi true")
      const { bus } = yield* busBy(
        direct,
        Effect.succeed({ ...offering([{ url: `mqtt://127.0.0.1:${tcp}` }]), password: "another" })
      )
      const { connect } = yield* bus.find
      const error = yield* Effect.flip(
        connect({
          name: "pi",
          password: Effect.succeed(new TextEncoder().encode("proof")),
          will: { topic: "fleet/broker-services/status", payload: new Uint8Array(1) },
          hasRoom: Effect.succeed(true),
          received: () => Effect.void
        })
      )
      assert.strictEqual(error.code, "refused")
    })
  )

  it.live("may be none: the server's word counts, and its silence is told apart from it", () =>
    Effect.gen(function* () {
      const refusing = (code: "no_messaging" | "not_accepted") =>
        Effect.fail(new ServerRefused({ code, message: "so it is", retryAfterMs: null }))
      for (const [code, means] of [
        ["no_messaging", "none"],
        ["not_accepted", "refused"]
      ] as const) {
        const { bus } = yield* busBy(direct, refusing(code))
        assert.strictEqual((yield* Effect.flip(bus.find)).code, means)
      }
    })
  )

  it.live("fails in words where what answers there is no broker", () =>
    Effect.gen(function* () {
      const web = createHttpServer((_request, response) => response.writeHead(404).end())
      const port = yield* listening(web)
      const closing = yield* socksServer((): SocksAnswer => ({ reply: 4 }))
      for (const [routes, url, words] of [
        [direct, `ws://127.0.0.1:${port}/api/device/v1/mqtt`, "it takes no WebSocket there (404)"],
        [by({ _tag: "Tor", endpoint: closing.endpoint }), "mqtt://broker.invalid", "broker.invalid"]
      ] as const) {
        const { bus } = yield* busBy(routes, Effect.succeed(offering([{ url }])))
        const { connect } = yield* bus.find
        const error = yield* Effect.flip(
          connect({
            name: "pi",
            password: Effect.succeed(new Uint8Array(1)),
            will: { topic: "fleet/broker-services/status", payload: new Uint8Array(1) },
            hasRoom: Effect.succeed(true),
            received: () => Effect.void
          })
        )
        assert.include(error.reason, words)
      }
    })
  )
})

describeWith(["openssl"], "the broker behind TLS", () => {
  const certified = (folder: string) => {
    const name = "broker.invalid"
    const made = spawnSync(
      "openssl",
      [
        ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
        ...["-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", `/CN=${name}`],
        ...["-addext", `subjectAltName=DNS:${name}`]
      ],
      { cwd: folder, encoding: "utf8" }
    )
    assert.strictEqual(made.status, 0, made.stderr)
    const read = (file: string) => readFileSync(join(folder, file), "utf8")
    return { key: read("key.pem"), cert: read("cert.pem") }
  }

  it.live("must show a certificate that the offer, or the owner, vouches for", () =>
    Effect.gen(function* () {
      const folder = yield* folderOf
      const { cert, key } = certified(folder)
      const { tcp, web } = yield* brokerOf
      for (const [scheme, port, path] of [
        ["mqtts", tcp, ""],
        ["wss", web, "/api/device/v1/mqtt"]
      ] as const) {
        const tls = createTlsServer({ key, cert }, (socket) => {
          const onward = connect(port, "127.0.0.1")
          for (const end of [socket, onward]) end.on("error", () => undefined)
          socket.pipe(onward)
          onward.pipe(socket)
          onward.on("close", () => socket.destroy())
          socket.on("close", () => onward.destroy())
        })
        tls.on("tlsClientError", () => undefined)
        const socks = yield* socksServer(() => (tls.address() as AddressInfo).port)
        yield* listening(tls)
        const routes = upstream("socks5", portOf(socks.endpoint))
        const url = `${scheme}://broker.invalid:8883${path}`
        yield* exchange(routes, [{ url, ca: cert }])
        yield* exchange(routes, [{ url: "mqtt://elsewhere.invalid" }], {
          broker: url,
          ca_file: join(folder, "cert.pem")
        })
        const { bus } = yield* busBy(routes, Effect.succeed(offering([{ url }])))
        const { connect: open } = yield* bus.find
        const error = yield* Effect.flip(
          open({
            name: "pi",
            password: Effect.succeed(new TextEncoder().encode("proof")),
            will: { topic: "fleet/broker-services/status", payload: new Uint8Array(1) },
            hasRoom: Effect.succeed(true),
            received: () => Effect.void
          })
        )
        assert.match(error.reason, /certificate/)
      }
    })
  )
})
