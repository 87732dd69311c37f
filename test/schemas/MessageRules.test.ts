import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import fc from "fast-check"
import { noServerArguments, readSettings } from "../../src/programs/server/ServerSettings.ts"
import { SecureLevel } from "../../src/schemas/Message.ts"
import { MessageRules, openRules, permits } from "../../src/schemas/MessageRules.ts"

const decode = Schema.decodeUnknownResult(MessageRules, { onExcessProperty: "error" })
const levels = SecureLevel.literals

/** The policy that a configuration file comes to, or what the server says of it. */
const policyOf = (text: string) =>
  Effect.acquireUseRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "postern-policy-"))),
    (folder) =>
      Effect.suspend(() => {
        const config = join(folder, "server.toml")
        writeFileSync(config, text)
        return readSettings({ ...noServerArguments, config }, { HOME: "/nowhere" })
      }).pipe(
        Effect.map(({ messaging }) => messaging.policy),
        Effect.catch((error) => Effect.succeed(error.message))
      ),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
  )

describe("who may write to whom", () => {
  it.effect("is everybody to everybody where nobody says otherwise, and nobody where there is no rule", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* policyOf(""), openRules)
      assert.deepStrictEqual(yield* policyOf("[messaging]\npolicy = []\n"), [])
      for (const level of levels) {
        assert.isTrue(permits(openRules, "a", "z-9", level))
        assert.isFalse(permits([], "a", "z-9", level))
      }
    })
  )

  it("is said by names, groups of names and levels", () => {
    const rules: MessageRules = [
      { from: "sensor-*", to: ["hub", "*-archive"], levels: ["private", "protected"] },
      { from: "hub", to: "*" }
    ]
    const cases: ReadonlyArray<readonly [string, string, SecureLevel, boolean]> = [
      ["sensor-1", "hub", "private", true],
      ["sensor-", "north-archive", "protected", true],
      ["sensor-1", "hub", "end_to_end", false],
      ["sensor-1", "sensor-2", "private", false],
      ["sensor", "hub", "private", false],
      ["hub", "sensor-1", "end_to_end", true],
      ["hub-2", "sensor-1", "private", false],
      ["sensor-1", "archive", "private", false]
    ]
    for (const [from, to, level, expected] of cases)
      assert.strictEqual(permits(rules, from, to, level), expected, `${from} to ${to}, ${level}`)
    // What stands before and behind the star may not be the same letters.
    assert.isFalse(permits([{ from: "ab*ba", to: "*" }], "aba", "x", "private"))
  })

  it("agrees with a slow reading of the same rules", () => {
    const name = fc.stringMatching(/^[ab][ab-]{0,4}$/)
    const pattern = fc.stringMatching(/^(?:[ab][ab-]{0,2}|(?:[ab][ab-]?)?\*[ab-]{0,2})$/)
    const rule = fc.record({
      from: fc.oneof(pattern, fc.array(pattern, { minLength: 1, maxLength: 3 })),
      to: fc.oneof(pattern, fc.array(pattern, { minLength: 1, maxLength: 3 })),
      levels: fc.subarray([...levels], { minLength: 1 })
    })
    const slow = (of: string | ReadonlyArray<string>, text: string) =>
      [of].flat().some((each) => new RegExp(`^${each.replace("*", ".*")}$`).test(text))
    fc.assert(
      fc.property(
        fc.array(rule, { maxLength: 3 }),
        name,
        name,
        fc.constantFrom(...levels),
        (made, from, to, level) => {
          const rules = Result.getOrThrow(decode(made))
          const expected = made.some(
            (each) => each.levels.includes(level) && slow(each.from, from) && slow(each.to, to)
          )
          assert.strictEqual(permits(rules, from, to, level), expected)
        }
      )
    )
  })

  it("is refused where a rule says anything else", () => {
    const rule = { from: "a", to: "b" }
    const wrong: ReadonlyArray<unknown> = [
      [{ from: "a" }],
      [{ ...rule, from: "" }],
      [{ ...rule, from: "A" }],
      [{ ...rule, from: "a*b*" }],
      [{ ...rule, from: [] }],
      [{ ...rule, levels: [] }],
      [{ ...rule, levels: ["public"] }],
      [{ ...rule, levels: ["private", "private"] }],
      [{ ...rule, deny: true }],
      Array.from({ length: 257 }, () => rule),
      [{ ...rule, to: Array.from({ length: 65 }, () => "b") }]
    ]
    for (const policy of wrong) assert.isTrue(Result.isFailure(decode(policy)), JSON.stringify(policy))
  })

  it.effect("is told with the file's line, the key and what it must be", () =>
    Effect.gen(function* () {
      const good = '[messaging]\npolicy = [\n  { from = "sensor-*", to = "hub", levels = ["private"] },\n]\n'
      assert.deepStrictEqual(yield* policyOf(good), [{ from: "sensor-*", to: "hub", levels: ["private"] }])
      const tables = '[[messaging.policy]]\nfrom = "a"\nto = ["b", "c"]\n'
      assert.deepStrictEqual(yield* policyOf(tables), [{ from: "a", to: ["b", "c"] }])
      const star = yield* policyOf('[messaging]\npolicy = [{ from = "a*b*", to = "hub" }]\n')
      assert.match(
        star as string,
        /server\.toml:2: messaging\.policy.*it must be a list of at most 256 rules/
      )
      const slip = yield* policyOf('[messaging]\npolicy = [{ from = "a", to = "b", level = ["private"] }]\n')
      assert.match(slip as string, /messaging\.policy\.level: there is no such key/)
    })
  )
})
