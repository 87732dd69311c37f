import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { ApiRequest } from "../../src/adapters/http/Exchange.ts"
import { encodeJson } from "../../src/adapters/http/Json.ts"
import { handlerTransport, type Transport, TransportError } from "../../src/adapters/http/Transport.ts"
import { utf8 } from "../../src/crypto/Bytes.ts"
import type { PollRequest } from "../../src/schemas/DeviceApi.ts"
import type { ServerId } from "../../src/schemas/Ids.ts"
import { serverIdentity } from "../support/operators.ts"
import { orderId } from "./support/ledger.ts"
import {
  addresses,
  answering,
  digestOfBytes,
  linkOver,
  ok,
  report,
  rootOf,
  server,
  serving,
  signAnswer
} from "./support/server.ts"

const poll: PollRequest = {
  incarnation: "a".repeat(26) as PollRequest["incarnation"],
  life: "l".repeat(26) as PollRequest["life"],
  turn: 0,
  statement: { payloadType: "application/vnd.postern.device-statement+json", payload: "", signatures: [] },
  root_version: 3,
  admission_sequence: 1,
  high_water: null,
  last_receipt: 0,
  degraded: [],
  free_lanes: ["job"],
  active: [],
  cancels_seen: [],
  blocked: null,
  wait_ms: 25_000
}
const pollAnswer = { orders: [], cancels: [], stops: [], admission: null, objection: null, sleep_ms: 1_000 }

describe("the signed link", () => {
  it.effect("gives verified answers with the server's time", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const { link } = yield* answering((request) => {
        seen.push(`${request.method} ${request.authority} ${request.path}${request.query}`)
        return signAnswer(request, request.path.endsWith("/poll") ? { ...ok, value: pollAnswer } : ok)
      })
      const answer = yield* link.poll(poll)
      assert.deepStrictEqual(answer, { body: pollAnswer, serverTimeMs: 1_234_567, rootVersion: 3 })
      yield* link.output(orderId(1), 7, utf8("chunk"))
      assert.deepStrictEqual(seen, [
        "POST one.test /api/device/v1/poll",
        `PUT one.test /api/device/v1/orders/${orderId(1)}/output/7`
      ])
    })
  )

  it.effect("asks for identity and roots without a signature, and for nothing else before it trusts", () =>
    Effect.gen(function* () {
      const transport = handlerTransport(
        serving((request) => {
          assert.isUndefined(request.headers["signature"])
          return { status: 200, headers: {}, body: encodeJson({ roots: [] }) }
        })
      )
      const { link } = yield* linkOver(transport, { trusting: false })
      assert.deepStrictEqual(yield* link.roots(1), { roots: [] })
      const error = yield* Effect.flip(link.progress(report))
      assert.strictEqual(error._tag, "ServerUntrusted")
    })
  )

  it.effect("takes a download where it is asked to begin, and hands it on as it comes", () =>
    Effect.gen(function* () {
      const bytes = utf8("0123456789")
      const digest = digestOfBytes(bytes)
      const { link } = yield* answering((request) => {
        // This one knows no end of a range, and sends all.
        const from = Number(/^bytes=(\d+)-\d*$/.exec(request.headers["range"] ?? "bytes=0-")?.[1])
        const status = from === 0 ? 200 : 206
        return signAnswer(
          request,
          { ...ok, status, value: bytes },
          {
            response: (response) => ({
              ...response,
              headers: { ...response.headers, "content-range": `bytes ${from}-9/10` },
              body: {
                lengthBytes: 10 - from,
                bytes: Stream.fromIterable([bytes.subarray(from, 8), bytes.subarray(8)])
              }
            })
          }
        )
      })
      const read = (offset: number, until?: number) =>
        Effect.map(
          Stream.runCollect(link.payload(digest, offset, until === undefined ? {} : { until })),
          (parts) => Buffer.concat(parts).toString()
        )
      assert.strictEqual(yield* read(0), "0123456789")
      assert.strictEqual(yield* read(4), "456789")
      assert.strictEqual(yield* read(4, 9), "45678")
      assert.strictEqual(yield* read(0, 3), "012")
    })
  )

  it.effect("passes a signed refusal on, with the time it names", () =>
    Effect.gen(function* () {
      const { link } = yield* answering((request) =>
        signAnswer(
          request,
          { ...ok, status: 503, value: { error: "overloaded", message: "too many" } },
          { response: (response) => ({ ...response, headers: { ...response.headers, "retry-after": "7" } }) }
        )
      )
      const error = yield* Effect.flip(link.progress(report))
      assert.deepInclude(error, {
        _tag: "ServerRefused",
        code: "overloaded",
        message: "too many",
        retryAfterMs: 7_000
      })
      const missing = yield* Effect.flip(Stream.runDrain(link.payload(digestOfBytes(utf8("x")), 0)))
      assert.strictEqual(missing._tag, "ServerRefused")
    })
  )

  it.effect("passes on for how long an overloaded port asks for patience, within a bound", () =>
    Effect.gen(function* () {
      const told = Effect.fnUntraced(function* (header: string | undefined) {
        const headers: Record<string, string> = header === undefined ? {} : { "retry-after": header }
        const { link } = yield* answering(() => ({ status: 503, headers, body: new Uint8Array(0) }))
        const error = yield* Effect.flip(link.progress(report))
        return error._tag === "ServerUnreachable" ? error.retryAfterMs : error._tag
      })
      assert.strictEqual(yield* told("7"), 7_000)
      assert.strictEqual(yield* told("86400"), 60_000)
      assert.isUndefined(yield* told(undefined))
      assert.isUndefined(yield* told("tomorrow"))
    })
  )

  it.effect("puts a wrong clock right by the signed time, once, and keeps to it", () =>
    Effect.gen(function* () {
      for (const nowMs of [1_000_000, 9_000_000_000]) {
        const created: Array<number> = []
        const serverMs = 5_000_000_400
        const transport = handlerTransport(
          serving((request) => {
            const seconds = Number(/created=(\d+)/.exec(request.headers["signature-input"] ?? "")?.[1])
            created.push(seconds)
            return Math.abs(seconds * 1000 - serverMs) <= 60_000
              ? signAnswer(request, { ...ok, atMs: serverMs })
              : signAnswer(request, {
                  ...ok,
                  atMs: serverMs,
                  status: 401,
                  value: { error: "clock_skew", message: "late" }
                })
          })
        )
        const { link, time } = yield* linkOver(transport, { nowMs })
        yield* link.progress(report)
        assert.deepStrictEqual(created, [nowMs / 1000, 5_000_001])
        assert.deepStrictEqual(time.accepted, [serverMs])
        yield* link.progress(report)
        assert.strictEqual(created.length, 3)
      }
    })
  )

  it.effect("gives up after one try with the server's own time", () =>
    Effect.gen(function* () {
      let requests = 0
      const { link } = yield* answering((request) => {
        requests++
        return signAnswer(request, { ...ok, status: 401, value: { error: "clock_skew", message: "late" } })
      })
      assert.deepInclude(yield* Effect.flip(link.progress(report)), {
        _tag: "ServerRefused",
        code: "clock_skew"
      })
      assert.strictEqual(requests, 2)
    })
  )

  it.effect("never uses a nonce twice", () =>
    Effect.gen(function* () {
      const nonces = new Set<string>()
      const { link } = yield* answering((request) => {
        nonces.add(/nonce="([^"]+)"/.exec(request.headers["signature-input"] ?? "")?.[1] ?? "")
        return signAnswer(request, ok)
      })
      for (let count = 0; count < 20; count++) yield* link.progress(report)
      assert.strictEqual(nonces.size, 20)
    })
  )
})

describe("the addresses of a server", () => {
  it.effect("are tried in turn, and the one that works is kept", () =>
    Effect.gen(function* () {
      const asked: Array<string> = []
      let isFirstDown = true
      const transport = handlerTransport((origin) => {
        asked.push(origin)
        return origin === addresses[0] && isFirstDown
          ? undefined
          : (request) => Effect.sync(() => signAnswer(request, ok))
      })
      const { link } = yield* linkOver(transport)
      yield* link.progress(report)
      isFirstDown = false
      yield* link.progress(report)
      assert.deepStrictEqual(asked, [addresses[0], addresses[1], addresses[1]])
    })
  )

  it.effect("include a liar without harm; if all fail, the lie is what is told", () =>
    Effect.gen(function* () {
      const liar = (request: ApiRequest) => ({ ...signAnswer(request, ok), headers: {} })
      const { link } = yield* answering((request, origin) =>
        origin === addresses[0] ? liar(request) : signAnswer(request, ok)
      )
      yield* link.progress(report)
      const one = yield* linkOver(
        handlerTransport((origin) =>
          origin === addresses[0] ? (request) => Effect.sync(() => liar(request)) : undefined
        )
      )
      assert.strictEqual((yield* Effect.flip(one.link.progress(report)))._tag, "ServerUntrusted")
      const none = yield* linkOver(handlerTransport(() => undefined))
      assert.strictEqual((yield* Effect.flip(none.link.progress(report)))._tag, "ServerUnreachable")
    })
  )

  it.effect("behind a gateway without the server count as unreachable", () =>
    Effect.gen(function* () {
      const { link } = yield* answering(() => ({ status: 502, headers: {}, body: utf8("bad gateway") }))
      assert.strictEqual((yield* Effect.flip(link.progress(report)))._tag, "ServerUnreachable")
      assert.strictEqual((yield* Effect.flip(link.roots(1)))._tag, "ServerUnreachable")
    })
  )

  it.effect("are asked once more, with a fresh signature, when a kept connection was stale", () =>
    Effect.gen(function* () {
      const signatures: Array<string | undefined> = []
      const inner = handlerTransport(serving((request) => signAnswer(request, ok)))
      const transport: Transport = {
        send: (request) => {
          signatures.push(request.headers["signature"])
          return signatures.length === 1
            ? Effect.fail(new TransportError({ reason: "reset", stale: true }))
            : inner.send(request)
        }
      }
      const { link } = yield* linkOver(transport)
      yield* link.progress(report)
      assert.strictEqual(new Set(signatures).size, 2)
    })
  )

  it.effect("that hang cost no more than the call's time limit", () =>
    Effect.gen(function* () {
      const { link } = yield* linkOver(
        handlerTransport(() => () => Effect.never),
        { callTimeoutMs: 50_000 }
      )
      const asking = yield* Effect.forkChild(Effect.flip(link.progress(report)))
      yield* TestClock.adjust("50 seconds")
      assert.match((yield* Fiber.join(asking)).message, /not done within 50000 ms/)
      // A held poll gets what it waits on top.
      const polling = yield* Effect.forkChild(Effect.flip(link.poll(poll)))
      yield* TestClock.adjust("74 seconds")
      assert.isUndefined(polling.pollUnsafe())
      yield* TestClock.adjust("1 seconds")
      assert.match((yield* Fiber.join(polling)).message, /not done within 75000 ms/)
    })
  )
})

describe("the addresses of a newcomer", () => {
  const enrol = "http://enrol.test"
  const invited = "http://invited.test"
  const identity = { ...serverIdentity, enrol_addresses: [enrol] }

  /** A server that answers everybody everywhere but where it is said to be down; what it was asked, and where. */
  const everywhere = (
    options: Parameters<typeof linkOver>[1],
    isDown: (origin: string) => boolean = () => false
  ) =>
    Effect.gen(function* () {
      const asked: Array<string> = []
      const answer = (request: ApiRequest) => {
        if (request.path.endsWith("/identity"))
          return { status: 200, headers: {}, body: encodeJson(identity) }
        if (request.path.endsWith("/roots"))
          return { status: 200, headers: {}, body: encodeJson({ roots: [] }) }
        if (request.path.endsWith("/enrolment"))
          return signAnswer(request, {
            ...ok,
            value: { status: "accepted", admission: null, preauthorisation: null }
          })
        return signAnswer(request, request.path.endsWith("/poll") ? { ...ok, value: pollAnswer } : ok)
      }
      const transport = handlerTransport((origin) => (request) => {
        asked.push(`${request.path.split("/").at(-1)} ${origin}`)
        return isDown(origin) ? Effect.never : Effect.sync(() => answer(request))
      })
      const { link } = yield* linkOver({ send: transport.send }, options)
      return { link, asked }
    })
  const enrolment = poll.statement

  it.effect("serve for identity, roots and enrolment, and no longer than until there is an acceptance", () =>
    Effect.gen(function* () {
      const { asked, link } = yield* everywhere({ addresses: [invited], enrolAddresses: [enrol] })
      yield* link.identity
      yield* link.roots(1)
      yield* link.enrol(enrolment)
      assert.deepStrictEqual(asked, [`identity ${enrol}`, `roots ${enrol}`, `enrolment ${enrol}`])
      asked.length = 0
      yield* link.poll(poll)
      yield* link.progress(report)
      yield* link.roots(2)
      assert.notInclude(asked.join(), enrol)
      assert.strictEqual(asked[0], `poll ${addresses[0]}`)
    })
  )

  it.effect("are never polled, even where nothing else answers", () =>
    Effect.gen(function* () {
      const { asked, link } = yield* everywhere(
        { addresses: [invited], enrolAddresses: [enrol], responseTimeoutMs: 1_000 },
        (origin) => origin !== enrol
      )
      yield* Effect.forkChild(link.poll(poll))
      yield* TestClock.adjust("10 minutes")
      assert.deepStrictEqual(
        asked,
        [...addresses, invited].map((origin) => `poll ${origin}`)
      )
    })
  )

  it.effect("are known by the server's word where the configuration names one as the server", () =>
    Effect.gen(function* () {
      const { asked, link } = yield* everywhere({ addresses: [enrol], trusting: false })
      yield* link.identity
      yield* link.trust({ root: rootOf(3), server: server.id as ServerId })
      yield* link.enrol(enrolment)
      yield* link.poll(poll)
      assert.deepStrictEqual(asked, [`identity ${enrol}`, `enrolment ${enrol}`, `poll ${addresses[0]}`])
    })
  )

  it.effect("still let a device ask to be let in again that was accepted once", () =>
    Effect.gen(function* () {
      const { asked, link } = yield* everywhere(
        { addresses: [invited], enrolAddresses: [enrol], responseTimeoutMs: 1_000 },
        (origin) => origin !== enrol
      )
      yield* link.enrol(enrolment)
      asked.length = 0
      const again = yield* Effect.forkChild(link.enrol(enrolment))
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(again)
      assert.include(asked, `enrolment ${enrol}`)
    })
  )

  it.effect("that hang for a whole call give way to the others at the next", () =>
    Effect.gen(function* () {
      const stuck = addresses[0] ?? ""
      const { asked, link } = yield* everywhere(
        { addresses, callTimeoutMs: 1_000 },
        (origin) => origin === stuck
      )
      const first = yield* Effect.forkChild(Effect.flip(link.progress(report)))
      yield* TestClock.adjust("1 seconds")
      assert.deepInclude(yield* Fiber.join(first), { _tag: "ServerUnreachable", address: stuck })
      yield* link.progress(report)
      assert.deepStrictEqual(
        asked,
        addresses.map((origin) => `progress ${origin}`)
      )
    })
  )

  it.effect(
    "get no more time to be connected to than leaves some to the others, and more after each failure",
    () =>
      Effect.gen(function* () {
        const asked: Array<string> = []
        const { link } = yield* linkOver({
          send: ({ connectTimeoutMs, origin }) => {
            asked.push(`${origin} ${connectTimeoutMs}`)
            return Effect.fail(new TransportError({ reason: "silence", stale: false }))
          }
        })
        for (let count = 0; count < 3; count++) yield* Effect.flip(link.progress(report))
        const [first, second] = addresses
        assert.deepStrictEqual(asked, [
          ...[`${first} 15000`, `${second} 120000`],
          ...[`${first} 30000`, `${second} 120000`],
          ...[`${first} 60000`, `${second} 120000`]
        ])
      })
  )

  it.effect("that fail tell what failed on the way, even if another only keeps silent", () =>
    Effect.gen(function* () {
      const { link } = yield* linkOver({
        send: ({ origin }) =>
          Effect.fail(
            new TransportError({
              reason: "no onion service",
              stale: false,
              ...(origin === addresses[0] ? { code: "onion_not_found" } : {})
            })
          )
      })
      assert.deepInclude(yield* Effect.flip(link.progress(report)), { code: "onion_not_found" })
      assert.deepInclude(yield* Effect.flip(link.roots(1)), { code: "onion_not_found" })
    })
  )
})
