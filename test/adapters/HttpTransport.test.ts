import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from "node:http"
import { type AddressInfo, createServer, type Server, type Socket } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { type HttpTransportOptions, httpTransport } from "../../src/adapters/HttpTransport.ts"
import type { TransportRequest } from "../../src/adapters/http/Transport.ts"
import { concatBytes, utf8 } from "../../src/crypto/Bytes.ts"

const listen = (server: Server) =>
  Effect.acquireRelease(
    Effect.callback<string>((resume) => {
      server.listen(0, "127.0.0.1", () =>
        resume(Effect.succeed(`http://127.0.0.1:${(server.address() as AddressInfo).port}`))
      )
    }),
    () => Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
  )

/** A TCP server that answers as `answer` does; its sockets are cut with the scope. */
const tcpServer = (answer: (socket: Socket) => void) =>
  Effect.gen(function* () {
    const sockets = new Set<Socket>()
    const server = createServer((socket) => {
      sockets.add(socket)
      socket.on("error", () => undefined)
      socket.on("close", () => sockets.delete(socket))
      answer(socket)
    })
    const origin = yield* listen(server)
    yield* Effect.addFinalizer(() => Effect.sync(() => sockets.forEach((socket) => void socket.destroy())))
    return { origin, sockets }
  })

/** Answers the first bytes that come with this text. */
const saying = (text: string, andThen: (socket: Socket) => void = () => {}) =>
  tcpServer((socket) => socket.once("data", () => socket.write(text, "latin1", () => andThen(socket))))

const httpServer = (answer: (request: IncomingMessage, response: ServerResponse) => void) => {
  const server = createHttpServer(answer)
  return Effect.tap(listen(server), () =>
    Effect.addFinalizer(() => Effect.sync(() => server.closeAllConnections()))
  )
}

const requestTo = (origin: string, change: Partial<TransportRequest> = {}): TransportRequest => ({
  origin,
  method: "GET",
  authority: new URL(origin).host,
  path: "/api",
  query: "?a=1",
  headers: {},
  body: new Uint8Array(0),
  responseTimeoutMs: 5_000,
  ...change
})

/** Sends and reads the whole body. */
const fetchWith = (options: HttpTransportOptions, request: TransportRequest) =>
  Effect.scoped(
    Effect.gen(function* () {
      const transport = yield* httpTransport(options)
      const { body, headers, status } = yield* transport.send(request)
      const parts = yield* Stream.runCollect(body)
      return { status, headers, text: new TextDecoder().decode(concatBytes(...parts)) }
    })
  )

const reasonWith = (options: HttpTransportOptions, request: TransportRequest) =>
  Effect.map(Effect.flip(fetchWith(options, request)), (error) => error.reason)

describe("the HTTP transport", () => {
  it.live("carries method, path, query, headers and body, and brings the answer back", () =>
    Effect.gen(function* () {
      const origin = yield* httpServer((request, response) => {
        const parts: Array<Buffer> = []
        request.on("data", (part: Buffer) => parts.push(part))
        request.on("end", () => {
          response.writeHead(206, { "x-one": "1", "set-cookie": ["a", "b"] })
          response.end(
            `${request.method} ${request.headers.host} ${request.url} ${request.headers["x-sent"]} ${Buffer.concat(parts)}`
          )
        })
      })
      const request = requestTo(origin, {
        method: "PUT",
        authority: "device.test",
        headers: { "x-sent": "yes" },
        body: utf8("body")
      })
      const answer = yield* fetchWith({}, request)
      assert.strictEqual(answer.status, 206)
      assert.strictEqual(answer.headers["x-one"], "1")
      assert.strictEqual(answer.text, "PUT device.test /api?a=1 yes body")
    })
  )

  it.live("keeps connections, and follows no redirect", () =>
    Effect.gen(function* () {
      const ports = new Set<number | undefined>()
      const origin = yield* httpServer((request, response) => {
        ports.add(request.socket.remotePort)
        response.writeHead(302, { location: "/elsewhere" })
        response.end("moved")
      })
      const transport = yield* httpTransport()
      for (let count = 0; count < 5; count++) {
        const status = yield* Effect.scoped(
          Effect.gen(function* () {
            const answer = yield* transport.send(requestTo(origin))
            yield* Stream.runDrain(answer.body)
            return answer.status
          })
        )
        assert.strictEqual(status, 302)
      }
      assert.strictEqual(ports.size, 1)
    })
  )

  it.live("tells a stale kept connection apart", () =>
    Effect.gen(function* () {
      let requests = 0
      const origin = yield* httpServer((request, response) => {
        if (++requests === 2) request.socket.resetAndDestroy()
        else response.end("x")
      })
      const transport = yield* httpTransport()
      const once = Effect.scoped(
        Effect.flatMap(transport.send(requestTo(origin)), ({ body }) => Stream.runDrain(body))
      )
      yield* once
      assert.isTrue((yield* Effect.flip(once)).stale)
      yield* once
    })
  )
})

describe("a server that misbehaves", () => {
  it.live("by not being there", () =>
    Effect.gen(function* () {
      const { origin } = yield* Effect.scoped(tcpServer(() => undefined))
      assert.match(yield* reasonWith({}, requestTo(origin)), /nobody listens there/)
      assert.match(
        yield* reasonWith({}, requestTo("http://nowhere.invalid")),
        /name is not known|could not be looked up/
      )
    })
  )

  it.live("by hanging before its answer", () =>
    Effect.gen(function* () {
      const { origin } = yield* tcpServer((socket) => void socket.resume())
      assert.match(
        yield* reasonWith({}, requestTo(origin, { responseTimeoutMs: 60 })),
        /no answer came within 60 ms/
      )
    })
  )

  it.live("by hanging in the head of its answer, drop by drop", () =>
    Effect.gen(function* () {
      const { origin } = yield* tcpServer((socket) => {
        const timer = setInterval(() => socket.write("x"), 10)
        socket.write("HTTP/1.1 200 OK\r\nx-drip: ")
        socket.on("close", () => clearInterval(timer))
      })
      assert.match(
        yield* reasonWith({}, requestTo(origin, { responseTimeoutMs: 150 })),
        /no answer came within 150 ms/
      )
    })
  )

  it.live("by hanging in its body", () =>
    Effect.gen(function* () {
      const { origin } = yield* saying("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")
      assert.match(
        yield* reasonWith({ idleTimeoutMs: 60 }, requestTo(origin)),
        /nothing more of its answer came within 60 ms/
      )
    })
  )

  it.live("by never finishing TLS", () =>
    Effect.gen(function* () {
      const { origin } = yield* tcpServer((socket) => void socket.resume())
      const secure = origin.replace("http:", "https:")
      assert.match(
        yield* reasonWith({ connectTimeoutMs: 80 }, requestTo(secure)),
        /no connection stood within 80 ms/
      )
    })
  )

  it.live("by cutting its answer: in the head, in a counted body, in chunks", () =>
    Effect.gen(function* () {
      const cut = (text: string) =>
        Effect.flatMap(
          saying(text, (socket) => socket.destroy()),
          ({ origin }) => reasonWith({}, requestTo(origin))
        )
      assert.match(yield* cut(""), /was cut/)
      assert.match(yield* cut("HTTP/1.1 200 OK\r\nconte"), /was cut|does not speak HTTP/)
      assert.match(yield* cut("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc"), /was cut/)
      assert.match(yield* cut("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc"), /was cut/)
    })
  )

  it.live("by speaking something else", () =>
    Effect.gen(function* () {
      for (const text of [
        "SSH-2.0-OpenSSH_9.6\r\n",
        "\u0000\u0001\u0002garbage\r\n\r\n",
        "HTTP/9.9 999 ???\r\n\r\n"
      ]) {
        const { origin } = yield* saying(text, (socket) => socket.end())
        assert.match(yield* reasonWith({}, requestTo(origin)), /does not speak HTTP/)
      }
    })
  )

  it.live("by an endless head", () =>
    Effect.gen(function* () {
      const { origin } = yield* saying("HTTP/1.1 200 OK\r\n", (socket) => {
        const pour = (): void => {
          if (!socket.destroyed)
            socket.write(`x-${Math.floor(socket.bytesWritten)}: ${"y".repeat(1000)}\r\n`, pour)
        }
        pour()
      })
      assert.match(yield* reasonWith({}, requestTo(origin)), /longer than 32768 bytes/)
    })
  )

  it.live("by an endless body is read only as far as somebody wants", () =>
    Effect.gen(function* () {
      const { origin, sockets } = yield* saying("HTTP/1.1 200 OK\r\n\r\n", (socket) => {
        const pour = (): void => {
          if (!socket.destroyed) socket.write(new Uint8Array(16_000), pour)
        }
        pour()
      })
      const seen = yield* Effect.scoped(
        Effect.gen(function* () {
          const transport = yield* httpTransport()
          const { body } = yield* transport.send(requestTo(origin))
          return yield* body.pipe(
            Stream.take(3),
            Stream.runFold(
              () => 0,
              (sum, part) => sum + part.length
            )
          )
        })
      )
      assert.isAbove(seen, 0)
      while (sockets.size > 0) yield* Effect.promise(() => new Promise(setImmediate))
    })
  )

  it.live("leaves no connection behind when the caller gives up", () =>
    Effect.gen(function* () {
      const arrived = Promise.withResolvers<void>()
      const { origin, sockets } = yield* tcpServer((socket) => socket.once("data", () => arrived.resolve()))
      const asking = yield* Effect.forkChild(fetchWith({}, requestTo(origin)))
      yield* Effect.promise(() => arrived.promise)
      yield* Fiber.interrupt(asking)
      while (sockets.size > 0) yield* Effect.promise(() => new Promise(setImmediate))
      assert.strictEqual(sockets.size, 0)
    })
  )
})
