/** The warden and its client as real processes: each killed, stopped or crippled in turn; nothing lost, nothing run twice. */
import { spawnSync } from "node:child_process"
import { chmodSync, copyFileSync, cpSync, lstatSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { type BuiltDevice, BuiltFleet } from "../support/BuiltFleet.ts"
import { Program, processesWith, waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"

const dist = join(import.meta.dirname, "../../dist")
const patienceMs = 120_000
const nobody = 65_534
/** All that the warden needs, as docs/jail.md says. */
const capabilities = [
  "setuid",
  "setgid",
  "setpcap",
  "sys_admin",
  "sys_ptrace",
  "kill",
  "chown",
  "dac_read_search"
]
const crippled = ["setpriv", `--bounding-set=-all,+${capabilities.join(",+")}`, "--inh-caps=-all", "--"]

const statusOf = (pid: number): string => readFileSync(`/proc/${pid}/status`, "utf8")

/** How many host processes hold the text in their command lines. */
const running = (text: string): number => processesWith(text).length

/** A client that works, other than the one given. */
const nextClient = (device: BuiltDevice, before?: number): Promise<number> =>
  waitUntil(
    "another client",
    () => {
      const pid = device.clientPid()
      return pid !== undefined && pid !== before && pid !== device.program.pid ? pid : undefined
    },
    patienceMs,
    () => device.program.log().slice(-2_000)
  )

describeWith(["jail"], "warden and client", () => {
  let fleet: BuiltFleet
  let device: BuiltDevice

  beforeAll(async () => {
    fleet = await BuiltFleet.withServer()
    device = await fleet.acceptedDevice("pi")
  })
  afterAll(() => fleet?.close())

  const detached = async (name: string, ...command: ReadonlyArray<string>): Promise<string> =>
    (await fleet.ask<{ job: string }>(["run", name, "--detach", "--", ...command])).job

  /** A job that is known by its command line, and runs on. */
  const longJob = async (marker: string): Promise<string> => {
    const job = await detached("pi", "sh", "-c", `echo ran; sleep 300; : ${marker}`)
    await fleet.job(job, ["running"], patienceMs)
    await waitUntil("the job's process", () => running(marker) > 0, patienceMs)
    return job
  }

  it("a client that is killed is started again; its job is gone, and told as interrupted", async () => {
    const marker = `marker-client-${process.pid}`
    const job = await longJob(marker)
    const waiting = await detached("pi", "echo", "second")
    const before = await nextClient(device)
    const { pid } = device.program
    process.kill(before, "SIGKILL")
    await waitUntil("the job's end", () => running(marker) === 0, patienceMs)
    await nextClient(device, before)
    expect((await fleet.finished(job, patienceMs)).receipt).toMatchObject({
      state: "interrupted",
      reason: "crashed_in_run",
      attempts: 1
    })
    expect((await fleet.finished(waiting, patienceMs)).state).toBe("succeeded")
    expect(device.program.pid).toBe(pid)
    expect(device.program.isRunning()).toBe(true)
    expect(await fleet.ask(["status"])).toMatchObject({ alarms: [] })
  })

  it("a warden that is killed takes client and job with it; the next one goes on from there", async () => {
    const marker = `marker-warden-${process.pid}`
    const job = await longJob(marker)
    const client = await nextClient(device)
    device.program.signal("SIGKILL")
    await device.program.ended()
    await waitUntil("the job's end", () => running(marker) === 0, patienceMs)
    await waitUntil("the client's end", () => device.clientPid() === undefined, patienceMs)
    device.program.start()
    await nextClient(device, client)
    expect((await fleet.finished(job, patienceMs)).receipt).toMatchObject({
      state: "interrupted",
      attempts: 1
    })
    expect(await fleet.ask(["status"])).toMatchObject({ alarms: [] })
  })

  it("the client has no rights, and a job is another user's than either", {
    skip: process.getuid?.() !== 0
  }, async () => {
    const status = statusOf(await nextClient(device))
    expect(status).toMatch(/^Uid:\s+(\d{4,})\s+\1\s+\1\s+\1$/m)
    expect(status).toMatch(/^CapPrm:\s+0+$/m)
    expect(status).toMatch(/^NoNewPrivs:\s+1$/m)
    const client = Number(/^Uid:\s+(\d+)/m.exec(status)?.[1])
    const marker = `marker-uid-${process.pid}`
    const job = await longJob(marker)
    const uidsOfJob = () =>
      processesWith(marker).flatMap((pid) => {
        try {
          const inside = readFileSync(`/proc/${pid}/cmdline`, "utf8").startsWith("sh\0-c\0echo ran")
          return inside ? [Number(/^Uid:\s+(\d+)/m.exec(statusOf(pid))?.[1])] : []
        } catch {
          return []
        }
      })
    // The jail's own processes, which name it too, are there before it.
    const owners = await waitUntil("the job's shell", () => {
      const found = uidsOfJob()
      return found.length > 0 && found
    })
    expect(owners.filter((uid) => uid === 0 || uid === client)).toEqual([])
    await fleet.ask(["jobs", "cancel", job])
    expect((await fleet.finished(job, patienceMs)).receipt).toMatchObject({ isolation: "separate-uid" })
  })

  it("with no more than eight capabilities, over a state that was root's, it does its work", {
    skip: process.getuid?.() !== 0
  }, async () => {
    const id = /runs as (dev_[a-z2-7]{52})/.exec(device.program.log())?.[1]
    await device.program.stop()
    spawnSync("chown", ["-R", "0:0", device.state])
    const config = `${device.state}.toml`
    const command = [...crippled, process.execPath, join(import.meta.dirname, "../../dist/client.js")]
    const program = new Program(
      "crippled",
      [...command, "--state", device.state, "--config", config],
      { PATH: process.env["PATH"] ?? "" },
      join(fleet.folder, "crippled.log")
    )
    program.start()
    try {
      const job = await detached(
        "pi",
        "sh",
        "-c",
        "echo file > /work/out/file; chmod 0 /work/out/file; echo works"
      )
      expect((await fleet.finished(job, patienceMs)).receipt).toMatchObject({
        state: "succeeded",
        isolation: "separate-uid"
      })
      await fleet.ask(["jobs", "results", job, "-o", join(fleet.folder, "results")])
      expect(readFileSync(join(fleet.folder, "results/file"), "utf8")).toBe("file\n")
      expect(program.log()).toContain("was root's")
      expect(program.log()).toContain(id)
      expect(lstatSync(device.state).uid).not.toBe(0)
      const long = await detached("pi", "sleep", "300")
      await fleet.job(long, ["running"], patienceMs)
      expect(await program.stop()).toMatchObject({ code: 0 })
    } finally {
      program.signalGroup("SIGKILL")
    }
  })
})

/** The built programs and Node, in a folder of their own with these rights, wherever the checkout lies. */
const copiedPrograms = (mode: number): { readonly node: string; readonly programs: string } => {
  const programs = mkdtempSync(join(tmpdir(), "postern-programs-"))
  const node = join(programs, "node")
  cpSync(dist, programs, { recursive: true })
  copyFileSync(process.execPath, node)
  chmodSync(node, 0o755)
  chmodSync(programs, mode)
  return { node, programs }
}

describeWith(["jail", "root"], "a program that only root can pass to", () => {
  it("runs all the same: a copy in the state folder serves the client's user", async () => {
    const { programs } = copiedPrograms(0o700)
    const fleet = await BuiltFleet.withServer({ programs })
    try {
      await fleet.acceptedDevice("pi")
      const { job } = await fleet.ask<{ job: string }>(["run", "pi", "--detach", "--", "echo", "works"])
      expect((await fleet.finished(job, patienceMs)).receipt).toMatchObject({ isolation: "separate-uid" })
    } finally {
      await fleet.close()
      rmSync(programs, { recursive: true, force: true })
    }
  })
})

describeWith(["jail", "root"], "a warden that is not root", () => {
  let copied: ReturnType<typeof copiedPrograms> | undefined
  let fleet: BuiltFleet
  let device: BuiltDevice

  beforeAll(async () => {
    copied = copiedPrograms(0o755)
    fleet = await BuiltFleet.withServer(copied)
    const through = ["setpriv", "--reuid", `${nobody}`, "--regid", `${nobody}`, "--clear-groups", "--"]
    device = await fleet.acceptedDevice("pi", { through, uid: nobody, settings: ["hung_after_ms = 5000"] })
  })
  afterAll(async () => {
    await fleet?.close()
    if (copied !== undefined) rmSync(copied.programs, { recursive: true, force: true })
  })

  it("says that jobs share its uid, and runs them", async () => {
    const { job } = await fleet.ask<{ job: string }>(["run", "pi", "--detach", "--", "echo", "works"])
    expect((await fleet.finished(job, patienceMs)).receipt).toMatchObject({
      state: "succeeded",
      isolation: "same-uid"
    })
    expect(device.program.log()).toMatch(/isolation=same-uid/)
  })

  it("kills a client that hangs, and starts another", async () => {
    const before = await nextClient(device)
    process.kill(before, "SIGSTOP")
    await nextClient(device, before)
    expect(device.program.log()).toMatch(/event loop stands still/)
    const { job } = await fleet.ask<{ job: string }>(["run", "pi", "--detach", "--", "echo", "again"])
    expect((await fleet.finished(job, patienceMs)).state).toBe("succeeded")
  })
})
