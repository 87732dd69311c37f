/** What programs give, as it goes to an agent's desk. */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { letterOf } from "../../../src/programs/agent/Conversions.ts"

const bodyOf = (body: unknown): unknown => {
  const read = letterOf({ to: "bob", body: body as never })
  return Result.isSuccess(read) ? read.success.body : read.failure.code
}

describe("a letter of a program", () => {
  it("is what it was when it was given, whatever becomes of it afterwards", () => {
    const to = ["bob"]
    const body = { n: 0, more: { list: [1] } }
    const letter = letterOf({ to, body })
    to[0] = "carol"
    body.n = 1
    body.more.list.push(2)
    assert.deepStrictEqual(Result.getOrThrow(letter), {
      level: "private",
      to: ["bob"],
      subject: "",
      body: { n: 0, more: { list: [1] } },
      lifetime_ms: null
    } as never)
  })

  it("is what its parts say that they are in JSON", () => {
    assert.deepStrictEqual(bodyOf({ at: { toJSON: () => [1, { a: null }] }, left: undefined }), {
      at: [1, { a: null }]
    })
    assert.strictEqual(bodyOf("plain"), "plain")
  })

  it("is refused at once where it is no JSON", () => {
    const round: Array<unknown> = []
    round.push(round)
    for (const body of [undefined, Number.NaN, { n: Number.POSITIVE_INFINITY }, 1n, "\ud800", round, () => 1])
      assert.strictEqual(bodyOf(body), "no_json")
  })
})
