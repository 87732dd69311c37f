import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import {
  missingSpans,
  type Span,
  type Spans,
  spannedBytes,
  spansBefore,
  withSpan
} from "../../src/schemas/Spans.ts"

const total = 40

const bytesOf = (spans: Spans): ReadonlyArray<number> =>
  spans.flatMap(({ from, until }) => Array.from({ length: until - from }, (_, index) => from + index))

const spanArbitrary: fc.Arbitrary<Span> = fc
  .tuple(fc.nat({ max: total }), fc.nat({ max: total }))
  .map(([one, other]) => ({ from: Math.min(one, other), until: Math.max(one, other) }))

const added = (parts: ReadonlyArray<Span>): Spans => parts.reduce<Spans>(withSpan, [])

describe("spans", () => {
  it("hold just the bytes that were added, in order and apart", () => {
    fc.assert(
      fc.property(fc.array(spanArbitrary, { maxLength: 12 }), (parts) => {
        const spans = added(parts)
        const expected = [...new Set(bytesOf(parts))].sort((one, other) => one - other)
        assert.deepStrictEqual(bytesOf(spans), expected)
        assert.strictEqual(spannedBytes(spans), expected.length)
        for (const [index, { from }] of spans.entries())
          assert.isTrue(index === 0 || from > (spans[index - 1] as Span).until)
      })
    )
  })

  it("and what is missing are the whole", () => {
    fc.assert(
      fc.property(
        fc.array(spanArbitrary, { maxLength: 12 }),
        fc.integer({ min: 1, max: total }),
        (parts, end) => {
          const held = spansBefore(added(parts), end)
          const both = [...bytesOf(held), ...bytesOf(missingSpans(held, end))].sort(
            (one, other) => one - other
          )
          assert.deepStrictEqual(
            both,
            Array.from({ length: end }, (_, index) => index)
          )
          assert.deepStrictEqual(missingSpans(added(parts), end), missingSpans(held, end))
        }
      )
    )
  })
})
