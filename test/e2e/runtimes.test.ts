/** The bundles copied alone, under the oldest Node that we support: the whole way of one job, and no stray word. */
import { chmodSync, copyFileSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { BuiltFleet } from "../support/BuiltFleet.ts"
import { describeWith, runtimePath } from "../support/requires.ts"

const dist = join(import.meta.dirname, "../../dist")

describeWith(["oldest-node", "jail"], "bundles alone under the oldest Node", () => {
  let programs = ""
  let fleet: BuiltFleet

  beforeAll(async () => {
    programs = mkdtempSync(join(tmpdir(), "postern-bundles-"))
    // A client that is started as root reads its program as another user.
    chmodSync(programs, 0o755)
    for (const name of ["server.js", "client.js", "cli.js"])
      copyFileSync(join(dist, name), join(programs, name))
    fleet = await BuiltFleet.withServer({ node: runtimePath("oldest-node"), programs })
  })
  afterAll(async () => {
    await fleet?.close()
    rmSync(programs, { recursive: true, force: true })
  })

  it("do the main job, and say nothing that nobody asked for", async () => {
    const device = await fleet.acceptedDevice("pi-old-node")
    const ended = await fleet.postern([
      "run",
      "pi-old-node",
      "--",
      "sh",
      "-c",
      "echo works; echo file > /work/out/file"
    ])
    expect(ended, ended.stderr).toMatchObject({ code: 0, stdout: "works\n" })
    const job = /job (\S+),/.exec(ended.stderr)?.[1] as string
    await fleet.ask(["jobs", "results", job, "-o", join(fleet.folder, "results")])
    expect((await device.program.stop()).code).toBe(0)
    expect((await fleet.server.stop()).code).toBe(0)
    for (const log of [fleet.server.log(), device.program.log()]) {
      const stray = log
        .split("\n")
        .filter((line) => line !== "" && !/^timestamp=\S+ level=(INFO|DEBUG) /.test(line))
      expect(stray).toEqual([])
    }
    expect(ended.stderr.split("\n").every((line) => line === "" || line.startsWith("postern: "))).toBe(true)
  })
})
