import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import fc from "fast-check"
import { firstBytes } from "../../../src/adapters/http/FirstBytes.ts"

/** What comes of a stream of these blocks when so many bytes are wanted, and whether it was read to its end. */
const cut = (lengths: ReadonlyArray<number>, count: number) =>
  Effect.gen(function* () {
    let wasRead = false
    const end = Stream.fromEffectDrain(
      Effect.sync(() => {
        wasRead = true
      })
    )
    const blocks = Stream.fromIterable(lengths).pipe(Stream.map((length) => new Uint8Array(length).fill(1)))
    const parts = yield* Stream.runCollect(firstBytes(Stream.concat(blocks, end), count))
    return { bytes: parts.reduce((sum, { length }) => sum + length, 0), wasRead }
  })

describe("the first bytes of a stream", () => {
  it("are as many as were asked for; only a stream that has more is cut", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 50 }), { maxLength: 10 }),
        fc.integer({ min: 1, max: 300 }),
        async (lengths, count) => {
          const total = lengths.reduce((sum, length) => sum + length, 0)
          const { bytes, wasRead } = await Effect.runPromise(cut(lengths, count))
          assert.strictEqual(bytes, Math.min(total, count))
          // One that ends by itself is read to its end: the connection behind it can serve again.
          assert.strictEqual(wasRead, total <= count)
        }
      )
    )
  })
})
