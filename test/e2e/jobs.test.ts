/** The main job, with the programs as they are shipped: enrolment, work, output, results, cancels, secrets. */
import { spawn } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { type BuiltDevice, BuiltFleet } from "../support/BuiltFleet.ts"
import { waitUntil } from "../support/Program.ts"
import { describeWith, requires } from "../support/requires.ts"
import { atTerminal } from "../support/terminal.ts"

const canary = "canary-7f3a9c51-plaintext"
const jobId = /[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}/

/** Every file below a folder, as one long text per file. */
const filesBelow = (folder: string): ReadonlyArray<readonly [path: string, content: Buffer]> =>
  readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile())
    .map((path) => [path, readFileSync(path)] as const)

describeWith(["jail"], "the main job", () => {
  let fleet: BuiltFleet
  let device: BuiltDevice
  const said: Array<string> = []

  beforeAll(async () => {
    fleet = await BuiltFleet.withServer()
    device = await fleet.acceptedDevice("pi-cellar")
  })
  afterAll(() => fleet?.close())

  const cli = join(import.meta.dirname, "../../dist/cli.js")
  const terminal = () => ({ PATH: "/usr/bin:/bin", HOME: fleet.folder, POSTERN_HOME: fleet.operatorFolder })

  const postern = async (...args: ReadonlyArray<string>) => {
    const ended = await fleet.postern(args)
    said.push(ended.stdout, ended.stderr)
    return ended
  }

  it("runs a command as if it ran here: output, error output, exit code", async () => {
    const good = await postern(
      "run",
      "pi-cellar",
      "--",
      "sh",
      "-c",
      "echo out; echo err >&2; printf '\\000\\377'"
    )
    expect(good.code, good.stderr).toBe(0)
    expect(good.stdout).toBe("out\n\0\ufffd")
    expect(good.stderr).toMatch(
      /^postern: job \S+, number 1 for pi-cellar\nerr\npostern: verified: succeeded on pi-cellar in \d+ ms, receipt 1\n$/
    )
    const bad = await postern("run", "pi-cellar", "--quiet", "--", "sh", "-c", "exit 7")
    expect(bad).toEqual({ code: 7, stdout: "", stderr: "" })
    const missing = await postern("run", "pi-cellar", "-q", "--", "/no/such/program")
    expect(missing.code).not.toBe(0)
  })

  it("takes files along and brings artifacts back", async () => {
    const script = join(fleet.folder, "work.sh")
    writeFileSync(
      script,
      `cat /package/data.txt; mkdir /work/out/sub; cp /package/data.txt /work/out/sub/copy; echo done > /work/out/done\n`
    )
    const data = join(fleet.folder, "data.txt")
    writeFileSync(data, `${canary}\n`)
    const ended = await postern(
      "run",
      "pi-cellar",
      "--file",
      script,
      "--file",
      `${data}=data.txt`,
      "--artifact",
      "done",
      "--",
      "sh",
      "/package/work.sh"
    )
    expect(ended.code, ended.stderr).toBe(0)
    expect(ended.stdout).toBe(`${canary}\n`)
    const job = /job (\S+),/.exec(ended.stderr)?.[1] as string
    const target = join(fleet.folder, "results")
    expect(await fleet.ask(["jobs", "results", job, "-o", target])).toMatchObject({
      verified: true,
      folder: target
    })
    expect(readFileSync(join(target, "sub/copy"), "utf8")).toBe(`${canary}\n`)
    expect(readFileSync(join(target, "done"), "utf8")).toBe("done\n")
    const again = await postern("jobs", "results", job, "-o", target)
    expect(again.code).toBe(1)
    expect(again.stderr).toMatch(/is not an empty folder/)
  })

  it("builds, inspects, signs, verifies and submits a folder", async () => {
    const folder = join(fleet.folder, "stats")
    mkdirSync(folder)
    writeFileSync(
      join(folder, "postern.json"),
      JSON.stringify({ command: ["cat", "/package/readme"], limits: { timeout_ms: 20_000 } })
    )
    writeFileSync(join(folder, "readme"), `${canary} in a folder\n`)
    const file = join(fleet.folder, "stats.postern")
    const built = await fleet.ask(["package", "build", folder, "--device", "pi-cellar", "-o", file])
    expect(await fleet.ask(["package", "inspect", file])).toMatchObject({
      payload: built["payload"],
      manifest: built["manifest"]
    })
    expect((await postern("package", "sign", file, "--device", "pi-cellar")).code).toBe(2)
    const signed = await fleet.ask<{ order: string; job: string }>([
      "package",
      "sign",
      file,
      "--device",
      "pi-cellar",
      "--yes"
    ])
    expect(await fleet.ask(["package", "verify", file, "--order", signed.order])).toMatchObject({
      verified: true
    })
    const submitted = await fleet.ask(["jobs", "submit", file, "--order", signed.order])
    expect(submitted).toMatchObject({ job: signed.job })
    const job = await fleet.finished(signed.job)
    expect(job.state).toBe("succeeded")
    const logs = await postern("jobs", "logs", signed.job)
    expect(logs).toEqual({ code: 0, stdout: `${canary} in a folder\n`, stderr: "" })
    // The very same order again is the same order, and runs once.
    expect(await fleet.ask(["jobs", "submit", "--resume", signed.job])).toMatchObject({
      job: signed.job,
      state: "succeeded"
    })
  })

  it("shows output while the job runs", async () => {
    const script = "trap 'echo last; exit 0' TERM; echo first; sleep 300 & wait"
    const { job } = await fleet.ask<{ job: string }>([
      "run",
      "pi-cellar",
      "--detach",
      "--",
      "sh",
      "-c",
      script
    ])
    const follower = spawn(
      process.execPath,
      [join(import.meta.dirname, "../../dist/cli.js"), "jobs", "logs", "-f", job, "--json"],
      {
        env: { PATH: "/usr/bin:/bin", HOME: fleet.folder, POSTERN_HOME: fleet.operatorFolder },
        stdio: ["ignore", "pipe", "inherit"]
      }
    )
    let seen = ""
    const events = () =>
      seen
        .trimEnd()
        .split("\n")
        .map(
          (line) =>
            JSON.parse(line) as {
              event: string
              stream?: string
              data?: string
              verified?: boolean
              output_verified?: boolean
              state?: string
            }
        )
    const closed = new Promise<number | null>((resolve) => follower.once("close", resolve))
    follower.stdout.setEncoding("utf8").on("data", (text) => {
      seen += text
    })
    await waitUntil("the first line", () =>
      seen.includes(`"data":"${Buffer.from("first\n").toString("base64")}"`)
    )
    const state = (await fleet.ask(["jobs", "show", job]))["state"]
    expect(state).toBe("running")
    expect((await postern("jobs", "cancel", job)).code).toBe(0)
    expect(await closed).toBe(0)
    const output = events().flatMap(({ data, event }) =>
      event === "output" ? [Buffer.from(data as string, "base64").toString()] : []
    )
    expect(output.join("")).toBe("first\nlast\n")
    expect(events().at(-1)).toMatchObject({
      event: "end",
      state: "canceled",
      verified: true,
      output_verified: true
    })
  })

  it("cancels a running job, and its receipt says so", async () => {
    const { job } = await fleet.ask<{ job: string }>([
      "run",
      "pi-cellar",
      "--detach",
      "--",
      "sh",
      "-c",
      "echo up; sleep 300"
    ])
    await fleet.job(job, ["running"])
    expect((await postern("jobs", "cancel", job)).code).toBe(0)
    expect((await fleet.finished(job)).receipt).toMatchObject({
      state: "canceled",
      reason: "canceled_by_operator"
    })
    const again = await postern("jobs", "cancel", job)
    expect(again.code).toBe(1)
    expect(again.stderr).toMatch(/has ended already: canceled/)
  })

  it("ends a job at its time-out, with what it said until then", async () => {
    const ended = await postern(
      "run",
      "pi-cellar",
      "--timeout",
      "4s",
      "--",
      "sh",
      "-c",
      "echo begun; sleep 300"
    )
    expect(ended.code).toBe(1)
    expect(ended.stdout).toBe("begun\n")
    expect(ended.stderr).toMatch(/verified: timed_out/)
  })

  it("answers a service request while a job runs", async () => {
    const { job } = await fleet.ask<{ job: string }>(["run", "pi-cellar", "--detach", "--", "sleep", "300"])
    await fleet.job(job, ["running"])
    const service = await postern("run", "pi-cellar", "--service", "-q", "--", "echo", "still here")
    expect(service).toEqual({ code: 0, stdout: "still here\n", stderr: "" })
    expect((await fleet.ask(["jobs", "show", job]))["state"]).toBe("running")
    expect((await postern("jobs", "cancel", job)).code).toBe(0)
    await fleet.finished(job)
  })

  it("keeps sealed results from the server", async () => {
    const ended = await postern(
      "run",
      "pi-cellar",
      "--sealed",
      "-q",
      "--",
      "sh",
      "-c",
      `echo ${canary}; echo ${canary} > /work/out/file`
    )
    expect(ended).toMatchObject({ code: 0, stdout: `${canary}\n` })
    const readers = readdirSync(join(fleet.operatorFolder, "orders")).map((name) => {
      const { envelope } = JSON.parse(readFileSync(join(fleet.operatorFolder, "orders", name), "utf8"))
      return JSON.parse(Buffer.from(envelope.payload, "base64").toString()).results_to.length
    })
    // Ids begin with the time, so the last order is this one: for the operator alone, the others for the server too.
    expect(readers.at(-1)).toBe(1)
    expect(new Set(readers.slice(0, -1))).toEqual(new Set([2]))
    const { jobs } = await fleet.ask<{
      jobs: ReadonlyArray<{ job: string; state: string; verified: boolean; alarms: ReadonlyArray<string> }>
    }>(["jobs", "list"])
    expect(jobs.every(({ alarms, verified }) => verified && alarms.length === 0)).toBe(true)
    expect(jobs.length).toBeGreaterThan(8)
  })

  it("cuts a flood of output and marks it; the job goes on", async () => {
    const ended = await postern(
      "run",
      "pi-cellar",
      "--output-limit",
      "100K",
      "-q",
      "--",
      "sh",
      "-c",
      "head -c 3000000 /dev/zero | tr '\\\\0' x; exit 0"
    )
    expect(ended.code, ended.stderr).toBe(0)
    expect(ended.stdout.length).toBeGreaterThan(50_000)
    expect(ended.stdout.length).toBeLessThanOrEqual(102_400)
  })

  it("shows nothing on a terminal that it would obey, and bytes as they are in a pipe", async () => {
    const ended = await postern("run", "pi-cellar", "-q", "--", "printf", "\\033]0;evil\\007")
    expect(ended.stdout).toBe("\u001b]0;evil\u0007")
  })

  it.skipIf(!requires("python3"))("shows a job's output on a terminal, but obeys none of it", async () => {
    const args = ["run", "pi-cellar", "--", "printf", "\\033]0;evil\\007\\033[31mred\\033[0m\\n"]
    const { code, screen } = await atTerminal([process.execPath, cli, ...args], terminal(), [])
    expect(code, screen).toBe(0)
    expect(screen).toContain("\\x1b]0;evil\\x07\u001b[31mred\u001b[0m\r\n")
    expect(screen).toMatch(/verified.*: succeeded on pi-cellar/)
  })

  it.skipIf(!requires("python3"))(
    "draws a bar while a large package goes up, on a terminal alone",
    async () => {
      const folder = join(fleet.folder, "large")
      mkdirSync(folder)
      writeFileSync(
        join(folder, "postern.json"),
        JSON.stringify({ command: ["sha256sum", "/package/noise"] })
      )
      const noise = randomBytes(9 * 1024 * 1024)
      writeFileSync(join(folder, "noise"), noise)
      const file = join(fleet.folder, "large.postern")
      await fleet.ask(["package", "build", folder, "--device", "pi-cellar", "-o", file])
      const submit = ["jobs", "submit", file, "--device", "pi-cellar", "--yes"]
      const { code, screen } = await atTerminal([process.execPath, cli, ...submit], terminal(), [])
      expect(code, screen).toBe(0)
      expect(screen).toMatch(/uploading \[#+\.*\] +\d+ % of 9 MiB/)
      const job = jobId.exec(screen)?.[0] as string
      await fleet.finished(job)
      const digest = createHash("sha256").update(noise).digest("hex")
      expect(await postern("jobs", "logs", job)).toEqual({
        code: 0,
        stdout: `${digest}  /package/noise\n`,
        stderr: ""
      })
      // The server has all of it already: it goes over once more in one block, and without a terminal silently.
      const again = await postern(...submit)
      expect(again.stderr).toMatch(/^Submitted as number \d+\./)
      // It ends here: nothing is to come and go in the server's folder when that is read.
      await fleet.finished(jobId.exec(`${again.stdout}${again.stderr}`)?.[0] as string)
    }
  )

  it("shows the actors of the server, and of the device on its own machine", async () => {
    expect((await postern("ps")).stdout).toMatch(/^ACTOR .*\nserver .*running/)
    const local = await postern("ps", "--state", device.state)
    expect(local.stdout, local.stderr).toMatch(/main-loop/)
    expect(await fleet.ask(["ps"])).toMatchObject({ name: "server" })
    const nowhere = await postern("ps", "--state", join(fleet.folder, "nowhere"))
    expect(nowhere).toMatchObject({ code: 1, stdout: "" })
    expect(nowhere.stderr).toMatch(/control\.sock.*Is the program running/)
  })

  it("has no alarm at the end, and says so in its status", async () => {
    const status = await fleet.ask(["status"])
    expect(status).toMatchObject({ alarms: [] })
  })

  it("left no plaintext at the server, and no secret in any word that was said", () => {
    const bad = filesBelow(fleet.serverFolder).filter(([, content]) => content.includes(canary))
    expect(bad.map(([path]) => path)).toEqual([])
    const tokens = readFileSync(join(fleet.folder, "token-operator"), "utf8").trim()
    const secrets = [tokens, "AGE-SECRET-KEY", "postern-invite-v1."]
    const spoken = [...said, fleet.server.log(), device.program.log()].join("\n")
    for (const secret of secrets) expect(spoken.includes(secret), secret).toBe(false)
    const stored = filesBelow(fleet.serverFolder).filter(([, content]) => content.includes(tokens))
    expect(stored.map(([path]) => path)).toEqual([])
    expect(device.program.log()).not.toContain(canary)
  })
})
