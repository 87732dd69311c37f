/** The demo over a private Tor network, as it is shipped. */
import { spawn } from "node:child_process"
import { chmodSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, expect, it } from "vitest"
import { runToEnd, waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"
import { processesOf } from "../support/torProcesses.ts"

const demo = join(import.meta.dirname, "../../dist/demo.js")
const environment = () => ({
  PATH: "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
  HOME: folder,
  TMPDIR: folder,
  LANG: "C.UTF-8"
})

let folder = ""
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "postern-demo-tor-"))
  // As /tmp is: a client that root starts becomes another user, who must get to its state.
  chmodSync(folder, 0o711)
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const expectNothingLeft = () => {
  expect(readdirSync(folder)).toEqual([])
  expect(processesOf(folder)).toEqual([])
}

describeWith(["tor", "tor-gencert", "jail"], "the demo with --tor", () => {
  it("does the main job through Tor, and shows the circuit's hops and what they cost", async () => {
    const ended = await runToEnd([process.execPath, demo, "--tor"], {
      cwd: folder,
      environment: environment(),
      timeoutMs: 240_000
    })
    expect(ended.code, ended.stdout + ended.stderr).toBe(0)
    expect(ended.stdout).toContain("\n1. A Tor network\n")
    const hop = "(authority|relay[123])"
    expect(ended.stdout).toMatch(
      new RegExp(`\\ndevice → ${hop} → ${hop} → ${hop} ← … ← server \\(http:.*onion\\)\\n`)
    )
    expect(ended.stdout).toMatch(
      /\ndirectly, over loopback +[\d.]+ +[\d.]+\nover the private Tor network +[\d.]+ +[\d.]+\n/
    )
    expect(ended.stdout).toContain("\n9. The artifact\n")
    expect(ended.stdout).toContain("\n10. Two agents\n")
    expect(ended.stdout).toContain("\npi-attic: 1 ping, 0 lost, ")
    expect(ended.stdout).toContain("\nverified\n")
    expectNothingLeft()
  })

  it.each([["1. A Tor network"], ["4. A device"]])(
    "stops everything when Ctrl-C comes in step %s",
    async (heading) => {
      const child = spawn(process.execPath, [demo, "--tor"], {
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
        120_000,
        () => shown
      )
      child.kill("SIGINT")
      expect(await closed).toBe(130)
      expectNothingLeft()
    }
  )
})
