import { type ChildProcess, spawn } from "node:child_process"
import { randomUUID } from "node:crypto"
import { once } from "node:events"
import { readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, it } from "@effect/vitest"
import { describeWith } from "../../support/requires.ts"

const client = join(import.meta.dirname, "CrashClient.ts")

/** All processes whose command line holds the marker: the client, the chain and (by the chain's death) the job. */
const marked = (marker: string): ReadonlyArray<string> =>
  readdirSync("/proc").flatMap((name) => {
    try {
      if (!/^\d+$/.test(name)) return []
      const command = readFileSync(`/proc/${name}/cmdline`, "utf8")
      return command.includes(marker) ? [`${name} ${command.replaceAll("\0", " ").slice(0, 80)}`] : []
    } catch {
      return []
    }
  })

const packages = () => readdirSync(tmpdir()).filter((name) => name.startsWith("postern-package-"))

const startClient = (marker: string, ...more: ReadonlyArray<string>): ChildProcess =>
  spawn(process.execPath, ["--no-warnings", client, marker, ...more], {
    stdio: ["ignore", "pipe", "inherit"]
  })

/** Resolves when the client has said the line `count` times; goes on reading, so that the client can go on writing. */
const says = (child: ChildProcess, line: string, count = 1) =>
  new Promise<void>((resolve, reject) => {
    let heard = 0
    child.stdout?.on("data", (chunk) => {
      heard += String(chunk)
        .split("\n")
        .filter((text) => text === line).length
      if (heard >= count) resolve()
    })
    child.once("exit", () => reject(new Error(`the client ended before it said "${line}"`)))
  })

const waitUntilGone = async (marker: string) => {
  const deadline = performance.now() + 5_000
  for (;;) {
    const left = marked(marker)
    if (left.length === 0) return
    if (performance.now() > deadline) expect(left).toEqual([])
    await new Promise((resolve) => setImmediate(resolve))
  }
}

const killAfter = async (child: ChildProcess, delayMs: number) => {
  await new Promise((resolve) => setTimeout(resolve, delayMs))
  child.kill("SIGKILL")
  await once(child, "exit")
}

/** The harness' package folders are the client's, not the jail's: a killed client leaves them to this test. */
const withoutPackages = async (body: () => Promise<void>) => {
  const before = new Set(packages())
  try {
    await body()
  } finally {
    for (const name of packages())
      if (!before.has(name)) rmSync(join(tmpdir(), name), { recursive: true, force: true })
  }
}

describeWith(["jail"], "a client killed by SIGKILL", () => {
  it("leaves no process of a running job and no mount", () =>
    withoutPackages(async () => {
      const marker = `marker-${randomUUID()}`
      const mounts = readFileSync("/proc/self/mountinfo", "utf8")
      const child = startClient(marker)
      await says(child, "running")
      expect(marked(marker).length).toBeGreaterThan(2)
      await killAfter(child, 0)
      await waitUntilGone(marker)
      expect(readFileSync("/proc/self/mountinfo", "utf8")).toBe(mounts)
    }))

  it("leaves nothing at whatever moment of a start it dies", () =>
    withoutPackages(async () => {
      for (let delayMs = 0; delayMs < 24; delayMs += 2) {
        const marker = `marker-${randomUUID()}`
        const child = startClient(marker, "short")
        await says(child, "starting", 3)
        await killAfter(child, delayMs)
        await waitUntilGone(marker)
      }
    }))
})
