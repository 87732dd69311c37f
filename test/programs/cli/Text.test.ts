import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import {
  parseDuration,
  parseSize,
  properties,
  showAge,
  showCommand,
  showDuration,
  showSize,
  showTime,
  table,
  visible,
  visibleLines
} from "../../../src/programs/cli/Text.ts"

describe("text for people", () => {
  it("makes every character visible that a terminal may obey", () => {
    assert.strictEqual(
      visible("a\u001b[2Jb\r\nc\u009bd\u202ee\u2028f"),
      "a\\x1b[2Jb\\x0d\\x0ac\\x9bd\\u{202e}e\\u{2028}f"
    )
    assert.strictEqual(visibleLines("a\n\tb\u0007"), "a\n\tb\\x07")
    fc.assert(
      fc.property(
        fc.string({ unit: "binary" }),
        (text) => !/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u.test(visible(text))
      )
    )
  })

  it("leaves ordinary text alone, accents and other scripts too", () => {
    for (const text of ["uname -a", "Grüße", "温度 21 °C", ""]) assert.strictEqual(visible(text), text)
  })

  it("aligns columns by characters, without trailing blanks", () => {
    assert.strictEqual(
      table(
        ["A", "LONG"],
        [
          ["grün", "1"],
          ["x", ""]
        ]
      ),
      "A     LONG\ngrün  1\nx\n"
    )
    assert.strictEqual(
      properties([
        ["a", "1"],
        ["long", "2"]
      ]),
      "a:    1\nlong: 2\n"
    )
  })

  it("reads durations and refuses what is none", () => {
    const cases = { "500ms": 500, "90s": 90_000, "10m": 600_000, "2h": 7_200_000, "7d": 604_800_000, "0s": 0 }
    for (const [text, ms] of Object.entries(cases)) assert.strictEqual(parseDuration(text), ms)
    for (const text of ["", "5", "s", "1.5h", "-1s", "1 s", "1w", "9999999999s"]) {
      assert.isUndefined(parseDuration(text), text)
    }
  })

  it("shows durations in two units at most", () => {
    const cases = [
      [250, "250 ms"],
      [1_500, "1.5 s"],
      [60_000, "1m"],
      [90_000, "1m 30s"],
      [3_600_000, "1h"],
      [90_061_000, "1d 1h"]
    ] as const
    for (const [ms, text] of cases) assert.strictEqual(showDuration(ms), text)
    assert.strictEqual(showAge(1_000, 61_000), "1m ago")
    assert.strictEqual(showAge(61_000, 1_000), "in 1m")
    assert.strictEqual(showTime(1_714_566_605_123), "2024-05-01 12:30:05Z")
  })

  it("reads sizes and refuses what is none", () => {
    const cases = {
      "0": 0,
      "512": 512,
      "64K": 65_536,
      "64k": 65_536,
      "1MiB": 1_048_576,
      "2G": 2 ** 31,
      "3B": 3
    }
    for (const [text, bytes] of Object.entries(cases)) assert.strictEqual(parseSize(text), bytes)
    for (const text of ["", "K", "1.5M", "-1", "1T", "999999999999G"])
      assert.isUndefined(parseSize(text), text)
  })

  it("shows sizes", () => {
    const cases = [
      [0, "0 B"],
      [1023, "1023 B"],
      [1024, "1 KiB"],
      [1536, "1.5 KiB"],
      [256 * 1024 * 1024, "256 MiB"],
      [5 * 1024 ** 4, "5120 GiB"]
    ] as const
    for (const [bytes, text] of cases) assert.strictEqual(showSize(bytes), text)
  })

  it("shows a command as it would be typed, and nothing that a terminal obeys", () => {
    assert.strictEqual(showCommand(["sh", "-c", "echo 'a b'; ls"]), `sh -c 'echo '\\''a b'\\''; ls'`)
    assert.strictEqual(showCommand(["echo", "\u001b[31m"]), "echo '\\x1b[31m'")
  })
})
