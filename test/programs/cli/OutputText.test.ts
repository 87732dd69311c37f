import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import { concatBytes, utf8 } from "../../../src/crypto/Bytes.ts"
import { outputText } from "../../../src/programs/cli/OutputText.ts"

const through = (...pieces: ReadonlyArray<Uint8Array>): string => {
  const text = outputText()
  return pieces.map((piece) => text.push(piece)).join("") + text.end()
}

describe("a job's output on a terminal", () => {
  it("lets lines, tabs, returns and colours pass, and resets them", () => {
    assert.strictEqual(through(utf8("a\tb\r\nc\n")), "a\tb\r\nc\n")
    assert.strictEqual(through(utf8("\u001b[1;31mred\u001b[m\n")), "\u001b[1;31mred\u001b[m\n\u001b[0m")
  })

  it("shows everything else that a terminal would obey", () => {
    assert.strictEqual(through(utf8("\u001b[2J\u001b]0;title\u0007")), "\\x1b[2J\\x1b]0;title\\x07")
    assert.strictEqual(through(utf8("\u009b31m\u0008\u202e")), "\\x9b31m\\x08\\u{202e}")
    assert.strictEqual(through(utf8("\u001b[6n\u001bP$q\u001b\\")), "\\x1b[6n\\x1bP$q\\x1b\\")
  })

  it("shows an escape that nothing follows", () => {
    assert.strictEqual(through(utf8("a\u001b")), "a\\x1b")
    assert.strictEqual(through(utf8("a\u001b[1")), "a\\x1b[1")
  })

  it("gives the same however the bytes are cut", () => {
    const bytes = utf8("ä\u001b[38;5;208mfarbig\u001b[0m\n\u001b[2Jß\u0007€\u001b")
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.length), { maxLength: 6 }), (cuts) => {
        const at = [0, ...cuts.toSorted((left, right) => left - right), bytes.length]
        const pieces = at.slice(1).map((end, index) => bytes.subarray(at[index], end))
        assert.strictEqual(through(...pieces), through(bytes))
      })
    )
  })

  it("never lets through what is neither text nor colour", () => {
    const hostile = fc.array(
      fc.oneof(
        fc.uint8Array({ maxLength: 8 }),
        fc.constantFrom("\u001b[", "\u001b]", "31m", "2J", "\u009b", "\u0007", "\u001b").map(utf8)
      )
    )
    fc.assert(
      fc.property(hostile, (pieces) => {
        const rest = through(concatBytes(...pieces)).replaceAll(/\u001b\[[0-9;:]*m/g, "")
        assert.isFalse(/[^\P{Cc}\n\t\r]|[\p{Cf}\p{Zl}\p{Zp}]/u.test(rest), JSON.stringify(rest))
      })
    )
  })
})
