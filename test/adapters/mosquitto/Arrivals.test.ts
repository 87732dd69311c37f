import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { makeArrivals } from "../../../src/adapters/mosquitto/Arrivals.ts"
import { openInProcess } from "../../../src/adapters/sqlite/InProcessDatabase.ts"
import { messagesDatabase } from "../../../src/adapters/sqlite/messages/MessagesDatabase.ts"

const topic = "mf2c/broker-services/private"

/** What is dealt with in its order, where `fails` says of some that it cannot be, this time. */
const make = (fails: (words: string) => boolean) =>
  Effect.gen(function* () {
    const dealt: Array<string> = []
    const database = yield* openInProcess(messagesDatabase, ":memory:")
    const arrive = yield* makeArrivals({
      topicRoot: "mf2c",
      database,
      handlers: {
        received: ({ from, payload }) =>
          Effect.suspend(() => {
            const { n } = JSON.parse(new TextDecoder().decode(payload))
            const words = `${from} ${n}`
            if (fails(words)) return Effect.fail({ message: "the store is full" })
            dealt.push(words)
            return Effect.void
          }),
        refused: () => Effect.void
      },
      isKnown: () => true,
      whenOpen: Effect.void
    })
    const come = (from: string, n: number) =>
      arrive(topic, new TextEncoder().encode(JSON.stringify({ from, n })))
    /** Seconds pass until nothing happens any more but what fails. */
    const pass = (seconds: number) =>
      Effect.forEach(Array.from({ length: seconds }), () => TestClock.adjust(1_000), { discard: true })
    return { come, dealt, pass, left: database.call("arrivalCounts") }
  })

const numbers = (from: string, count: number) => Array.from({ length: count }, (_, n) => `${from} ${n}`)

describe("what came to broker services", () => {
  it.effect("of one sender keeps its order when something fails, and holds up nobody else", () =>
    Effect.gen(function* () {
      let left = 3
      const { come, dealt, left: rest, pass } = yield* make((words) => words === "alice 4" && left-- > 0)
      for (let n = 0; n < 40; n++) {
        yield* come("alice", n)
        yield* come("bob", n)
      }
      yield* TestClock.adjust(0)
      const of = (from: string) => dealt.filter((words) => words.startsWith(from))
      assert.deepStrictEqual(of("bob"), numbers("bob", 40))
      assert.deepStrictEqual(of("alice"), numbers("alice", 4))
      yield* pass(5)
      assert.deepStrictEqual(of("alice"), numbers("alice", 40))
      assert.deepStrictEqual(yield* rest, [])
    }).pipe(Effect.scoped)
  )

  it.effect("lets what is behind it pass when it has failed for minutes, and is tried on", () =>
    Effect.gen(function* () {
      let isBroken = true
      const { come, dealt, left, pass } = yield* make((words) => words === "alice 0" && isBroken)
      for (let n = 0; n < 40; n++) yield* come("alice", n)
      yield* pass(240)
      assert.deepStrictEqual(dealt, [])
      yield* pass(120)
      assert.deepStrictEqual(dealt, numbers("alice", 40).slice(1))
      isBroken = false
      yield* pass(2)
      assert.deepStrictEqual(dealt, [...numbers("alice", 40).slice(1), "alice 0"])
      assert.deepStrictEqual(yield* left, [])
    }).pipe(Effect.scoped)
  )
})
