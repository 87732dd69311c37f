import { execFile } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"

const root = join(import.meta.dirname, "../..")

let folder = ""

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "postern-summary-test-"))
  mkdirSync(join(folder, "test"))
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"))
})

afterEach(() => rmSync(folder, { recursive: true, force: true }))

/** Runs vitest on the given test files with our reporter alone and gives what it counted. */
const summaryOf = async (files: Record<string, string>): Promise<unknown> => {
  for (const [name, text] of Object.entries(files)) {
    writeFileSync(join(folder, "test", name), `import { expect, it, beforeAll } from "vitest"\n${text}\n`)
  }
  const report = join(folder, "summary.json")
  const args = ["run", "--root", folder, "--reporter", join(root, "scripts/summary-reporter.ts")]
  await new Promise((resolve) => {
    const env = { ...process.env, POSTERN_SUMMARY_FILE: report, VITEST: "" }
    execFile(process.execPath, [join(root, "node_modules/vitest/vitest.mjs"), ...args], { env }, resolve)
  })
  return JSON.parse(readFileSync(report, "utf8"))
}

const passing = 'it("passes", () => expect(1).toBe(1))'

describe("the summary of a test run", () => {
  it("counts what passed, failed and was skipped", async () => {
    const failing = 'it("fails", () => expect(1).toBe(2))'
    const skipping = 'it("is skipped", (context) => context.skip())'
    expect(await summaryOf({ "a.test.ts": `${passing}\n${failing}`, "b.test.ts": skipping })).toEqual({
      passed: 1,
      failed: 1,
      skipped: 1,
      failedFiles: [expect.stringMatching(/a\.test\.ts$/)],
      unhandled: 0
    })
  })

  it("counts a file that cannot be loaded, a failing hook and an unhandled error as failures", async () => {
    const files = {
      "broken.test.ts": 'throw new Error("broken")',
      "hook.test.ts": `beforeAll(() => { throw new Error("hook") })\n${passing}`,
      "stray.test.ts": `${passing}\nvoid Promise.reject(new Error("stray"))`
    }
    expect(await summaryOf(files)).toEqual({
      passed: 1,
      failed: 3,
      skipped: 1,
      failedFiles: ["broken", "hook"].map((name) => expect.stringContaining(`${name}.test.ts`)),
      unhandled: 1
    })
  })
})
