/** What `npm run proof -- --again` makes of proofs that fail, with a test runner that does as it is told. */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest"

const tasksModule = join(import.meta.dirname, "../../scripts/lib/tasks.mjs")

interface Run {
  readonly failedFiles: ReadonlyArray<string>
  readonly unhandled?: number
}

let folder = ""
let printed = ""

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "postern-proof-"))
  printed = ""
  const take = (text: string | Uint8Array): boolean => {
    printed += String(text)
    return true
  }
  vi.spyOn(process.stdout, "write").mockImplementation(take)
  vi.spyOn(process.stderr, "write").mockImplementation(take)
})
afterEach(() => {
  vi.restoreAllMocks()
  rmSync(folder, { recursive: true, force: true })
})

/** Runs the task with runs that end so, one after the other. Gives its exit code and the arguments of each run. */
const proof = async (args: ReadonlyArray<string>, ...runs: ReadonlyArray<Run>) => {
  for (const [index, { failedFiles, unhandled = 0 }] of runs.entries()) {
    const failed = failedFiles.length + unhandled
    const summary = { passed: 7, failed, skipped: 0, failedFiles, unhandled }
    writeFileSync(join(folder, `summary-${index + 1}`), JSON.stringify(summary))
  }
  const runner = join(folder, "runner")
  writeFileSync(
    runner,
    `#!/bin/sh
echo "$@" >> ${folder}/calls
summary=${folder}/summary-$(wc -l < ${folder}/calls)
cp "$summary" "$POSTERN_SUMMARY_FILE"
grep -q '"failed":0' "$summary"
`
  )
  chmodSync(runner, 0o755)
  const { tasks } = await import(tasksModule)
  const code: number = await tasks.proof.run({ node: { path: runner }, env: process.env }, args)
  return { code, calls: readFileSync(join(folder, "calls"), "utf8").trimEnd().split("\n") }
}

describe("proofs that fail", () => {
  const one = { failedFiles: ["test/proof/One.test.ts"] }
  const good = { failedFiles: [] }

  it("are not run again unless that is asked for", async () => {
    expect(await proof([], one, good)).toMatchObject({ code: 1, calls: [expect.any(String)] })
  })

  it("are run again alone, and told of when they pass then", async () => {
    const { calls, code } = await proof(["--again"], one, good)
    expect(code).toBe(0)
    expect(calls[1]).toMatch(/ run test\/proof\/One\.test\.ts$/)
    expect(printed).toContain("passed the second time only, look into it: test/proof/One.test.ts")
  })

  it("have failed when they fail twice", async () => {
    expect((await proof(["--again"], one, one)).code).toBe(1)
    expect(printed).toContain("failed twice: test/proof/One.test.ts")
  })

  it("have failed when they are many, or something failed beside them", async () => {
    const many = { failedFiles: ["a", "b", "c"] }
    expect(await proof(["--again"], many, good)).toMatchObject({ code: 1, calls: [expect.any(String)] })
    rmSync(join(folder, "calls"))
    const stray = { ...one, unhandled: 1 }
    expect(await proof(["--again"], stray, good)).toMatchObject({ code: 1, calls: [expect.any(String)] })
  })
})
