import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import { FairQueue } from "../../../src/adapters/relay/FairQueue.ts"

const key = fc.constantFrom("a", "b", "c")
const step = fc.oneof(
  fc.record({ kind: fc.constant("offer" as const), key }),
  fc.record({ kind: fc.constant("take" as const), key }),
  fc.record({ kind: fc.constant("remove" as const), key, at: fc.nat(5) })
)

describe("the fair queue", () => {
  it("serves keys in turns and each in order, within its bounds, like a plain model of it", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.integer({ min: 1, max: 8 }), (steps, total) => {
        const perKey = 3
        const queue = new FairQueue<number>({ total, perKey })
        const model: Array<{ key: string; items: Array<number> }> = []
        const size = () => model.reduce((sum, { items }) => sum + items.length, 0)
        for (const [number, one] of steps.entries()) {
          const at = model.findIndex((line) => line.key === one.key)
          const line = model[at]
          if (one.kind === "offer") {
            const fits = size() < total && (line?.items.length ?? 0) < perKey
            assert.strictEqual(queue.offer(one.key, number), fits)
            if (fits && line === undefined) model.push({ key: one.key, items: [number] })
            else if (fits) line?.items.push(number)
          } else if (one.kind === "take") {
            const [first] = model.splice(0, 1)
            assert.strictEqual(queue.take(), first?.items.shift())
            if (first !== undefined && first.items.length > 0) model.push(first)
          } else {
            const item = line?.items[one.at]
            assert.strictEqual(queue.remove(one.key, item ?? -1), item !== undefined)
            if (line !== undefined && item !== undefined) line.items.splice(one.at, 1)
            if (line?.items.length === 0) model.splice(at, 1)
          }
          assert.strictEqual(queue.size, size())
        }
        assert.deepStrictEqual(
          queue.drain(),
          model.flatMap(({ items }) => items)
        )
        assert.isUndefined(queue.take())
      })
    )
  })
})
