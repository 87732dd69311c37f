import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Result } from "effect"
import { LocalRelayCrypto } from "../../../src/adapters/mqtt/LocalRelayCrypto.ts"
import { NativeCrypto, NativeCryptoEngine } from "../../../src/adapters/NativeCrypto.ts"
import { RelayThreads, ThreadedRelayCrypto } from "../../../src/adapters/relay/ThreadedRelayCrypto.ts"
import { encodeBase64 } from "../../../src/crypto/Base64.ts"
import { openSealed, readSealed } from "../../../src/crypto/Messages.ts"
import { NobleEngine } from "../../../src/crypto/NobleEngine.ts"
import type { SignedJson } from "../../../src/crypto/SignedJson.ts"
import { CryptoEngine } from "../../../src/ports/CryptoEngine.ts"
import { Entropy } from "../../../src/ports/Entropy.ts"
import { RelayCrypto } from "../../../src/ports/RelayCrypto.ts"
import { deadly, relayEntry } from "../../support/relayEntry.ts"
import { pairOf, privateArrival, recipient, relayNowMs, servicesWith } from "../../support/relayKeys.ts"

/** The same at every asking, so that two ways give the same bytes. */
const SameChance = Layer.succeed(Entropy, {
  bytes: (length) => Effect.sync(() => new Uint8Array(length).fill(5))
})
const Native = Layer.merge(NativeCryptoEngine, SameChance)
const Noble = Layer.merge(Layer.succeed(CryptoEngine, NobleEngine), SameChance)

type Options = Partial<Parameters<typeof ThreadedRelayCrypto>[0]>
const threaded = (options: Options = {}) =>
  ThreadedRelayCrypto({ keys: servicesWith(50), entry: relayEntry, threads: 2, ...options })

const ours = servicesWith(50)
const arrivalOf = (from: string, number: number, to = ["bob"]) =>
  privateArrival(from, number, to, ours.agreement.key)

const signed = (crypto: RelayCrypto["Service"], type: string) =>
  crypto.sign<SignedJson & { readonly n: number }>({ type, n: 1 })

/** What becomes of a good message. */
const relayed = (crypto: RelayCrypto["Service"], from: string, number: number) =>
  Effect.gen(function* () {
    const judged = yield* crypto.judge(arrivalOf(from, number))
    const accepted = yield* Effect.fromResult(judged)
    return yield* crypto.outgoing(accepted, [recipient("bob", 60)], relayNowMs)
  })

/** Which of broker services' messages a wire to bob holds. */
const numberIn = (wire: Uint8Array): number => {
  const sealed = Result.getOrThrow(readSealed(wire))
  const { key, pair } = pairOf(60)
  const plain = openSealed(NativeCrypto, (asked) => (asked === key ? pair : undefined), sealed)
  return (JSON.parse(new TextDecoder().decode(Result.getOrThrow(plain))) as { body: { number: number } }).body
    .number
}

describe("broker services' threads", () => {
  it.live("give what the calling thread gives, on either engine, to one recipient or to a hundred", () =>
    Effect.gen(function* () {
      const many = Array.from({ length: 100 }, (_, index) => recipient(`agent-${index}`, 60 + (index % 90)))
      const arrival = arrivalOf("alice", 3, ["bob"])
      const bent = { ...arrival, wire: arrival.wire.map((byte, at) => (at === 300 ? byte ^ 1 : byte)) }
      const all = Effect.gen(function* () {
        const crypto = yield* RelayCrypto
        const accepted = yield* Effect.fromResult(yield* crypto.judge(arrival))
        const refused = yield* crypto.judge(bent)
        return {
          accepted,
          refused: Result.isFailure(refused) ? refused.failure.code : "none",
          one: yield* crypto.outgoing(accepted, [recipient("bob", 60)], relayNowMs),
          many: yield* crypto.outgoing(accepted, many, relayNowMs),
          none: yield* crypto.outgoing(accepted, [], relayNowMs),
          signed: yield* signed(crypto, "test/a"),
          agreement: yield* crypto.agreement,
          signingKey: crypto.signingKey
        }
      })
      const local = yield* Effect.provide(all, LocalRelayCrypto(ours).pipe(Layer.provide(Native)))
      const native = yield* Effect.provide(all, threaded().pipe(Layer.provide(Native)))
      const noble = yield* Effect.provide(all, threaded().pipe(Layer.provide(Noble)))
      assert.strictEqual(local.many.length, 100)
      assert.deepStrictEqual(native, local)
      assert.deepStrictEqual(noble, local)
    })
  )

  it.live("do their work whatever thread is killed: each message once, and the right one", () =>
    Effect.gen(function* () {
      const crypto = yield* RelayCrypto
      const threads = yield* RelayThreads
      const count = 300
      const work = yield* Effect.forkChild(
        Effect.forEach(
          Array.from({ length: count }, (_, index) => index),
          (index) => relayed(crypto, `agent-${index % 20}`, index),
          { concurrency: 40 }
        )
      )
      // Work that three threads died over would be given up.
      for (let kills = 0; work.pollUnsafe() === undefined && kills < 2; ) {
        const { inHand } = yield* threads.figures
        // Only threads that have something in hand die of anything.
        if (inHand > 0) yield* threads.kill(kills++)
        yield* Effect.sleep(5)
      }
      const made = yield* Fiber.join(work)
      assert.deepStrictEqual(
        made.map(([outgoing]) => numberIn(outgoing?.wire ?? new Uint8Array(0))),
        Array.from({ length: count }, (_, index) => index)
      )
      const { deaths, waiting } = yield* threads.figures
      assert.isAtLeast(deaths, 1)
      assert.strictEqual(waiting, 0)
    }).pipe(Effect.provide(threaded().pipe(Layer.provide(Native))))
  )

  it.live("give up what kills them, and what hangs them, and go on with all else", () =>
    Effect.gen(function* () {
      const crypto = yield* RelayCrypto
      const threads = yield* RelayThreads
      const poison = yield* Effect.forkChild(
        Effect.all([Effect.flip(signed(crypto, deadly.ends)), Effect.flip(signed(crypto, deadly.hangs))], {
          concurrency: "unbounded"
        })
      )
      const good = yield* Effect.forEach(
        Array.from({ length: 60 }, (_, index) => index),
        (index) => relayed(crypto, `agent-${index % 7}`, index),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(
        good.map(([outgoing]) => numberIn(outgoing?.wire ?? new Uint8Array(0))),
        Array.from({ length: 60 }, (_, index) => index)
      )
      const failures = yield* Fiber.join(poison)
      assert.deepStrictEqual(
        failures.map(({ code }) => code),
        ["died", "died"]
      )
      assert.isAtLeast((yield* threads.figures).deaths, 3)
      assert.strictEqual((yield* signed(crypto, "test/b")).type, "test/b")
    }).pipe(Effect.provide(threaded({ silenceMs: 1_000 }).pipe(Layer.provide(Native))))
  )

  it.live("take senders in turns: who floods waits for himself", () =>
    Effect.gen(function* () {
      const crypto = yield* RelayCrypto
      const done: Array<string> = []
      const note = (who: string) => Effect.sync(() => void done.push(who))
      const flood = yield* Effect.forkChild(
        Effect.forEach(
          Array.from({ length: 400 }, (_, index) => index),
          (index) => Effect.andThen(crypto.judge(arrivalOf("flood", index)), note("flood")),
          { concurrency: "unbounded", discard: true }
        )
      )
      // The flood is in the queue before the others come.
      yield* Effect.yieldNow
      yield* Effect.forEach(
        ["alice", "bob", "carol"],
        (who) => Effect.andThen(crypto.judge(arrivalOf(who, 1)), note(who)),
        { concurrency: "unbounded" }
      )
      const before = done.filter((who) => who === "flood").length
      yield* Fiber.join(flood)
      assert.strictEqual(done.length, 403)
      // What the thread had in hand already comes first: sixteen openings. Of two threads one could be held up by the system.
      assert.isAtMost(before, 50)
    }).pipe(Effect.provide(threaded({ threads: 1, maximumPerSender: 1_000 }).pipe(Layer.provide(Native))))
  )

  it.live("refuse more than may wait, of one sender and of all, and what is asked after their end", () =>
    Effect.gen(function* () {
      const pool = threaded({ maximumPerSender: 10, maximumQueue: 30 })
      const outside = yield* Effect.gen(function* () {
        const crypto = yield* RelayCrypto
        const send = (who: string, count: number) =>
          Effect.map(
            Effect.forEach(
              Array.from({ length: count }, (_, index) => index),
              (index) => Effect.result(crypto.judge(arrivalOf(who, index))),
              { concurrency: "unbounded" }
            ),
            (results) => results.map((result) => (Result.isFailure(result) ? result.failure.code : "done"))
          )
        const [one] = yield* Effect.all([send("alice", 25)])
        assert.deepStrictEqual(
          [one.filter((code) => code === "done").length, one.filter((code) => code === "overloaded").length],
          [10, 15]
        )
        const many = yield* Effect.forEach(["a", "b", "c", "d"], (who) => send(who, 10), {
          concurrency: "unbounded"
        })
        assert.strictEqual(many.flat().filter((code) => code === "overloaded").length, 10)
        return crypto
      }).pipe(Effect.provide(pool.pipe(Layer.provide(Native))), Effect.scoped)
      assert.strictEqual((yield* Effect.flip(signed(outside, "test/late"))).code, "closed")
    })
  )

  it.live("learn of new keys before their next work, and forget old ones", () => {
    let now = servicesWith(50)
    const keys = {
      signer: now.signer,
      get agreements() {
        return now.agreements
      },
      get agreement() {
        return now.agreement
      }
    }
    const [old, next] = [pairOf(50).key, pairOf(51).key]
    return Effect.gen(function* () {
      const crypto = yield* RelayCrypto
      const threads = yield* RelayThreads
      const isOpened = (key: string) =>
        Effect.map(
          Effect.forEach(
            Array.from({ length: 20 }, (_, index) => index),
            (index) => crypto.judge(privateArrival("alice", index, ["bob"], key)),
            { concurrency: "unbounded" }
          ),
          (judged) => judged.map(Result.isSuccess)
        )
      const all = (value: boolean) => Array.from({ length: 20 }, () => value)
      assert.deepStrictEqual(yield* isOpened(next), all(false))
      now = servicesWith(50, 51)
      assert.strictEqual((yield* crypto.agreement).key, next)
      assert.deepStrictEqual(yield* isOpened(next), all(true))
      assert.deepStrictEqual(yield* isOpened(old), all(true))
      now = servicesWith(51)
      assert.deepStrictEqual(yield* isOpened(old), all(false))
      for (const index of [0, 1]) yield* threads.kill(index)
      assert.deepStrictEqual(yield* isOpened(next), all(true))
    }).pipe(Effect.provide(threaded({ keys }).pipe(Layer.provide(Native))))
  })

  it.live("tell who waits that no thread can be started", () =>
    Effect.gen(function* () {
      const crypto = yield* RelayCrypto
      const error = yield* Effect.flip(signed(crypto, "test/c"))
      assert.strictEqual(error.code, "died")
      assert.match(error.message, /no thread can be started.*found\.js/)
    }).pipe(
      Effect.provide(
        threaded({ entry: new URL("file:///nowhere/to/be/found.js") }).pipe(Layer.provide(Native))
      )
    )
  )

  it("have keys whose public halves are told right", () => {
    assert.strictEqual(
      ours.agreement.key,
      encodeBase64(NativeCrypto.x25519.publicKey(new Uint8Array(32).fill(50)))
    )
  })
})
