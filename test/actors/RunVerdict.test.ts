import { describe, expect, it } from "@effect/vitest"
import { plainText } from "../../src/actors/PlainText.ts"
import { bytesDone, progressRhythm, progressVersion, stepInto } from "../../src/actors/Progress.ts"
import { judgeRun, refuseByAllowance } from "../../src/actors/RunVerdict.ts"
import type { JailOutcome, JailResult } from "../../src/schemas/JailProfile.ts"
import { defaultJobLimits, type JobLimits } from "../../src/schemas/Manifest.ts"
import type { StopReason } from "../../src/schemas/protocols/Lane.ts"
import { manifestOf, orderId } from "./support/Parties.ts"

const manifest = manifestOf({ script: ["exit:0"], artifacts: ["a", "b"] })

const ended = (outcome: JailOutcome, left: ReadonlyArray<string> = ["a", "b"]): JailResult => ({
  outcome,
  usage: { wall_ms: 1, cpu_ms: null, peak_memory_bytes: null },
  output: {
    stdout: { seen_bytes: 0, kept_bytes: 0 },
    stderr: { seen_bytes: 0, kept_bytes: 0 },
    truncated: false
  },
  artifacts: left.map((path) => ({
    path: path as never,
    size_bytes: 1,
    executable: false,
    host_path: `/${path}`
  })),
  refused_artifacts: [],
  refused_artifact_count: 0
})

const canceled: JailOutcome = { _tag: "Canceled", killed: true }
const broken: JailOutcome = { _tag: "EngineFailed", reason: "engine_killed", detail: "gone" }

describe("the verdict on a run", () => {
  const cases: ReadonlyArray<readonly [string, JailOutcome, StopReason | null, object]> = [
    ["exit 0", { _tag: "Exited", code: 0 }, null, { state: "succeeded", reason: null, exitCode: 0 }],
    ["exit 9", { _tag: "Exited", code: 9 }, null, { state: "failed", reason: "exit_code", exitCode: 9 }],
    [
      "a signal",
      { _tag: "Signaled", signal: "SIGSEGV", code: 139 },
      null,
      { state: "failed", reason: "signal", signal: "SIGSEGV" }
    ],
    ["the time-out", { _tag: "TimedOut", killed: true }, null, { state: "timed_out", reason: "timed_out" }],
    ["a cancel", canceled, "canceled_by_operator", { state: "canceled", reason: "canceled_by_operator" }],
    [
      "a stop by the server",
      canceled,
      "stopped_by_server",
      { state: "canceled", reason: "stopped_by_server" }
    ],
    ["the program's end", canceled, "device_stopped", { state: "interrupted", reason: "device_stopped" }],
    [
      "a broken engine",
      broken,
      null,
      { state: "failed", reason: "jail_failed", detail: "engine_killed: gone" }
    ],
    [
      "a command that is not there",
      { _tag: "EngineFailed", reason: "command_not_started", detail: "bwrap: execvp nonsense" },
      null,
      { state: "failed", reason: "command_not_started", detail: "bwrap: execvp nonsense" }
    ],
    [
      "an engine killed by the program's end",
      broken,
      "device_stopped",
      { state: "interrupted", reason: "device_stopped" }
    ],
    [
      "exit 0 just before a cancel",
      { _tag: "Exited", code: 0 },
      "canceled_by_operator",
      { state: "succeeded" }
    ]
  ]
  it.each(cases)("after %s", (_name, outcome, stop, expected) => {
    expect(judgeRun(manifest, ended(outcome), stop)).toMatchObject(expected)
  })
  it("names the first promised file that is missing", () => {
    expect(judgeRun(manifest, ended({ _tag: "Exited", code: 0 }, ["a"]), null)).toMatchObject({
      state: "failed",
      reason: "artifact_missing",
      detail: "b",
      exitCode: 0
    })
  })
  it("does not ask a failed command for its files", () => {
    expect(judgeRun(manifest, ended({ _tag: "Exited", code: 1 }, []), null)).toMatchObject({
      reason: "exit_code"
    })
  })
})

describe("a device's allowance", () => {
  const nothing = { devices: [], read_only: [] }
  it("lends nothing that it does not name", () => {
    const asks = manifestOf({ script: [], grants: { devices: ["camera"], read_only: ["/srv/data"] } })
    expect(refuseByAllowance(asks, { grants: nothing, limits: {} })).toMatchObject({
      code: "grant_refused",
      detail: "the device camera"
    })
    expect(
      refuseByAllowance(asks, { grants: { devices: ["camera"], read_only: [] }, limits: {} })
    ).toMatchObject({ detail: "the path /srv/data" })
    expect(
      refuseByAllowance(asks, { grants: { devices: ["camera"], read_only: ["/srv/data"] }, limits: {} })
    ).toBeNull()
  })
  it.each(Object.keys(defaultJobLimits) as Array<keyof JobLimits>)("bounds %s", (name) => {
    const asks = manifestOf({ script: [] })
    const own = asks.limits[name]
    expect(refuseByAllowance(asks, { grants: nothing, limits: { [name]: own } })).toBeNull()
    expect(refuseByAllowance(asks, { grants: nothing, limits: { [name]: own - 1 } })).toMatchObject({
      code: "limit_refused"
    })
  })
})

describe("progress", () => {
  it("rises with every step and every byte", () => {
    const queued = stepInto(orderId(1), "queued", 0, 0)
    const downloading = stepInto(orderId(1), "downloading", 1, 0)
    const half = bytesDone(downloading, 1, 50, 100, 0)
    const whole = bytesDone(downloading, 1, 100, 100, 0)
    const verifying = stepInto(orderId(1), "verifying", 2, 0)
    const versions = [queued, downloading, half, whole, verifying].map((step) => step.version)
    expect([...new Set(versions)].sort((a, b) => a - b)).toEqual(versions)
    expect(progressVersion(3, 0, 0)).toBe(3_000)
  })
})

describe("the rhythm of progress", () => {
  it("is quick in the beginning, slow in the long run, and never keeps a step back", () => {
    const due = progressRhythm()
    const step = stepInto(orderId(1), "downloading", 1, 0)
    const told: Array<number> = []
    expect(due(step)).toBe(true)
    for (let atMs = 100; atMs <= 3_600_000; atMs += 100)
      if (due(bytesDone(step, 1, atMs, 4_000_000, atMs))) told.push(atMs)
    expect(told[0]).toBe(1_000)
    expect(told.filter((atMs) => atMs <= 10_000).length).toBeGreaterThanOrEqual(6)
    // An hour costs little more than two reports a minute.
    expect(told.length).toBeLessThan(140)
    expect(Math.max(...told.map((atMs, index) => atMs - (told[index - 1] ?? 0)))).toBeLessThanOrEqual(30_100)
    expect(due(stepInto(orderId(1), "verifying", 2, 3_600_100))).toBe(true)
  })
})

describe("plain text", () => {
  it("has nothing that a terminal or a schema would stumble over", () => {
    expect(plainText("a\u001b[31mb\r\nc\u202ed\u0000", 100)).toBe("a [31mb c d")
    expect(plainText("x".repeat(400), 300)).toHaveLength(300)
    // Not through the middle of a character.
    const cut = plainText("😀".repeat(10), 6)
    expect(cut.isWellFormed()).toBe(true)
    expect(cut.length).toBeLessThanOrEqual(6)
  })
})
