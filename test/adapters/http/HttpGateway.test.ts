import { createServer, request as httpRequest, type IncomingMessage, type Server } from "node:http"
import { type AddressInfo, connect } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Fiber, Scope, Stream } from "effect"
import type { ApiHandler, ApiRequest } from "../../../src/adapters/http/Exchange.ts"
import { httpGateway } from "../../../src/adapters/http/HttpGateway.ts"
import { encodeJson } from "../../../src/adapters/http/Json.ts"
import { TestKit } from "../../../src/kernel/testing/TestKit.ts"
import { Limits } from "../../../src/schemas/Limits.ts"

const json = (value: unknown, status = 200) => ({
  status,
  headers: { "content-type": "application/json" },
  body: encodeJson(value)
})

const big = new Uint8Array(3 * 1024 * 1024).map((_, index) => index % 251)

/** A gateway on a free port, with handlers of the test's own. */
const gateway = (
  handlers: { readonly device?: ApiHandler; readonly management?: ApiHandler } = {},
  options: { readonly maximumRequests?: number; readonly port?: number } = {}
) =>
  Effect.gen(function* () {
    const stopping = yield* Deferred.make<Effect.Effect<void>>()
    const seen: Array<ApiRequest> = []
    const echo: ApiHandler = (request) =>
      Effect.sync(() => {
        seen.push(request)
        return json({ bytes: request.body.length, oversize: request.oversize === true })
      })
    const behaviour = httpGateway({
      at: { host: "127.0.0.1", port: options.port ?? 0 },
      maximumRequests: options.maximumRequests ?? 100,
      apis: (_, stop) =>
        Effect.as(Deferred.succeed(stopping, stop), {
          device: handlers.device ?? echo,
          management: handlers.management ?? echo
        }),
      listening: () => Effect.void
    })
    const { ref, system } = yield* TestKit.start(behaviour, {
      spec: { shutdownMs: 3_000 },
      intensity: 2
    })
    const origin = yield* ref.ask("Address")
    const port = Number(new URL(origin).port)
    return { origin, port, seen, system, stopping: yield* Deferred.await(stopping) }
  })

interface Got {
  readonly status: number
  readonly headers: IncomingMessage["headers"]
  readonly body: Buffer
}

const get = (
  port: number,
  path: string,
  options: {
    readonly method?: string
    readonly body?: Uint8Array
    readonly headers?: Record<string, string>
  } = {}
): Effect.Effect<Got, Error> =>
  Effect.callback((resume) => {
    const { body, headers = {}, method = "GET" } = options
    const outgoing = httpRequest(
      { host: "127.0.0.1", port, path, method, headers, agent: false },
      (incoming) => {
        const parts: Array<Buffer> = []
        incoming.on("data", (part: Buffer) => parts.push(part))
        incoming.on("error", (error) => resume(Effect.fail(error)))
        incoming.on("end", () =>
          resume(
            Effect.succeed({
              status: incoming.statusCode ?? 0,
              headers: incoming.headers,
              body: Buffer.concat(parts)
            })
          )
        )
      }
    )
    outgoing.on("error", (error) => resume(Effect.fail(error)))
    outgoing.end(body)
    return Effect.sync(() => void outgoing.destroy())
  })

/** Sends raw bytes and gives all that comes back until the connection ends. */
const raw = (port: number, text: string, end = false): Effect.Effect<string> =>
  Effect.callback((resume) => {
    const socket = connect(port, "127.0.0.1", () => (end ? socket.end(text) : socket.write(text)))
    let received = ""
    socket.on("data", (part) => {
      received += part.toString("latin1")
    })
    socket.on("error", () => resume(Effect.succeed(received)))
    socket.on("close", () => resume(Effect.succeed(received)))
    return Effect.sync(() => void socket.destroy())
  })

describe("the HTTP gateway", () => {
  it.live("hands requests over as they came and answers with what it is given", () =>
    Effect.gen(function* () {
      const { port, seen } = yield* gateway()
      const body = Buffer.from("hello")
      const reply = yield* get(port, "/api/device/v1/poll?a=%20b?c", {
        method: "POST",
        body,
        headers: { host: "Postern.Example:8470", "x-twice": "1" }
      })
      assert.strictEqual(reply.status, 200)
      const request = seen[0]
      assert.deepInclude(request, {
        method: "POST",
        authority: "postern.example:8470",
        path: "/api/device/v1/poll",
        query: "?a=%20b?c"
      })
      assert.deepStrictEqual([...(request?.body ?? [])], [...body])
    })
  )

  it.live("a header sent twice is joined, so that a signature over one of them does not pass", () =>
    Effect.gen(function* () {
      const { port, seen } = yield* gateway()
      yield* raw(
        port,
        "GET /api/device/v1/identity HTTP/1.1\r\nhost: a\r\nsignature: one\r\nSignature: two\r\ncontent-type: x\r\ncontent-type: y\r\nconnection: close\r\n\r\n"
      )
      assert.deepInclude(seen[0]?.headers, { signature: "one, two", "content-type": "x, y" })
    })
  )

  it.live("streams a large answer, and only what is asked of it", () =>
    Effect.gen(function* () {
      const { port } = yield* gateway({
        device: (request) =>
          Effect.sync(() => {
            const from = Number(/bytes=(\d+)-/.exec(request.headers["range"] ?? "")?.[1] ?? 0)
            const bytes = Stream.fromIterable(
              Array.from({ length: 48 }, (_, index) => big.subarray(index * 65_536, (index + 1) * 65_536))
            )
            const rest = Stream.succeed(big.subarray(from))
            return {
              status: from === 0 ? 200 : 206,
              headers: {},
              body: { lengthBytes: big.length - from, bytes: from === 0 ? bytes : rest }
            }
          })
      })
      const whole = yield* get(port, "/api/device/v1/payloads/x")
      assert.isTrue(whole.body.equals(big))
      const part = yield* get(port, "/api/device/v1/payloads/x", { headers: { range: "bytes=3145000-" } })
      assert.strictEqual(part.status, 206)
      assert.isTrue(part.body.equals(big.subarray(3_145_000)))
    })
  )

  it.live("a stream that fails cuts the connection: nobody takes a part for the whole", () =>
    Effect.gen(function* () {
      const bytes = Stream.concat(Stream.succeed(new Uint8Array(1_000)), Stream.fail("the disk is gone"))
      const { port } = yield* gateway({
        device: () => Effect.succeed({ status: 200, headers: {}, body: { lengthBytes: 2_000, bytes } })
      })
      const error = yield* Effect.flip(get(port, "/api/device/v1/payloads/x"))
      assert.match(error.message, /aborted|hang up/)
    })
  )

  it.live("bodies are bounded per path, announced or not", () =>
    Effect.gen(function* () {
      const { port } = yield* gateway()
      const poll = "/api/device/v1/poll"
      const body = new Uint8Array(128 * 1024 + 1)
      const announced = yield* get(port, poll, { method: "POST", body })
      assert.deepStrictEqual(JSON.parse(announced.body.toString()), { bytes: 0, oversize: true })
      const chunked = yield* get(port, poll, {
        method: "POST",
        body,
        headers: { "transfer-encoding": "chunked" }
      })
      assert.deepStrictEqual(JSON.parse(chunked.body.toString()), { bytes: 0, oversize: true })
      const management = new Uint8Array(Limits.requestBodyBytes + 1)
      assert.strictEqual(
        (yield* get(port, "/api/management/v1/jobs", { method: "POST", body: management })).status,
        413
      )
      const upload = yield* get(port, "/api/management/v1/payloads/x", { method: "PUT", body: management })
      assert.strictEqual(upload.status, 200)
    })
  )

  it.live("headers beyond the bound are refused, and garbage too", () =>
    Effect.gen(function* () {
      const { port } = yield* gateway()
      const long = `GET / HTTP/1.1\r\nhost: a\r\nx: ${"y".repeat(Limits.requestHeaderBytes)}\r\n\r\n`
      assert.match(yield* raw(port, long), /^HTTP\/1\.1 4(00|31)/)
      assert.match(yield* raw(port, "hello\r\n\r\n"), /^HTTP\/1\.1 400/)
    })
  )

  it.live("more requests in work than allowed are told to come later", () =>
    Effect.gen(function* () {
      const [release, full] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      let started = 0
      const { port } = yield* gateway(
        {
          device: () =>
            Effect.suspend(() => {
              if (++started === 2) Deferred.doneUnsafe(full, Effect.void)
              return Effect.as(Deferred.await(release), json("done"))
            })
        },
        { maximumRequests: 2 }
      )
      const ask = get(port, "/api/device/v1/identity")
      const held = yield* Effect.forEach([1, 2], () => Effect.forkChild(ask, { startImmediately: true }))
      yield* Deferred.await(full)
      const refused = yield* ask
      assert.strictEqual(refused.status, 503)
      assert.strictEqual(refused.headers["retry-after"], "2")
      yield* Deferred.succeed(release, undefined)
      const statuses = yield* Effect.forEach(held, (fiber) =>
        Effect.map(Fiber.join(fiber), ({ status }) => status)
      )
      assert.deepStrictEqual([...statuses, (yield* ask).status], [200, 200, 200])
    })
  )

  it.live("a handler whose asker goes away is interrupted; one that fails is a 500", () =>
    Effect.gen(function* () {
      const [started, interrupted] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      const { port } = yield* gateway({
        device: () =>
          Deferred.succeed(started, undefined).pipe(
            Effect.andThen(Effect.never),
            Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
          ),
        management: () => Effect.die(new Error("as asked"))
      })
      const asking = yield* Effect.forkChild(get(port, "/api/device/v1/identity"))
      yield* Deferred.await(started)
      yield* Fiber.interrupt(asking)
      yield* Deferred.await(interrupted)
      assert.strictEqual((yield* get(port, "/anything")).status, 500)
    })
  )

  it.live("a body that stops half way leaves nothing in work", () =>
    Effect.gen(function* () {
      const { port, seen } = yield* gateway({}, { maximumRequests: 1 })
      const half = "POST /api/device/v1/poll HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf"
      yield* Effect.timeoutOption(raw(port, half), "200 millis")
      const reply = yield* Effect.retry(
        Effect.flatMap(get(port, "/api/device/v1/identity"), (got) =>
          got.status === 200 ? Effect.succeed(got) : Effect.fail("still in work")
        ),
        { times: 50 }
      )
      assert.strictEqual(reply.status, 200)
      assert.strictEqual(seen.length, 1)
    })
  )

  it.live(
    "closes within a second though requests are held, idle connections are kept and bodies come slowly",
    () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const polite = yield* Deferred.make<void>()
        const [begun, refusing] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const { port, stopping } = yield* gateway({
          device: () =>
            Effect.andThen(
              Deferred.succeed(begun, undefined),
              Effect.as(Deferred.await(polite), json("stopping"))
            ),
          management: () => Effect.andThen(Deferred.succeed(refusing, undefined), Effect.never)
        }).pipe(Scope.provide(scope))
        yield* Effect.forkChild(Effect.andThen(stopping, Deferred.succeed(polite, undefined)))
        const held = yield* Effect.forkChild(get(port, "/api/device/v1/poll"), { startImmediately: true })
        const stubborn = yield* Effect.forkChild(Effect.exit(get(port, "/stubborn")), {
          startImmediately: true
        })
        const slow = yield* Effect.forkChild(
          raw(port, "POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf"),
          { startImmediately: true }
        )
        const idle = yield* Effect.forkChild(raw(port, ""), { startImmediately: true })
        yield* Effect.all([Deferred.await(begun), Deferred.await(refusing)])
        yield* Effect.sleep("100 millis")
        const [took] = yield* Effect.timed(Scope.close(scope, Exit.void))
        assert.isBelow(Duration.toMillis(took), 3_000)
        assert.strictEqual(JSON.parse((yield* Fiber.join(held)).body.toString()), "stopping")
        assert.isTrue(Exit.isFailure(yield* Fiber.join(stubborn)))
        assert.strictEqual(yield* Fiber.join(slow), "")
        assert.strictEqual(yield* Fiber.join(idle), "")
      })
  )

  it.live("a port in use is a failed start that says so", () =>
    Effect.gen(function* () {
      const taken = yield* Effect.acquireRelease(
        Effect.callback<Server>((resume) => {
          const server = createServer()
          server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
      )
      const { port } = taken.address() as AddressInfo
      const error = yield* Effect.flip(gateway({}, { port }))
      assert.match(String(error), /EADDRINUSE/)
    })
  )
})
