import { describe, expect, it } from "vitest"
import { lineOf, nearest } from "../../src/adapters/ConfigSlips.ts"

describe("the key that was meant", () => {
  const keys = ["port", "host", "long_poll_ms", "sleep_minimum_ms", "sleep_maximum_ms"]
  it.each([
    ["prot", "port"],
    ["long-poll-ms", "long_poll_ms"],
    ["LONG_POLL_MS", "long_poll_ms"],
    ["longpoll_ms", "long_poll_ms"],
    ["sleep_minimun_ms", "sleep_minimum_ms"],
    ["ports", "port"]
  ])("is found for %s", (typed, meant) => expect(nearest(typed, keys)).toBe(meant))

  it.each(["colour", "", "p", "x".repeat(10_000)])("is not guessed for %#", (typed) =>
    expect(nearest(typed, keys)).toBeUndefined()
  )
})

describe("the line of a key", () => {
  const text = `# port = 0
port = 1
[job_limits]
timeout_ms = 2

[ grants ]
"devices" = []
retention.days = 3
["odd.name"]
x = 1
`
  it.each([
    [["port"], 2],
    [["job_limits", "timeout_ms"], 4],
    [["job_limits", "unset"], 3],
    [["grants", "devices"], 7],
    [["grants", "retention", "days"], 8],
    [["grants"], 6],
    [["host"], undefined]
  ])("of %j is %s", (path, line) => expect(lineOf(text, path)).toBe(line))
})
