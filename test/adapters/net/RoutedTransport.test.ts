import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { createServer as createHttpServer, type Server } from "node:http"
import { createServer as createHttpsServer } from "node:https"
import { type AddressInfo, createServer, type Server as PlainServer, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { getCACertificates, setDefaultCACertificates } from "node:tls"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { type HttpTransportOptions, httpTransport } from "../../../src/adapters/HttpTransport.ts"
import type { Transport, TransportRequest } from "../../../src/adapters/http/Transport.ts"
import type { Route, Routes } from "../../../src/adapters/net/Routes.ts"
import { concatBytes } from "../../../src/crypto/Bytes.ts"
import type { TorEndpoint } from "../../../src/schemas/TorSettings.ts"
import { describeWith } from "../../support/requires.ts"
import { type SocksAnswer, type SocksAsk, socksServer } from "./SocksServer.ts"

/** A name that no resolver knows: whoever looks it up fails. */
const origin = "http://service.invalid:8470"

const listening = (server: Server) =>
  Effect.acquireRelease(
    Effect.callback<number>((resume) => {
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed((server.address() as AddressInfo).port)))
    }),
    () =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
  )

/** A server of something else than HTTP, which takes whatever it is told. */
const plainServer = (answer: (socket: Socket) => void) =>
  Effect.acquireRelease(
    Effect.callback<PlainServer>((resume) => {
      const server = createServer((socket) => {
        socket.on("error", () => undefined).resume()
        answer(socket)
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
      })
  ).pipe(Effect.map((server) => (server.address() as AddressInfo).port))

/** Answers with the path. */
const webServer = Effect.suspend(() =>
  listening(createHttpServer((request, response) => response.end(`you asked for ${request.url}`)))
)

const requestTo = (to: string, change: Partial<TransportRequest> = {}): TransportRequest => ({
  origin: to,
  method: "GET",
  authority: new URL(to).host,
  path: "/api",
  query: "",
  headers: {},
  body: new Uint8Array(0),
  responseTimeoutMs: 5_000,
  ...change
})

const textOf = (transport: Transport, request: TransportRequest) =>
  Effect.scoped(
    Effect.gen(function* () {
      const { body } = yield* transport.send(request)
      return new TextDecoder().decode(concatBytes(...(yield* Stream.runCollect(body))))
    })
  )

const by = (route: Route): Routes => ({ to: () => Effect.succeed(route) })
const overTor = (endpoint: TorEndpoint): Routes => by({ _tag: "Tor", endpoint })

/** A transport over a SOCKS server that answers like this. */
const transportOver = (
  answer: (ask: SocksAsk) => SocksAnswer,
  options: HttpTransportOptions = {},
  unix = false
) =>
  Effect.gen(function* () {
    const socks = yield* socksServer(answer, unix)
    return { ...socks, transport: yield* httpTransport({ ...options, routes: overTor(socks.endpoint) }) }
  })

const users = (asks: ReadonlyArray<SocksAsk>) => asks.map(({ user }) => user)

describe("a request through Tor", () => {
  for (const unix of [false, true])
    it.live(`hands the name to the proxy, on ${unix ? "a socket of a folder" : "a port"}`, () =>
      Effect.gen(function* () {
        const port = yield* webServer
        const { asks, transport } = yield* transportOver(() => port, {}, unix)
        assert.strictEqual(yield* textOf(transport, requestTo(origin)), "you asked for /api")
        assert.deepInclude(asks[0], { kind: 3, host: "service.invalid", port: 8470 })
        yield* textOf(transport, requestTo("http://other.invalid"))
        assert.deepInclude(asks[1], { host: "other.invalid", port: 80 })
      })
    )

  it.live("keeps a connection per origin and tag, each with a user name of its own", () =>
    Effect.gen(function* () {
      const port = yield* webServer
      const { asks, transport } = yield* transportOver(() => port)
      for (const change of [{}, { circuit: "a" }, { circuit: "b" }, {}, { circuit: "a" }])
        yield* textOf(transport, requestTo(origin, change))
      assert.strictEqual(asks.length, 3)
      assert.strictEqual(new Set(users(asks)).size, 3)
      yield* textOf(transport, requestTo("http://other.invalid"))
      assert.strictEqual(new Set(users(asks)).size, 4)
    })
  )

  it.live("shows other user names in every life of the program", () =>
    Effect.gen(function* () {
      const port = yield* webServer
      const { asks, endpoint, transport } = yield* transportOver(() => port)
      yield* textOf(transport, requestTo(origin))
      const second = yield* httpTransport({ routes: overTor(endpoint) })
      yield* textOf(second, requestTo(origin))
      assert.strictEqual(new Set(users(asks)).size, 2)
    })
  )

  it.live("turns tor's refusals into codes, and takes another circuit after each failure", () =>
    Effect.gen(function* () {
      let reply = 0xf0
      const { asks, transport } = yield* transportOver(() => ({ reply }))
      const codes: Array<string | undefined> = []
      for (reply of [0xf0, 0xf2, 0xf4, 0x05])
        codes.push((yield* Effect.flip(textOf(transport, requestTo(origin)))).code)
      assert.deepStrictEqual(codes, [
        "onion_not_found",
        "onion_intro_failed",
        "onion_not_authorised",
        undefined
      ])
      assert.strictEqual(new Set(users(asks)).size, 4)
    })
  )

  it.live("takes another circuit beside one that does not answer, and keeps to the one that does", () =>
    Effect.gen(function* () {
      const port = yield* webServer
      let stuck: string | null = null
      const { asks, transport } = yield* transportOver(
        ({ user }) => {
          stuck ??= user
          return user === stuck ? "silence" : port
        },
        // A third way would be taken, too, where this process was kept from hearing the second one's answer.
        { hedgesMs: [40, 30_000] }
      )
      yield* textOf(transport, requestTo(origin))
      assert.strictEqual(asks.length, 2)
      for (let count = 0; count < 3; count++) {
        yield* Effect.forEach([1, 2, 3], () => textOf(transport, requestTo(origin)), { concurrency: 3 })
      }
      assert.notInclude(users(asks).slice(1), stuck)
    })
  )

  it.live(
    "takes another circuit when no answer comes on the one it has, and drops what waits on that one",
    () =>
      Effect.gen(function* () {
        let isDead = false
        const port = yield* listening(
          createHttpServer((_, response) => {
            if (!isDead) response.end("x")
          })
        )
        const { asks, sockets, transport } = yield* transportOver(() => port)
        // Two kept connections on the first circuit.
        yield* Effect.all(
          [1, 2].map(() => textOf(transport, requestTo(origin))),
          { concurrency: 2 }
        )
        const first = asks[0]?.user
        isDead = true
        const late = yield* Effect.flip(textOf(transport, requestTo(origin, { responseTimeoutMs: 50 })))
        assert.match(late.reason, /no answer came within 50 ms/)
        while (sockets.size > 0) yield* Effect.promise(() => new Promise(setImmediate))
        isDead = false
        yield* textOf(transport, requestTo(origin))
        assert.notStrictEqual(asks.at(-1)?.user, first)
      })
  )

  it.live("gives up in time, leaving no connection behind", () =>
    Effect.gen(function* () {
      const { sockets, transport } = yield* transportOver(() => "silence", {
        torTimeoutMs: 80,
        hedgesMs: [20, 20]
      })
      const late = yield* Effect.flip(textOf(transport, requestTo(origin)))
      assert.match(late.reason, /no connection stood within 80 ms/)
      while (sockets.size > 0) yield* Effect.promise(() => new Promise(setImmediate))
      const asking = yield* Effect.forkChild(textOf(transport, requestTo(origin)))
      while (sockets.size === 0) yield* Effect.promise(() => new Promise(setImmediate))
      yield* Fiber.interrupt(asking)
      while (sockets.size > 0) yield* Effect.promise(() => new Promise(setImmediate))
      assert.strictEqual(sockets.size, 0)
    })
  )

  it.live("opens so many connections at once and no more", () =>
    Effect.gen(function* () {
      let open = 0
      let most = 0
      const port = yield* listening(
        createHttpServer((_, response) => {
          most = Math.max(most, ++open)
          setTimeout(() => {
            open--
            response.end("x")
          }, 20)
        })
      )
      const { asks, transport } = yield* transportOver(() => port, { connections: 3 })
      yield* Effect.forEach(
        Array.from({ length: 12 }, (_, index) => index),
        () => textOf(transport, requestTo(origin)),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(most, 3)
      assert.strictEqual(asks.length, 3)
    })
  )

  it.live("keeps a bounded number of tags", () =>
    Effect.gen(function* () {
      const port = yield* webServer
      const { sockets, transport } = yield* transportOver(() => port)
      for (let count = 0; count < 80; count++)
        yield* textOf(transport, requestTo(origin, { circuit: `payload-${count}` }))
      while (sockets.size > 64) yield* Effect.promise(() => new Promise(setImmediate))
      assert.isAbove(sockets.size, 0)
    })
  )

  it.live("takes a new tor at once, and leaves nothing on the old one", () =>
    Effect.gen(function* () {
      const port = yield* webServer
      const [first, second] = [yield* socksServer(() => port), yield* socksServer(() => port)]
      let route: Route = { _tag: "Tor", endpoint: first.endpoint }
      const transport = yield* httpTransport({ routes: { to: () => Effect.sync(() => route) } })
      yield* textOf(transport, requestTo(origin))
      assert.strictEqual(first.sockets.size, 1)
      route = { _tag: "Tor", endpoint: second.endpoint }
      yield* textOf(transport, requestTo(origin))
      assert.strictEqual(second.asks.length, 1)
      while (first.sockets.size > 0) yield* Effect.promise(() => new Promise(setImmediate))
      route = { _tag: "Refused", failure: "tunnel_not_ready", reason: "it needs Tor" }
      const none = yield* Effect.flip(textOf(transport, requestTo(origin)))
      assert.deepInclude(none, { code: "tunnel_not_ready", reason: "it needs Tor" })
      while (second.sockets.size > 0) yield* Effect.promise(() => new Promise(setImmediate))
      assert.strictEqual(first.asks.length, 1)
    })
  )

  it.live("cuts what waits for a tor that another has taken the place of", () =>
    Effect.gen(function* () {
      const port = yield* webServer
      const [first, second] = [yield* socksServer(() => "silence"), yield* socksServer(() => port)]
      let route: Route = { _tag: "Tor", endpoint: first.endpoint }
      const transport = yield* httpTransport({ routes: { to: () => Effect.sync(() => route) } })
      const waiting = yield* Effect.forkChild(Effect.flip(textOf(transport, requestTo(origin))))
      while (first.asks.length === 0) yield* Effect.promise(() => new Promise(setImmediate))
      route = { _tag: "Tor", endpoint: second.endpoint }
      yield* textOf(transport, requestTo(origin))
      assert.match((yield* Fiber.join(waiting)).reason, /the way it was reached by is gone/)
    })
  )

  it.live("says that there is no tor where none listens", () =>
    Effect.gen(function* () {
      const transport = yield* httpTransport({ routes: overTor({ path: "/nowhere/socks" }) })
      const error = yield* Effect.flip(textOf(transport, requestTo(origin)))
      assert.deepInclude(error, {
        code: "tunnel_not_ready",
        reason: "Tor was not reached at its SOCKS port: nobody listens there"
      })
    })
  )
})

describe("a request through an upstream proxy", () => {
  const upstream = (
    kind: "http" | "socks5",
    port: number,
    credentials: { user: string; password: string } | null = null
  ) => by({ _tag: "Upstream", proxy: { kind, host: "127.0.0.1", port, credentials } })

  it.live("goes by SOCKS, with the user name of the configuration", () =>
    Effect.gen(function* () {
      const port = yield* webServer
      const socks = yield* socksServer(() => port)
      const at = "port" in socks.endpoint ? socks.endpoint.port : 0
      const transport = yield* httpTransport({
        routes: upstream("socks5", at, { user: "me", password: "secret" })
      })
      assert.strictEqual(yield* textOf(transport, requestTo(origin)), "you asked for /api")
      assert.deepInclude(socks.asks[0], { user: "me", password: "secret", host: "service.invalid" })
    })
  )

  it.live("goes by CONNECT, plain HTTP too", () =>
    Effect.gen(function* () {
      const port = yield* webServer
      const asked: Array<string | undefined> = []
      const proxy = createHttpServer()
      proxy.on("connect", (request, socket) => {
        asked.push(request.url)
        const onward = new (socket.constructor as typeof import("node:net").Socket)()
        onward.connect(port, "127.0.0.1", () => {
          socket.write("HTTP/1.1 200 Fine\r\n\r\n")
          socket.pipe(onward)
          onward.pipe(socket)
        })
        socket.on("error", () => onward.destroy()).on("close", () => onward.destroy())
        onward.on("error", () => socket.destroy())
      })
      const at = yield* listening(proxy)
      const transport = yield* httpTransport({ routes: upstream("http", at) })
      assert.strictEqual(yield* textOf(transport, requestTo(origin)), "you asked for /api")
      assert.deepStrictEqual(asked, ["service.invalid:8470"])
    })
  )

  it.live("says that the proxy is not there, or is none", () =>
    Effect.gen(function* () {
      const port = yield* Effect.scoped(webServer)
      const gone = yield* httpTransport({ routes: upstream("http", port) })
      assert.strictEqual((yield* Effect.flip(textOf(gone, requestTo(origin)))).code, "proxy_unreachable")
      const at = yield* plainServer((socket) => socket.end("220 mail.test ESMTP\r\n\r\n"))
      for (const kind of ["http", "socks5"] as const) {
        const transport = yield* httpTransport({ routes: upstream(kind, at) })
        const error = yield* Effect.flip(textOf(transport, requestTo(origin)))
        assert.strictEqual(error.code, "proxy_unreachable")
      }
    })
  )
})

describeWith(["openssl"], "TLS through Tor", () => {
  const certified = Effect.acquireRelease(
    Effect.sync(() => {
      const folder = mkdtempSync(join(tmpdir(), "postern-tls-"))
      const made = spawnSync(
        "openssl",
        [
          ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
          ...["-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=service.invalid"],
          ...["-addext", "subjectAltName=DNS:service.invalid"]
        ],
        { cwd: folder, encoding: "utf8" }
      )
      assert.strictEqual(made.status, 0, made.stderr)
      const read = (name: string) => readFileSync(join(folder, name), "utf8")
      return { key: read("key.pem"), cert: read("cert.pem"), folder }
    }),
    ({ folder }) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
  )

  /** Believes this authority for the scope. */
  const believing = (cert: string) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const before = getCACertificates("default")
        setDefaultCACertificates([...before, cert])
        return before
      }),
      (before) => Effect.sync(() => setDefaultCACertificates(before))
    )

  it.live("is checked against the name that was asked for, by Node's own rules", () =>
    Effect.gen(function* () {
      const { cert, key } = yield* certified
      const port = yield* listening(createHttpsServer({ key, cert }, (_, response) => response.end("secure")))
      const { asks, transport } = yield* transportOver(() => port)
      const stranger = yield* Effect.flip(textOf(transport, requestTo("https://service.invalid")))
      assert.match(stranger.reason, /self-signed certificate/)
      yield* believing(cert)
      assert.strictEqual(yield* textOf(transport, requestTo("https://service.invalid")), "secure")
      assert.strictEqual(yield* textOf(transport, requestTo("https://service.invalid")), "secure")
      assert.strictEqual(asks.length, 2)
      const other = yield* Effect.flip(textOf(transport, requestTo("https://other.invalid")))
      assert.match(other.reason, /does not match certificate's altnames/)
      const number = yield* Effect.flip(textOf(transport, requestTo("https://192.0.2.1")))
      assert.match(number.reason, /does not match certificate's altnames/)
    })
  )

  it.live("gives up on a handshake that is never finished", () =>
    Effect.gen(function* () {
      const port = yield* plainServer(() => undefined)
      const { sockets, transport } = yield* transportOver(() => port, { torTimeoutMs: 80 })
      const error = yield* Effect.flip(textOf(transport, requestTo("https://service.invalid")))
      assert.match(error.reason, /no connection stood within 80 ms/)
      while (sockets.size > 0) yield* Effect.promise(() => new Promise(setImmediate))
    })
  )
})
