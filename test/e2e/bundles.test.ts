import { execFile } from "node:child_process"
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { describeWith, runtimePath } from "../support/requires.ts"

const root = join(import.meta.dirname, "../..")
const read = (path: string) => JSON.parse(readFileSync(join(root, path), "utf8"))
const version: string = read("package.json").version

/** Every program; those whose entry is still to be written are not in dist/. */
const programs: ReadonlyArray<string> = read("scripts/programs.json")
  .filter((program: { entry: string }) => existsSync(join(root, program.entry)))
  .map((program: { name: string }) => program.name)

interface Ended {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

const run = (node: string, args: ReadonlyArray<string>, cwd: string): Promise<Ended> =>
  new Promise((resolve) => {
    const options = { cwd, env: { PATH: "/usr/bin:/bin", HOME: cwd }, timeout: 20_000 }
    execFile(node, args, options, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr })
    })
  })

it("dist/ holds every program whose entry is written", () => {
  expect(programs.filter((name) => !existsSync(join(root, "dist", `${name}.js`)))).toEqual([])
})

describe.each(programs)("dist/%s.js, copied alone", (name) => {
  let folder = ""
  let file = ""

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), `postern-${name}-`))
    file = join(folder, `${name}.js`)
    copyFileSync(join(root, "dist", `${name}.js`), file)
  })

  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  const behavesUnder = (node: string): void => {
    it("tells its version and nothing else", async () => {
      const ended = await run(node, [file, "--version"], folder)
      expect(ended).toMatchObject({ code: 0, stderr: "" })
      expect(ended.stdout).toContain(version)
    })

    it("helps", async () => {
      const ended = await run(node, [file, "--help"], folder)
      expect(ended).toMatchObject({ code: 0, stderr: "" })
      expect(ended.stdout).toMatch(/usage/i)
    })

    it("exits 2 on an unknown flag, and names it", async () => {
      const ended = await run(node, [file, "--no-such-flag"], folder)
      expect(ended.code).toBe(2)
      expect(ended.stderr + ended.stdout).toContain("no-such-flag")
    })
  }

  describe("under this Node", () => behavesUnder(process.execPath))
  describeWith(["oldest-node"], "under the oldest Node that we support", () =>
    behavesUnder(runtimePath("oldest-node"))
  )

  describeWith(["ancient-node"], "under a Node that is too old", () => {
    it("says so in one line and exits 78", async () => {
      const ended = await run(runtimePath("ancient-node"), [file, "--version"], folder)
      expect(ended).toMatchObject({ code: 78, stdout: "" })
      expect(ended.stderr).toMatch(/^postern \w+ needs Node 22\.19 or newer, and this is Node 12[^\n]*\n$/)
    })
  })
})
