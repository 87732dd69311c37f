import { type AddressInfo, createServer, type Socket } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"
import { connectHandshake } from "../../../src/adapters/net/HttpConnect.ts"
import { RouteError } from "../../../src/adapters/net/RouteError.ts"
import { type SocksUser, socksHandshake } from "../../../src/adapters/net/Socks5.ts"
import { type Target, throughProxy, type Wire } from "../../../src/adapters/net/Wire.ts"
import { utf8 } from "../../../src/crypto/Bytes.ts"
import { scaled } from "../../support/proof.ts"

const target: Target = { host: "service.invalid", port: 8470 }

/** A proxy that says its piece, however it is spoken to, in pieces of the given sizes, and then ends or stays. */
const saying = (bytes: Uint8Array, sizes: ReadonlyArray<number> = [bytes.length], ends = true) =>
  Effect.gen(function* () {
    const heard: Array<Buffer> = []
    const sockets = new Set<Socket>()
    const server = createServer({ noDelay: true }, (socket) => {
      sockets.add(socket)
      socket.on("error", () => undefined)
      socket.on("close", () => sockets.delete(socket))
      socket.on("data", (piece: Buffer) => heard.push(piece))
      let at = 0
      for (const size of sizes) {
        socket.write(bytes.subarray(at, at + size))
        at += size
      }
      socket.write(bytes.subarray(at))
      if (ends) socket.end()
    })
    yield* Effect.acquireRelease(
      Effect.callback<void>((resume) => {
        server.listen(0, "127.0.0.1", () => resume(Effect.void))
      }),
      () =>
        Effect.callback<void>((resume) => {
          for (const socket of sockets) socket.destroy()
          server.close(() => resume(Effect.void))
        })
    )
    const port = (server.address() as AddressInfo).port
    return { endpoint: { host: "127.0.0.1", port }, heard: () => Buffer.concat(heard), sockets }
  })

type Shake = (wire: Wire) => Promise<void>
const never = new AbortController().signal

/** How a handshake ends, and what is left to read after it. */
const outcomeOf = (shake: Shake, endpoint: { host: string; port: number }, signal: AbortSignal = never) =>
  Effect.promise(async () => {
    try {
      const socket = await throughProxy(
        endpoint,
        shake,
        (reason) => new RouteError(reason, "proxy_unreachable"),
        signal
      )
      const left: Array<Buffer> = []
      socket.on("data", (piece: Buffer) => left.push(piece))
      await new Promise((resolve) => socket.once("close", resolve).once("end", resolve))
      socket.destroy()
      return { left: Buffer.concat(left) }
    } catch (error) {
      return { error: error as Error }
    }
  })

const socks =
  (user: SocksUser | null = null, to: Target = target): Shake =>
  (wire) =>
    socksHandshake(wire, to, user)
const overHttp =
  (user: SocksUser | null = null, to: Target = target): Shake =>
  (wire) =>
    connectHandshake(wire, to, user)

/** What a proxy answers, the shake's outcome and what the proxy heard. */
const shaken = (shake: Shake, bytes: Uint8Array, sizes?: ReadonlyArray<number>) =>
  Effect.scoped(
    Effect.gen(function* () {
      const proxy = yield* saying(bytes, sizes)
      const outcome = yield* outcomeOf(shake, proxy.endpoint)
      // The proxy has read all when it sees the end.
      while (proxy.sockets.size > 0) yield* Effect.promise(() => new Promise(setImmediate))
      return { ...outcome, heard: proxy.heard() }
    })
  )

const accepted = Uint8Array.of(5, 0, 5, 0, 0, 1, 127, 0, 0, 1, 1, 2)
const failureOf = (outcome: { readonly error?: Error }): string | undefined => {
  assert.instanceOf(outcome.error, RouteError)
  return (outcome.error as RouteError).failure
}

describe("a SOCKS 5 handshake", () => {
  it.live("sends a name as a name, and leaves what follows to the next reader", () =>
    Effect.gen(function* () {
      const { heard, left } = yield* shaken(socks(), Buffer.concat([accepted, utf8("hello")]))
      assert.strictEqual(left?.toString(), "hello")
      assert.deepStrictEqual(
        [...heard],
        [5, 1, 0, 5, 1, 0, 3, target.host.length, ...utf8(target.host), 0x21, 0x16]
      )
    })
  )

  it.live("sends addresses as addresses", () =>
    Effect.gen(function* () {
      const sent = Effect.fnUntraced(function* (host: string) {
        const { heard } = yield* shaken(socks(null, { host, port: 1 }), accepted)
        return heard.subarray(6).toString("hex")
      })
      assert.strictEqual(yield* sent("192.0.2.7"), "01c00002070001")
      assert.strictEqual(yield* sent("2001:db8::7"), "0420010db8000000000000000000000007000" + "1")
      assert.strictEqual(yield* sent("::1"), "04000000000000000000000000000000010001")
      assert.strictEqual(yield* sent("::ffff:192.0.2.7"), "0400000000000000000000ffffc00002070001")
      assert.strictEqual(yield* sent("1:2:3:4:5:6:7:8"), "04000100020003000400050006000700080001")
    })
  )

  it.live("shows user name and password, and only where the proxy asks for them", () =>
    Effect.gen(function* () {
      const user = { name: "tag-1", password: "pass" }
      const good = yield* shaken(socks(user), Uint8Array.of(5, 2, 1, 0, ...accepted.subarray(2)))
      assert.deepStrictEqual([...good.heard.subarray(0, 3)], [5, 1, 2])
      assert.include(good.heard.toString("latin1"), "\u0001\u0005tag-1\u0004pass")
      assert.strictEqual(failureOf(yield* shaken(socks(user), Uint8Array.of(5, 2, 1, 1))), "proxy_refused")
      assert.strictEqual(failureOf(yield* shaken(socks(user), Uint8Array.of(5, 0xff))), "proxy_refused")
      assert.strictEqual(failureOf(yield* shaken(socks(), Uint8Array.of(5, 0xff))), "proxy_refused")
      assert.strictEqual(failureOf(yield* shaken(socks(), Uint8Array.of(5, 2))), "proxy_refused")
    })
  )

  it.live("turns each reply into words and a code", () =>
    Effect.gen(function* () {
      const codes: Record<number, string | undefined> = {
        1: undefined,
        2: "proxy_refused",
        3: undefined,
        4: undefined,
        5: undefined,
        6: undefined,
        7: "proxy_refused",
        8: "proxy_refused",
        9: "proxy_refused",
        240: "onion_not_found",
        241: "onion_not_found",
        242: "onion_intro_failed",
        243: "onion_intro_failed",
        244: "onion_not_authorised",
        245: "onion_not_authorised",
        246: "onion_not_found",
        247: "onion_intro_failed"
      }
      const texts = new Set<string>()
      for (const [reply, code] of Object.entries(codes)) {
        const outcome = yield* shaken(socks(), Uint8Array.of(5, 0, 5, Number(reply), 0, 1, 0, 0, 0, 0, 0, 0))
        assert.strictEqual(failureOf(outcome), code, `reply ${reply}`)
        texts.add(outcome.error?.message ?? "")
      }
      assert.strictEqual(texts.size, Object.keys(codes).length)
    })
  )

  it.live("says of an onion address that tor does not tell why it is not reached", () =>
    Effect.gen(function* () {
      const onion = { host: `${"a".repeat(55)}d.onion`, port: 80 }
      for (const reply of [1, 4]) {
        const outcome = yield* shaken(
          socks(null, onion),
          Uint8Array.of(5, 0, 5, reply, 0, 1, 0, 0, 0, 0, 0, 0)
        )
        assert.strictEqual(failureOf(outcome), "onion_unexplained")
        assert.include(outcome.error?.message, "ExtendedErrors")
      }
    })
  )

  it.live("takes the proxy's own address in every form, in pieces of a byte", () =>
    Effect.gen(function* () {
      const own = [
        [1, 1, 2, 3, 4],
        [3, 4, 1, 2, 3, 4],
        [3, 0],
        [4, ...Array<number>(16).fill(7)]
      ]
      for (const address of own) {
        const bytes = Uint8Array.of(5, 0, 5, 0, 0, ...address, 9, 9, 42)
        const { left } = yield* shaken(
          socks(),
          bytes,
          Array.from(bytes, () => 1)
        )
        assert.deepStrictEqual([...(left ?? [])], [42])
      }
    })
  )

  it.live("refuses what is no SOCKS, and a proxy that hangs up", () =>
    Effect.gen(function* () {
      const http = yield* shaken(socks(), utf8("HTTP/1.1 400 Bad Request\r\n\r\n"))
      assert.strictEqual(failureOf(http), "proxy_unreachable")
      assert.strictEqual(
        failureOf(yield* shaken(socks(), Uint8Array.of(5, 0, 5, 0, 0, 9, 1))),
        "proxy_unreachable"
      )
      for (let length = 0; length < accepted.length; length++) {
        const { error } = yield* shaken(socks(), accepted.subarray(0, length))
        assert.match(error?.message ?? "", /hung up|reset/, `after ${length} bytes`)
      }
    })
  )

  it.live("sends nothing that does not fit", () =>
    Effect.gen(function* () {
      for (const shake of [
        socks(null, { host: "x".repeat(256), port: 1 }),
        socks({ name: "x".repeat(256), password: "y" }),
        socks({ name: "", password: "y" })
      ]) {
        const { error, heard } = yield* shaken(shake, accepted)
        assert.match(error?.message ?? "", /longer than 255 bytes/)
        assert.strictEqual(heard.length, 0)
      }
    })
  )

  it.live("gives up when it is told to, and leaves no connection", () =>
    Effect.gen(function* () {
      const proxy = yield* saying(Uint8Array.of(5), [1], false)
      const late = new AbortController()
      const ending = setTimeout(() => late.abort(new RouteError("too late")), 30)
      const { error } = yield* outcomeOf(socks(), proxy.endpoint, late.signal)
      clearTimeout(ending)
      assert.strictEqual(error?.message, "too late")
      while (proxy.sockets.size > 0) yield* Effect.promise(() => new Promise(setImmediate))
      const before = yield* outcomeOf(socks(), proxy.endpoint, late.signal)
      assert.strictEqual(before.error?.message, "too late")
    })
  )
})

describe("an HTTP CONNECT handshake", () => {
  it.live("asks by name, and leaves what follows to the next reader", () =>
    Effect.gen(function* () {
      const answer = utf8("HTTP/1.1 200 Connection established\r\nVia: 1.1 x\r\n\r\nhello")
      const { heard, left } = yield* shaken(overHttp({ name: "me", password: "pass" }), answer)
      assert.strictEqual(left?.toString(), "hello")
      assert.strictEqual(
        heard.toString(),
        "CONNECT service.invalid:8470 HTTP/1.1\r\nHost: service.invalid:8470\r\nProxy-Authorization: Basic bWU6cGFzcw==\r\n\r\n"
      )
      const numbers = yield* shaken(overHttp(null, { host: "2001:db8::7", port: 443 }), answer)
      assert.match(
        numbers.heard.toString(),
        /^CONNECT \[2001:db8::7\]:443 HTTP\/1\.1\r\nHost: [^\n]+\r\n\r\n$/
      )
    })
  )

  it.live("tells a proxy that refuses from one that does not get there", () =>
    Effect.gen(function* () {
      const answered = (status: number) =>
        shaken(overHttp(), utf8(`HTTP/1.1 ${status} Nope\r\ncontent-length: 0\r\n\r\n`))
      assert.strictEqual(failureOf(yield* answered(403)), "proxy_refused")
      assert.match((yield* answered(407)).error?.message ?? "", /user name and password/)
      assert.strictEqual(failureOf(yield* answered(502)), undefined)
      assert.strictEqual(failureOf(yield* answered(301)), "proxy_refused")
    })
  )

  it.live("reads a bounded head, of HTTP only", () =>
    Effect.gen(function* () {
      assert.match(
        (yield* shaken(overHttp(), utf8(`HTTP/1.1 200 OK\r\nx: ${"y".repeat(17_000)}\r\n\r\n`))).error
          ?.message ?? "",
        /longer than 16384 bytes/
      )
      const ssh = yield* shaken(overHttp(), utf8("SSH-2.0-x\r\n\r\n"))
      assert.strictEqual(failureOf(ssh), "proxy_unreachable")
      assert.match((yield* shaken(overHttp(), utf8("HTTP/1.1 200 OK\r\n"))).error?.message ?? "", /hung up/)
    })
  )
})

describe("whatever a proxy says", () => {
  const anything = fc.uint8Array({ maxLength: 600 })
  const likely = fc
    .tuple(
      fc.constantFrom([5, 0], [5, 2, 1, 0]),
      fc.integer({ min: 0, max: 255 }),
      fc.constantFrom(1, 3, 4, 2),
      anything
    )
    .map(([head, reply, kind, rest]) => Uint8Array.of(...head, 5, reply, 0, kind, ...rest))
  const sizes = fc.array(fc.integer({ min: 1, max: 7 }), { maxLength: 12 })
  const shakes = fc.constantFrom(socks(), socks({ name: "a", password: "b" }), overHttp())

  it("a handshake ends with a connection or a RouteError, and takes no byte beyond itself", () =>
    fc.assert(
      fc.asyncProperty(fc.oneof(anything, likely), sizes, shakes, (bytes, pieces, shake) =>
        Effect.runPromise(
          Effect.map(shaken(shake, bytes, pieces), (outcome) => {
            if (outcome.error === undefined)
              assert.isTrue(
                Buffer.from(bytes)
                  .subarray(-outcome.left.length || bytes.length)
                  .equals(outcome.left)
              )
            else assert.instanceOf(outcome.error, RouteError)
          })
        )
      ),
      { numRuns: scaled(150) }
    ))
})
