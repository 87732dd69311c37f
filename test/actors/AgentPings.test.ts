import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { makePings } from "../../src/actors/AgentPings.ts"
import type { Name } from "../../src/schemas/Ids.ts"
import { type MessageId, MessageLimits } from "../../src/schemas/Message.ts"

const bob = "bob" as Name
const nonce = (letter: string) => letter.repeat(26) as MessageId

describe("questions whether somebody is there", () => {
  it.effect("that come again take nothing from the allowance of who first asked them", () =>
    Effect.gen(function* () {
      const pings = makePings()
      assert.strictEqual(yield* pings.admit(bob, nonce("a")), "answer")
      for (let again = 0; again < 100; again++)
        assert.strictEqual(yield* pings.admit(bob, nonce("a")), "replayed")
      for (const letter of "bcde") assert.strictEqual(yield* pings.admit(bob, nonce(letter)), "answer")
      assert.strictEqual(yield* pings.admit(bob, nonce("f")), "overloaded")
      yield* TestClock.adjust(1_000)
      assert.strictEqual(yield* pings.admit(bob, nonce("f")), "answer")
    })
  )

  it.effect("are remembered for as long as they look fresh", () =>
    Effect.gen(function* () {
      const pings = makePings()
      assert.strictEqual(yield* pings.admit(bob, nonce("a")), "answer")
      yield* TestClock.adjust(2 * MessageLimits.futureMs - 1)
      assert.strictEqual(yield* pings.admit(bob, nonce("b")), "answer")
      assert.strictEqual(yield* pings.admit(bob, nonce("a")), "replayed")
    })
  )
})
