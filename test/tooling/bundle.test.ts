import { execFile } from "node:child_process"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { bundle } from "../../scripts/lib/bundle.ts"
import { describeWith, runtimePath } from "../support/requires.ts"

const root = join(import.meta.dirname, "../..")

interface Ended {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

const run = (node: string, args: ReadonlyArray<string>): Promise<Ended> =>
  new Promise((resolve) => {
    execFile(node, args, { cwd: "/", env: { PATH: "/usr/bin:/bin" } }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr })
    })
  })

const answer = { answer: { doubled: 42, one: 1 }, one: 1, file: "trial.js", strict: true }

describe("a bundled program, copied alone", () => {
  const folder = mkdtempSync(join(tmpdir(), "postern-bundle-"))
  const alone = join(folder, "alone/trial.js")
  const belowModulePackage = join(folder, "module/trial.js")

  beforeAll(async () => {
    const { text } = await bundle(root, { name: "trial", entry: "test/tooling/fixtures/trial.ts" })
    for (const path of [alone, belowModulePackage]) {
      mkdirSync(join(path, ".."), { recursive: true })
      writeFileSync(path, text)
    }
    writeFileSync(join(folder, "module/package.json"), '{ "type": "module" }')
  })

  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  const runsUnder = (node: string): void => {
    it("runs, its worker too, and prints no stray warning", async () => {
      const ended = await run(node, [alone])
      expect(ended.stderr).toBe("")
      expect(JSON.parse(ended.stdout)).toEqual(answer)
    })

    it("runs below a package.json that makes .js files ES modules", async () => {
      const ended = await run(node, [belowModulePackage])
      expect(ended.stderr).toBe("")
      expect(JSON.parse(ended.stdout)).toEqual(answer)
    })

    it("hides no other warning", async () => {
      const ended = await run(node, [alone, "--warn"])
      expect(ended.stderr).toContain("ExperimentalWarning: something else")
    })
  }

  describe("under this Node", () => runsUnder(process.execPath))
  describeWith(["oldest-node"], "under the oldest Node that we support", () =>
    runsUnder(runtimePath("oldest-node"))
  )

  describeWith(["ancient-node"], "under a Node that is too old", () => {
    it.each([alone, belowModulePackage])("says so in one line and exits 78: %s", async (path) => {
      const ended = await run(runtimePath("ancient-node"), [path])
      expect(ended.stderr).toMatch(
        /^postern trial needs Node 22\.19 or newer, and this is Node 12\.22\.12: \S+\n$/
      )
      expect(ended).toMatchObject({ code: 78, stdout: "" })
    })
  })
})

describe("a program with a part for its threads", () => {
  const folder = mkdtempSync(join(tmpdir(), "postern-bundle-"))
  const program = { name: "trial", entry: "test/tooling/fixtures/trial.ts" }
  const thread = "test/tooling/fixtures/trialThread.ts"
  const firstLineOf = async (parts: object): Promise<unknown> => {
    const path = join(folder, "trial.js")
    const { text } = await bundle(root, { ...program, ...parts })
    expect(text).toMatch(/^[\0-\x7f]*$/)
    writeFileSync(path, text)
    const { code, stderr, stdout } = await run(process.execPath, [path])
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
    return stdout === "" ? undefined : JSON.parse(stdout)
  }

  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it("evaluates it in the thread, and the program itself in the main one", async () => {
    expect(await firstLineOf({ thread })).toEqual({ ...answer, answer: "only the thread’s part … 😀" })
  })

  it("evaluates the program everywhere where neither part stays", async () => {
    expect(await firstLineOf({ thread: "test/tooling/fixtures/never.ts" })).toEqual(answer)
  })

  it("evaluates nothing else where the first part stays", async () => {
    expect(await firstLineOf({ first: "test/tooling/fixtures/always.ts", thread })).toBeUndefined()
  })
})
