import { assert, describe, it } from "@effect/vitest"
import { Effect, Random } from "effect"
import { TestClock } from "effect/testing"
import { SystemEntropy } from "../../src/adapters/SystemEntropy.ts"
import { base32Token, formatUuidV7, uuidV7 } from "../../src/crypto/Unguessable.ts"
import { Entropy } from "../../src/ports/Entropy.ts"
import { SeededEntropy } from "./SeededEntropy.ts"
import { hex } from "./vectors.ts"

const draw = Effect.gen(function* () {
  const entropy = yield* Entropy
  return [yield* entropy.bytes(32), yield* entropy.bytes(3), yield* entropy.bytes(5000)] as const
})

describe("UUID version 7", () => {
  it("is the example of RFC 9562, A.6", () => {
    assert.strictEqual(
      formatUuidV7(0x017f22e279b0, hex("0cc318c4dc0c0c07398f")),
      "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
    )
  })

  it("takes no other amount of bytes and no time it cannot hold", () => {
    assert.throws(() => formatUuidV7(1, new Uint8Array(9)), RangeError)
    assert.throws(() => formatUuidV7(-1, new Uint8Array(10)), RangeError)
    assert.throws(() => formatUuidV7(1.5, new Uint8Array(10)), RangeError)
    assert.throws(() => formatUuidV7(2 ** 48, new Uint8Array(10)), RangeError)
  })

  it.effect("carries the Clock's time and the source's bytes", () =>
    Effect.gen(function* () {
      const entropy = yield* Entropy
      yield* TestClock.setTime(1_700_000_000_000)
      const first = yield* uuidV7(entropy)
      const second = yield* uuidV7(entropy)
      assert.match(first, /^018bcfe5-6800-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
      assert.notStrictEqual(first, second)
    }).pipe(Effect.provide(SeededEntropy("a", "/")))
  )
})

describe("tokens", () => {
  it.effect("have the length of their bits", () =>
    Effect.gen(function* () {
      const entropy = yield* Entropy
      assert.match(yield* base32Token(entropy, 128), /^[a-z2-7]{26}$/)
      assert.match(yield* base32Token(entropy, 160), /^[a-z2-7]{32}$/)
    }).pipe(Effect.provide(SystemEntropy))
  )
})

describe("sources", () => {
  it.effect("the system's never repeats, whatever Random is seeded with", () =>
    Effect.gen(function* () {
      const seeded = draw.pipe(Effect.provide(SystemEntropy), Random.withSeed("seed"))
      const [first, short, long] = yield* seeded
      const [second] = yield* seeded
      assert.deepStrictEqual([first.length, short.length, long.length], [32, 3, 5000])
      assert.notDeepEqual(first, second)
      assert.strictEqual(first.buffer.byteLength, 32, "the bytes have memory of their own")
    })
  )

  it.effect("the seeded one repeats for one seed and path, and differs for another", () =>
    Effect.gen(function* () {
      const from = (seed: string, path: string) => draw.pipe(Effect.provide(SeededEntropy(seed, path)))
      const first = yield* from("a", "/client")
      assert.deepStrictEqual(yield* from("a", "/client"), first)
      assert.notDeepEqual(yield* from("b", "/client"), first)
      assert.notDeepEqual(yield* from("a", "/server"), first)
      assert.notDeepEqual(first[0], first[2].subarray(0, 32))
    })
  )
})
