/** The client as it is shipped: its command line, what it refuses to begin with, and a single poll. */
import { existsSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { BuiltFleet } from "../support/BuiltFleet.ts"
import { waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"

describe("the client's command line", () => {
  let fleet: BuiltFleet
  beforeAll(async () => {
    fleet = await BuiltFleet.create()
  })
  afterAll(() => fleet?.close())

  it("tells its version and all its flags", async () => {
    expect(await fleet.run("client", ["--version"])).toMatchObject({
      code: 0,
      stdout: "client.js 0.1.0\n",
      stderr: ""
    })
    const help = await fleet.run("client", ["--help"])
    expect(help.code).toBe(0)
    for (const flag of ["--config", "--state", "--server", "--invitation", "--name", "--once"])
      expect(help.stdout).toContain(flag)
  })
  it("refuses unknown flags with 2", async () => {
    expect(await fleet.run("client", ["--nonsense"])).toMatchObject({ code: 2, stdout: "" })
  })
  it("lists everything that is missing or wrong at once, and ends with 78", async () => {
    const state = join(fleet.folder, "nobody")
    const none = await fleet.run("client", ["--state", state])
    expect(none.code).toBe(78)
    expect(none.stderr).toContain("no server is known")
    const wrong = await fleet.run("client", [
      "--state",
      state,
      "--server",
      "nonsense",
      "--invitation",
      "nonsense"
    ])
    expect(wrong.code).toBe(78)
    expect(wrong.stderr.split("\n").filter((line) => line.startsWith("  - "))).toHaveLength(2)
    const file = join(fleet.folder, "wrong.toml")
    writeFileSync(file, 'long_poll_ms = "soon"\n')
    const config = await fleet.run("client", ["--state", state, "--config", file])
    expect(config).toMatchObject({ code: 78, stdout: "" })
    expect(config.stderr).toContain("long_poll_ms")
  })
  it.each(["client", "server"])(
    "says of the %s that no state can be kept where no folder can be made",
    async (program) => {
      const ended = await fleet.run(program, ["--state", "/proc/nowhere/state"])
      expect(ended).toMatchObject({ code: 78, stdout: "" })
      expect(ended.stderr).toContain("/proc/nowhere")
    }
  )
  it("says that a key is changed by the running client alone", async () => {
    const rotated = await fleet.run("client", ["--state", join(fleet.folder, "idle"), "keys", "rotate"])
    expect(rotated).toMatchObject({ code: 1, stdout: "" })
    expect(rotated.stderr).toMatch(/the encryption key was not changed: .*Start the client first/)
  })
  it("does not share a state folder with another client", async () => {
    const device = fleet.device("pi-alone", null)
    device.program.start()
    await waitUntil("the start", () => device.program.log().includes("runs as dev_"))
    const second = await fleet.run("client", ["--state", device.state, "--server", fleet.address])
    expect(second.code).toBe(78)
    expect(second.stderr).toContain("another Postern program")
    expect(await device.program.stop()).toMatchObject({ code: 0 })
  })
})

describeWith(["jail"], "a client that is told to poll once", () => {
  let fleet: BuiltFleet
  beforeAll(async () => {
    fleet = await BuiltFleet.withServer()
  })
  afterAll(() => fleet?.close())

  it("does what there is to do, sends what came of it, and stops", async () => {
    const device = await fleet.acceptedDevice("pi-cellar")
    expect(await device.program.stop()).toMatchObject({ code: 0 })
    const id = /runs as (dev_[a-z2-7]{52})/.exec(device.program.log())?.[1]
    const { job } = await fleet.ask<{ job: string }>(["run", "pi-cellar", "--detach", "--", "echo", "once"])
    const flags = ["--state", device.state, "--server", fleet.address, "--once"]
    const once = await fleet.run("client", flags)
    expect(once.code, once.stderr).toBe(0)
    expect(once.stderr).toContain(id)
    expect((await fleet.finished(job)).receipt).toMatchObject({ state: "succeeded" })
    expect(existsSync(join(device.state, "control.sock"))).toBe(false)
  })
})
