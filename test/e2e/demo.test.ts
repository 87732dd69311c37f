/** The newcomer's first minute: the demo as it is shipped. */
import { spawn } from "node:child_process"
import { chmodSync, cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { runToEnd, waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"

const demo = join(import.meta.dirname, "../../dist/demo.js")

let folder = ""

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "postern-demo-test-"))
  // As /tmp is: a client that root starts becomes another user, who must get to its state.
  chmodSync(folder, 0o711)
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const environment = (extra: Readonly<Record<string, string>> = {}) => ({
  PATH: "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
  HOME: folder,
  TMPDIR: folder,
  LANG: "C.UTF-8",
  ...extra
})

const run = (args: ReadonlyArray<string>, extra?: Readonly<Record<string, string>>, program = demo) =>
  runToEnd([process.execPath, program, ...args], {
    cwd: folder,
    environment: environment(extra),
    timeoutMs: 200_000
  })

/** Processes whose command line names the demo's folder. */
const left = (): ReadonlyArray<string> =>
  readdirSync("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return []
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ")
      return command.includes(`${folder}/postern-demo-`) ? [command] : []
    } catch {
      return []
    }
  })

describeWith(["jail"], "the demo", () => {
  it("does the main job, shows the verified receipt and the artifact, and leaves nothing behind", async () => {
    const ended = await run([])
    expect(ended.code, ended.stdout + ended.stderr).toBe(0)
    for (const step of [
      "1. A server",
      "2. An operator",
      "3. A device",
      "4. A work package",
      "5. The run",
      "6. The receipt",
      "7. The artifact",
      "8. Two agents"
    ]) {
      expect(ended.stdout).toContain(`\n${step}\n`)
    }
    expect(ended.stdout).toContain("\nverified\n")
    expect(ended.stdout).toMatch(
      /day,rows,minimum,mean,maximum,standard_deviation\n2026-03-02,288,15\.770,19\.456,23\.260,/
    )
    for (const level of ["public", "protected", "private", "end_to_end"])
      expect(ended.stdout).toMatch(new RegExp(`^\\d{4}-\\S+ \\S+ +${level} +pi-demo`, "m"))
    expect(ended.stdout).toContain("\npi-attic: 1 ping, 0 lost, ")
    expect(ended.stdout).toContain("Try next:")
    expect(readdirSync(folder)).toEqual([])
    expect(left()).toEqual([])
  })

  it("takes a series of one's own, and runs where no other user may enter the repository", async () => {
    const data = join(folder, "series.csv")
    writeFileSync(data, "1500914563,20.0\n1500914568,22.0\n1501000963,10\n")
    const home = join(folder, "home")
    cpSync(join(demo, ".."), home, { recursive: true })
    chmodSync(home, 0o700)
    const ended = await run(["--data", data], {}, join(home, "demo.js"))
    expect(ended.code, ended.stdout + ended.stderr).toBe(0)
    expect(ended.stdout).toContain(
      "2017-07-24,2,20.000,21.000,22.000,1.000\n2017-07-25,1,10.000,10.000,10.000,0.000\n"
    )
  })

  it.each([["1. A server"], ["2. An operator"], ["3. A device"], ["4. A work package"], ["8. Two agents"]])(
    "stops everything when Ctrl-C comes in step %s",
    async (heading) => {
      const child = spawn(process.execPath, [demo], {
        cwd: folder,
        env: environment(),
        stdio: ["ignore", "pipe", "pipe"]
      })
      let shown = ""
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding("utf8").on("data", (text) => {
          shown += text
        })
      }
      const closed = new Promise<number | null>((resolve) => child.once("close", resolve))
      await waitUntil(
        heading,
        () => shown.includes(heading),
        200_000,
        () => shown
      )
      child.kill("SIGINT")
      expect(await closed).toBe(130)
      expect(left()).toEqual([])
      expect(readdirSync(folder)).toEqual([])
    }
  )
})

describe("the demo without what it needs", () => {
  it("names the line of a series that is wrong", async () => {
    const data = join(folder, "series.csv")
    writeFileSync(data, "1500914563,20.0\n1500914568;22.0\n")
    const ended = await run(["--data", data])
    expect(ended).toMatchObject({ code: 1, stdout: "" })
    expect(ended.stderr).toBe(`postern: ${data}: line 2 is not \`unix_seconds,value\`: "1500914568;22.0"\n`)
    const missing = await run(["--data", join(folder, "none.csv")])
    expect(missing).toMatchObject({ code: 1, stdout: "" })
    expect(missing.stderr).toMatch(/^postern: Could not read .*none\.csv: /)
  })

  it("says what to install when there is no bubblewrap, in the step that needs it", async () => {
    const ended = await run([], { POSTERN_BWRAP: join(folder, "no-bwrap") })
    expect(ended.code).toBe(1)
    expect(ended.stdout).toContain("3. A device")
    expect(ended.stdout).not.toContain("4. A work package")
    expect(ended.stderr).toMatch(/^postern: There is no safe jail on this machine.*bubblewrap/m)
    expect(readdirSync(folder)).toEqual([])
    expect(left()).toEqual([])
  })
})
