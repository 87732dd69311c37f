/** A signed answer of which one byte was changed on its way, wherever it stands, is refused and has no effect. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { ApiRequest, ApiResponse } from "../../src/adapters/http/Exchange.ts"
import { statementHeader } from "../../src/schemas/Statement.ts"
import { answering, ok, report, signAnswer } from "../adapters/support/server.ts"

/** What comes of an answer that was changed: nothing, or a reason not to believe it. */
const outcomeOf = Effect.fnUntraced(function* (bend: (response: ApiResponse) => ApiResponse) {
  const { link } = yield* answering((request: ApiRequest) => bend(signAnswer(request, ok)))
  const result = yield* Effect.result(link.progress(report))
  return result._tag === "Success" ? "believed" : result.failure._tag
})

const sample = Effect.map(
  Effect.gen(function* () {
    let seen: ApiResponse | undefined
    const { link } = yield* answering((request) => (seen = signAnswer(request, ok)))
    yield* link.progress(report)
    return seen
  }),
  (seen) => seen as ApiResponse
)

describe("every byte of a signed answer", () => {
  it.effect("in its body, with each of its bits", () =>
    Effect.gen(function* () {
      const lengthBytes = ((yield* sample).body as Uint8Array).length
      for (let at = 0; at < lengthBytes * 8; at++) {
        const outcome = yield* outcomeOf((response) => {
          const body = (response.body as Uint8Array).slice()
          body[at >> 3] = (body[at >> 3] as number) ^ (1 << (at & 7))
          return { ...response, body }
        })
        assert.strictEqual(outcome, "ServerUntrusted", `bit ${at} of the body`)
      }
    })
  )
  it.effect("in its signed statement", () =>
    Effect.gen(function* () {
      const length = (yield* sample).headers[statementHeader]?.length ?? 0
      assert.isAbove(length, 500)
      for (let at = 0; at < length; at++) {
        const outcome = yield* outcomeOf((response) => {
          const header = response.headers[statementHeader] ?? ""
          // Another letter of base64, another one each time.
          const letter = header[at] === "A" ? "Q" : header[at] === "Q" ? "g" : "A"
          const bent = `${header.slice(0, at)}${letter}${header.slice(at + 1)}`
          return { ...response, headers: { ...response.headers, [statementHeader]: bent } }
        })
        assert.strictEqual(outcome, "ServerUntrusted", `character ${at} of the statement`)
      }
    })
  )
  it.effect("or any part of it missing", () =>
    Effect.gen(function* () {
      const length = (yield* sample).headers[statementHeader]?.length ?? 0
      for (let kept = 0; kept < length; kept += 7) {
        const outcome = yield* outcomeOf((response) => ({
          ...response,
          headers: {
            ...response.headers,
            [statementHeader]: (response.headers[statementHeader] ?? "").slice(0, kept)
          }
        }))
        assert.strictEqual(outcome, "ServerUntrusted", `${kept} characters`)
      }
    })
  )
})
