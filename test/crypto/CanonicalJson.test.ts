import { assert, describe, it } from "@effect/vitest"
import canonicalize from "canonicalize"
import { Result } from "effect"
import fc from "fast-check"
import { utf8 } from "../../src/crypto/Bytes.ts"
import {
  canonicalBytes,
  type JsonBounds,
  parseCanonical,
  parseStrict
} from "../../src/crypto/CanonicalJson.ts"
import { plainText } from "../../src/crypto/PlainJson.ts"
import { Limits } from "../../src/schemas/Limits.ts"
import { describeWithVectors, flipBit, hex, listVectors, readVector, readVectorText } from "./vectors.ts"

const reasonOf = (bytes: Uint8Array | string, bounds?: JsonBounds): string => {
  const result = parseStrict(typeof bytes === "string" ? utf8(bytes) : bytes, bounds)
  return Result.isFailure(result) ? result.failure.reason : "accepted"
}

const valueOf = (text: string): unknown => Result.getOrThrow(parseStrict(utf8(text)))

/** JSON values without numbers a signed document may not hold. */
const jsonValue = fc
  .jsonValue({ maxDepth: 4, stringUnit: "binary" })
  .filter((value) => reasonOf(JSON.stringify(value)) === "accepted")

describeWithVectors("RFC 8785, the author's samples", () => {
  for (const file of listVectors("jcs/input")) {
    it(file, () => {
      const value: unknown = JSON.parse(readVectorText(`jcs/input/${file}`))
      const expected = readVector(`jcs/output/${file}`)
      // values.json holds 1E30, which no signed document may.
      if (file === "values.json") {
        assert.throws(() => canonicalBytes(value), TypeError)
        assert.strictEqual(reasonOf(expected), "unsafe_number")
        return
      }
      assert.deepStrictEqual(canonicalBytes(value), expected)
      assert.deepStrictEqual(expected, hex(readVectorText(`jcs/outhex/${file.replace(".json", ".txt")}`)))
      assert.deepStrictEqual(Result.getOrThrow(parseCanonical(expected)), value)
      assert.deepStrictEqual(valueOf(readVectorText(`jcs/input/${file}`)), value)
    })
  }
})

describe("RFC 8785, values kept here", () => {
  it("sorts by UTF-16 units and writes numbers and escapes in the one way (3.2.2 and 3.2.3)", () => {
    const text = String.raw`{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh",
      "1":"One","\ud83d\ude00":"Emoji","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis",
      "numbers":[333333333.33333329,4.50,2e-3,0.000000000000000000000000001,-0],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/"}`
    assert.strictEqual(
      new TextDecoder().decode(canonicalBytes(valueOf(text))),
      '{"\\r":"Carriage Return","1":"One","numbers":[333333333.3333333,4.5,0.002,1e-27,0],' +
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/","\u0080":"Control","ö":"Latin Small Letter O With Diaeresis",' +
        '"€":"Euro Sign","😀":"Emoji","\ufb33":"Hebrew Letter Dalet With Dagesh"}'
    )
  })
})

describe("strict reading", () => {
  it("reads what JSON.parse reads, for every value", () => {
    fc.assert(
      fc.property(jsonValue, fc.constantFrom(undefined, 1, "\t"), (value, indent) => {
        assert.deepStrictEqual(
          valueOf(JSON.stringify(value, null, indent)),
          JSON.parse(JSON.stringify(value))
        )
      })
    )
  })

  it("takes nothing that JSON.parse refuses", () => {
    const text = fc.array(
      fc.constantFrom(
        "{",
        "}",
        "[",
        "]",
        '"',
        ":",
        ",",
        "1",
        "-",
        "0",
        ".",
        "e",
        "+",
        "\\",
        "u00",
        "tr",
        "ue",
        "null",
        " ",
        "\u0000"
      ),
      { maxLength: 10 }
    )
    fc.assert(
      fc.property(text, (parts) => {
        const candidate = parts.join("")
        const result = parseStrict(utf8(candidate))
        if (Result.isSuccess(result)) assert.deepStrictEqual(result.success, JSON.parse(candidate))
      }),
      { numRuns: 3000 }
    )
  })

  it("refuses what is not JSON", () => {
    for (const text of [
      "",
      " ",
      "{",
      "[1",
      '{"a"}',
      '{"a":}',
      '{"a":1,}',
      "[1,]",
      "[,1]",
      "{a:1}",
      "'a'",
      '"a',
      '"\\',
      '"\\x"',
      '"\\u12"',
      '"a\nb"',
      "01",
      "+1",
      "1.",
      ".5",
      "1e",
      "-",
      "NaN",
      "Infinity",
      "undefined",
      "tru",
      "nulll",
      "1 2",
      "{} {}",
      "// c\n1",
      "\ufeff1",
      "1\u00a0",
      '{"a":1 "b":2}',
      '{"a":1}}',
      "[1]]",
      "{1:2}",
      '{"a",1}'
    ]) {
      assert.strictEqual(reasonOf(text), "syntax", JSON.stringify(text))
    }
  })

  it("refuses the same key twice, however it is spelled", () => {
    assert.strictEqual(reasonOf('{"a":1,"b":2,"a":1}'), "duplicate_key")
    assert.strictEqual(reasonOf('{"a":1,"\\u0061":2}'), "duplicate_key")
    assert.strictEqual(reasonOf('{"x":{"__proto__":1,"__proto__":2}}'), "duplicate_key")
    assert.strictEqual(reasonOf('{"a":{"b":1},"b":{"a":1}}'), "accepted")
  })

  it("keeps __proto__ a member and the prototype clean", () => {
    const value = valueOf('{"__proto__":{"polluted":true},"toString":1}') as Record<string, unknown>
    assert.deepStrictEqual(Object.keys(value), ["__proto__", "toString"])
    assert.strictEqual(Object.getPrototypeOf(value), Object.prototype)
    assert.isUndefined(value["polluted"])
    assert.deepStrictEqual(canonicalBytes(value), utf8('{"__proto__":{"polluted":true},"toString":1}'))
  })

  it("refuses lone surrogates in values and keys, and takes pairs", () => {
    assert.strictEqual(reasonOf('"\\ud83d"'), "lone_surrogate")
    assert.strictEqual(reasonOf('"\\ude00\\ud83d"'), "lone_surrogate")
    assert.strictEqual(reasonOf('{"\\ud83d":1}'), "lone_surrogate")
    assert.strictEqual(valueOf('"\\ud83d\\ude00"'), "😀")
  })

  it("refuses numbers that cannot be held exactly", () => {
    for (const text of [
      "9007199254740992",
      "-9007199254740992",
      "1e16",
      "1e400",
      "-1e400",
      "123456789012345678901"
    ]) {
      assert.strictEqual(reasonOf(text), "unsafe_number", text)
    }
    assert.strictEqual(valueOf("9007199254740991"), Number.MAX_SAFE_INTEGER)
    assert.strictEqual(valueOf("-9007199254740991"), Number.MIN_SAFE_INTEGER)
    assert.strictEqual(valueOf("1.5e3"), 1500)
  })

  it("refuses broken UTF-8", () => {
    for (const bytes of ["22ff22", "22c0af22", "22eda08022", "22f4908080 22", "22e282"]) {
      assert.strictEqual(reasonOf(hex(bytes)), "encoding", bytes)
    }
  })

  it("refuses what is nested too deeply or too large, at the very bound", () => {
    const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth)
    assert.strictEqual(reasonOf(nested(Limits.jsonDepth)), "accepted")
    assert.strictEqual(reasonOf(nested(Limits.jsonDepth + 1)), "too_deep")
    assert.strictEqual(reasonOf('{"a":'.repeat(40) + "1" + "}".repeat(40)), "too_deep")
    assert.strictEqual(reasonOf('{"a":[1]}', { maximumDepth: 1 }), "too_deep")
    assert.strictEqual(reasonOf('{"a":[1]}', { maximumDepth: 2 }), "accepted")
    assert.strictEqual(reasonOf("1", { maximumDepth: 0 }), "accepted")
    const long = (length: number) => `"${"x".repeat(length - 2)}"`
    assert.strictEqual(reasonOf(long(Limits.envelopeBytes)), "accepted")
    assert.strictEqual(reasonOf(long(Limits.envelopeBytes + 1)), "too_large")
    assert.strictEqual(reasonOf(long(100_000), { maximumBytes: 100_000 }), "accepted")
  })
})

describe("canonical reading", () => {
  const judge = (text: string) => {
    const result = parseCanonical(utf8(text))
    return Result.isFailure(result) ? result.failure.reason : "accepted"
  }

  it("takes back what canonicalBytes wrote", () => {
    fc.assert(
      fc.property(jsonValue, (value) => {
        const bytes = canonicalBytes(value)
        const back = Result.getOrThrow(parseCanonical(bytes))
        assert.deepStrictEqual(canonicalBytes(back), bytes)
      })
    )
  })

  it("refuses every other spelling of the same value", () => {
    assert.strictEqual(judge('{"a":1,"b":[true,null]}'), "accepted")
    for (const text of [
      '{"b":[true,null],"a":1}',
      '{"a":1, "b":[true,null]}',
      '{"a":1,"b":[true,null]}\n',
      ' {"a":1}',
      '{"a":1.0}',
      '{"a":1e0}',
      '{"a":-0}',
      '{"\\u0061":1}',
      '"\\/"',
      '"\\u000A"',
      '"\\u00e4"',
      "0.10",
      "1E3"
    ]) {
      assert.strictEqual(judge(text), "not_canonical", text)
    }
  })

  it("no turned bit leaves the same value", () => {
    const bytes = canonicalBytes({ type: "postern/order/v1", counter: 7, list: ["a", "ä", null, true] })
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const result = parseCanonical(flipBit(bytes, bit))
      if (Result.isSuccess(result)) assert.notDeepEqual(canonicalBytes(result.success), bytes)
    }
  })
})

describe("canonical writing", () => {
  it("refuses what could not be read back", () => {
    const ring: Record<string, unknown> = {}
    ring["self"] = ring
    const deep = Array.from({ length: 30 }).reduce<unknown>((inner) => [inner], 1)
    for (const value of [
      undefined,
      Number.NaN,
      Infinity,
      2 ** 53,
      "\ud83d",
      { a: "\ude00" },
      1n,
      () => 1,
      ring,
      deep
    ]) {
      assert.throws(() => canonicalBytes(value), TypeError)
    }
  })

  it("leaves out undefined members", () => {
    assert.deepStrictEqual(canonicalBytes({ b: undefined, a: 1 }), utf8('{"a":1}'))
  })
})

describe("the quick way", () => {
  /** Values that need the slow way, or are refused by it, among others. */
  const odd = fc.oneof(
    jsonValue,
    fc.constantFrom<unknown>(
      undefined,
      -0,
      Number.NaN,
      2 ** 53,
      1e300,
      "\ud800",
      new Date(0),
      { toJSON: "no function" },
      { toJSON: () => 1 },
      [undefined],
      { a: undefined, b: 1 },
      new Map(),
      Object.create(null)
    )
  )
  const value = fc.oneof(
    odd,
    fc.array(odd, { maxLength: 3 }),
    fc.dictionary(fc.constantFrom("__proto__", "a", "b", "\u20ac", "\ud83d\ude00", "\ufb33", "\ud83d"), odd)
  )

  it("writes what the library writes, where that can be read back", () => {
    fc.assert(
      fc.property(value, (one) => {
        const plain = plainText(one, Limits.jsonDepth)
        if (plain === undefined) return
        assert.strictEqual(plain, canonicalize(one))
        assert.strictEqual(reasonOf(plain), "accepted")
      }),
      { numRuns: 300 }
    )
  })

  it("is taken by every plain value, and holds to the depth", () => {
    fc.assert(
      fc.property(jsonValue, (one) => {
        assert.strictEqual(plainText(one, Limits.jsonDepth), canonicalize(one))
      })
    )
    const nested = (depth: number): unknown => (depth === 0 ? 1 : { a: nested(depth - 1) })
    assert.isDefined(plainText(nested(Limits.jsonDepth), Limits.jsonDepth))
    assert.isUndefined(plainText(nested(Limits.jsonDepth + 1), Limits.jsonDepth))
    assert.throws(() => canonicalBytes(nested(Limits.jsonDepth + 1)), TypeError)
  })

  it("reads a canonical document as the strict reader does, and refuses what that refuses", () => {
    const text = fc.oneof(
      fc.jsonValue({ maxDepth: 3 }).map((one) => canonicalize(one) ?? ""),
      fc.jsonValue({ maxDepth: 3 }).map((one) => JSON.stringify(one)),
      fc.constantFrom(
        '{"a":1,"a":1}',
        "-0",
        "9007199254740993",
        '"\\ud800"',
        '{"b":1,"a":2}',
        "[1, 2]",
        "1e400",
        '{"__proto__":{"a":1}}',
        "\ufeff1",
        "null"
      )
    )
    fc.assert(
      fc.property(text, (one) => {
        const [quick, slow] = [parseCanonical(utf8(one)), parseStrict(utf8(one))]
        if (Result.isFailure(quick)) {
          const reason = Result.isFailure(slow) ? slow.failure.reason : "not_canonical"
          assert.strictEqual(quick.failure.reason, reason)
        } else assert.deepStrictEqual(quick.success, Result.getOrThrow(slow))
      }),
      { numRuns: 300 }
    )
  })
})
