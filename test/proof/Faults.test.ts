/** What must survive: `kill -9` of either side in mid-run, SIGTERM, restarts, a server that comes and goes. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { type BuiltDevice, BuiltFleet } from "../support/BuiltFleet.ts"
import { processesWith, waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"

/** The limit of the design for an orderly stop. */
const stopMs = 5_000

describeWith(["jail"], "faults", () => {
  let fleet: BuiltFleet
  let device: BuiltDevice

  beforeAll(async () => {
    fleet = await BuiltFleet.withServer()
    device = await fleet.acceptedDevice("pi")
  })
  afterAll(() => fleet?.close())

  const detached = async (script: string, ...flags: ReadonlyArray<string>): Promise<string> => {
    const { job } = await fleet.ask<{ job: string }>([
      "run",
      "pi",
      "--detach",
      ...flags,
      "--",
      "sh",
      "-c",
      script
    ])
    return job
  }

  /** How many receipts of the device stand in its verified chain; fails where the chain is not whole. */
  const receipts = async (): Promise<number> => {
    type Shown = { readonly last_receipt_verified: number | null }
    await fleet.ask(["devices", "show", "pi"])
    return (await fleet.ask<Shown>(["devices", "show", "pi"])).last_receipt_verified ?? 0
  }

  const output = async (job: string): Promise<string> => (await fleet.postern(["jobs", "logs", job])).stdout

  it("a client killed in mid-run ends the job as interrupted, and runs nothing twice", async () => {
    const job = await detached("echo ran; sleep 300")
    await fleet.job(job, ["running"])
    const waiting = await detached("echo second")
    await device.program.crash()
    device.program.start()
    const ended = await fleet.finished(job)
    expect(ended.receipt).toMatchObject({ state: "interrupted", reason: "crashed_in_run", attempts: 1 })
    expect((await fleet.finished(waiting)).state).toBe("succeeded")
    expect(await output(waiting)).toBe("second\n")
    expect(await fleet.ask(["status"])).toMatchObject({ alarms: [] })
  })

  it("an idempotent job is run again after a crash, and its output is that of the last attempt", async () => {
    const marker = `marker-idempotent-${process.pid}`
    const job = await detached(`echo begun; sleep 8; echo done; : ${marker}`, "--idempotent")
    // The server's word of it could come when it has ended already.
    await waitUntil("the job's process", () => processesWith(marker).length > 0)
    await device.program.crash()
    device.program.start()
    const ended = await fleet.finished(job)
    expect(ended.receipt).toMatchObject({ state: "succeeded", attempts: 2 })
    const logs = await fleet.postern(["jobs", "logs", job, "--json"])
    const last = JSON.parse(logs.stdout.trimEnd().split("\n").at(-1) as string)
    expect(last).toMatchObject({ event: "end", verified: true, output_verified: true })
  })

  it("a server killed in mid-run loses nothing: the job goes on, output and receipt come when it is back", async () => {
    const marker = `marker-server-${process.pid}`
    const job = await detached(`echo begun; sleep 10; echo done; echo kept > /work/out/file; : ${marker}`)
    // The server's word of it could come when it has ended already.
    await waitUntil("the job's process", () => processesWith(marker).length > 0)
    await fleet.server.crash()
    // The device runs on alone, past the end of the job.
    await waitUntil(
      "the job's end on the device",
      () => device.program.log().includes(`order ${job} succeeded`),
      60_000,
      () => device.program.log()
    )
    await fleet.startServer()
    const ended = await fleet.finished(job)
    expect(ended.receipt).toMatchObject({ state: "succeeded", attempts: 1 })
    expect(await output(job)).toBe("begun\ndone\n")
    const target = join(fleet.folder, "results")
    await fleet.ask(["jobs", "results", job, "-o", target])
    expect(readFileSync(join(target, "file"), "utf8")).toBe("kept\n")
    expect(await fleet.ask(["status"])).toMatchObject({ alarms: [] })
  })

  it("both killed at once: every order has exactly one receipt in the end", async () => {
    const before = await receipts()
    const jobs = [
      // Still running when the crash comes, however slow the machine: the other two wait behind it.
      await detached("echo one; sleep 60"),
      await detached("echo two"),
      await detached("echo three")
    ]
    await fleet.job(jobs[0] as string, ["running"])
    await Promise.all([fleet.server.crash(), device.program.crash()])
    device.program.start()
    await fleet.startServer()
    for (const job of jobs) await fleet.finished(job)
    expect(await receipts()).toBe(before + jobs.length)
    expect(await output(jobs[2] as string)).toBe("three\n")
  })

  it("work given while the device is away waits for it", async () => {
    expect((await device.program.stop()).code).toBe(0)
    const job = await detached("echo late")
    expect((await fleet.ask(["jobs", "show", job]))["state"]).toBe("queued")
    device.program.start()
    expect((await fleet.finished(job)).state).toBe("succeeded")
  })

  it("a cancel given while the device is away keeps the job from running", async () => {
    await device.program.stop()
    const job = await detached("echo never")
    await fleet.ask(["jobs", "cancel", job])
    device.program.start()
    expect((await fleet.finished(job)).receipt).toMatchObject({ state: "canceled", attempts: 0 })
    expect(await output(job)).toBe("")
  })

  it("SIGTERM ends both within five seconds, in mid-run too, and they start into the same state", async () => {
    const before = await receipts()
    const done = await detached("echo done")
    await fleet.finished(done)
    const running = await detached("sleep 300")
    await fleet.job(running, ["running"])
    const client = await device.program.stop()
    expect(client.code).toBe(0)
    expect(client.tookMs).toBeLessThan(stopMs)
    const server = await fleet.server.stop()
    expect(server.code).toBe(0)
    expect(server.tookMs).toBeLessThan(stopMs)
    await fleet.startServer()
    device.program.start()
    expect((await fleet.finished(running)).receipt).toMatchObject({ state: "interrupted", attempts: 1 })
    expect(await output(done)).toBe("done\n")
    expect((await fleet.finished(await detached("echo again"))).state).toBe("succeeded")
    expect(await receipts()).toBe(before + 3)
  })

  it("a held poll and a follower do not keep the server from stopping", async () => {
    const job = await detached("echo begun; sleep 300")
    let seen = ""
    const onOutput = (stdout: string): void => {
      seen = stdout
    }
    const follower = fleet.postern(["jobs", "logs", "-f", job], { onOutput, timeoutMs: 180_000 })
    await waitUntil("the follower's first line", () => seen.includes("begun"))
    const stopped = await fleet.server.stop()
    expect(stopped).toMatchObject({ code: 0 })
    expect(stopped.tookMs).toBeLessThan(stopMs)
    await fleet.startServer()
    await fleet.ask(["jobs", "cancel", job])
    const followed = await follower
    expect(followed.code, followed.stderr).toBe(0)
    expect(followed.stderr).toMatch(/verified: canceled/)
  })

  it("nothing of a finished job is left on the device", async () => {
    const folder = join(fleet.folder, "leave")
    mkdirSync(folder)
    writeFileSync(join(folder, "postern.json"), JSON.stringify({ command: ["cat", "/package/secret"] }))
    writeFileSync(join(folder, "secret"), "nothing-of-this-stays\n")
    const file = join(fleet.folder, "leave.postern")
    await fleet.ask(["package", "build", folder, "--device", "pi", "-o", file])
    const { job } = await fleet.ask<{ job: string }>(["jobs", "submit", file, "--device", "pi", "--yes"])
    await fleet.finished(job)
    const left = (): ReadonlyArray<string> => {
      try {
        return readdirSync(device.state, { recursive: true, encoding: "utf8" }).filter((name) => {
          const path = join(device.state, name)
          return existsSync(path) && name.includes(job)
        })
      } catch (error) {
        // A folder went while it was read: the tidying up is under way.
        return [String(error)]
      }
    }
    await waitUntil(
      "the device's tidying up",
      () => left().length === 0,
      60_000,
      () => left().join("\n")
    )
  })
})
