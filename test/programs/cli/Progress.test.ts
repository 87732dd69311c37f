import { assert, describe, it } from "@effect/vitest"
import { type JobProgress, progressText, restMs } from "../../../src/programs/cli/Progress.ts"

const mebibyte = 1024 * 1024
const halfway: JobProgress = {
  state: "downloading",
  done_bytes: 10 * mebibyte,
  total_bytes: 20 * mebibyte,
  bytes_per_second: mebibyte
}

describe("a download in words", () => {
  it("says how far it is, how fast it goes and how long the rest takes", () => {
    assert.strictEqual(progressText(halfway), "downloading 50 % of 20 MiB, 1 MiB/s, 10 s left")
  })

  it("leaves out what is not known", () => {
    assert.strictEqual(progressText({ ...halfway, bytes_per_second: null }), "downloading 50 % of 20 MiB")
    assert.strictEqual(progressText({ ...halfway, bytes_per_second: 0 }), "downloading 50 % of 20 MiB, 0 B/s")
    assert.strictEqual(progressText({ ...halfway, state: "running", done_bytes: null }), "running")
    assert.isNull(restMs({ ...halfway, bytes_per_second: 0 }))
  })

  it("says that its figures are old when no news came for long", () => {
    assert.strictEqual(progressText(halfway, 300_000), "downloading 50 % of 20 MiB, no news for 5m")
  })
})
