/** A device looked at closely: its configuration, its disk, its memory of what happened, as real processes show them. */
import { execFileSync, spawnSync } from "node:child_process"
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { hasSmallDisk } from "../adapters/support/smallDisk.ts"
import { type BuiltDevice, BuiltFleet } from "../support/BuiltFleet.ts"
import { waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"

const patienceMs = 180_000

interface Shown {
  readonly blocked: string | null
  readonly degraded: ReadonlyArray<string>
  readonly last_seen_at_ms: number
  readonly health: {
    readonly at_ms: number
    readonly configuration_digest: string | null
    readonly link: { readonly layer: string; readonly last_outage: { readonly layer: string } | null }
    readonly degraded: ReadonlyArray<{ readonly code: string; readonly detail: string }>
    readonly processes: { readonly own: ReadonlyArray<unknown> }
  } | null
  readonly series: ReadonlyArray<{ readonly at_ms: number }>
}

interface History {
  readonly events: ReadonlyArray<{ readonly kind: string; readonly subject: string; readonly detail: string }>
  readonly trouble: string | null
}

const shownWhen = (
  fleet: BuiltFleet,
  device: BuiltDevice,
  what: string,
  holds: (shown: Shown) => boolean
): Promise<Shown> => {
  let last: Shown | undefined
  const look = async () => {
    last = await fleet.ask<Shown>(["devices", "show", device.name])
    return holds(last) ? last : undefined
  }
  const explain = () => `${JSON.stringify(last)}\n${device.program.log().slice(-3_000)}`
  return waitUntil(what, look, patienceMs, explain)
}

const historyOf = (fleet: BuiltFleet, device: BuiltDevice): Promise<History> =>
  fleet.ask<History>(["history", "--state", device.state])

describe("the start of a client", () => {
  let fleet: BuiltFleet
  beforeAll(async () => {
    fleet = await BuiltFleet.create()
  })
  afterAll(() => fleet?.close())

  it("says everything that is missing at once, and ends with 78", async () => {
    const state = join(fleet.folder, "a-file")
    writeFileSync(state, "no folder")
    const ended = await fleet.run("client", ["--state", state])
    expect(ended.code).toBe(78)
    expect(ended.stderr).toContain("the client cannot run:")
    expect(ended.stderr).toContain(state)
    expect(ended.stderr).toContain("no server is known")
  })

  it("makes the configuration where there is none, explained and commented out, and never writes it again", async () => {
    const state = join(fleet.folder, "state")
    const file = `${state}.toml`
    const run = () => fleet.run("client", ["--state", state])
    expect((await run()).code).toBe(78)
    const made = readFileSync(file, "utf8")
    expect(made).toContain("#health_interval_ms = 60000")
    expect(made.split("\n").filter((line) => line !== "" && !/^(#|\[)/.test(line))).toEqual([])
    expect(statSync(file).mode & 0o777).toBe(0o644)
    const edited = `# mine\nhealth_interval_ms = 5\n`
    writeFileSync(file, edited)
    const ended = await run()
    expect(ended.code).toBe(78)
    expect(ended.stderr).toContain("health_interval_ms")
    expect(readFileSync(file, "utf8")).toBe(edited)
    const named = join(fleet.folder, "named", "client.toml")
    expect((await fleet.run("client", ["--state", state, "--config", named])).code).toBe(78)
    expect(readFileSync(named, "utf8")).toBe(made)
  })
})

describeWith(["jail"], "a device that is watched", () => {
  let fleet: BuiltFleet
  let device: BuiltDevice
  beforeAll(async () => {
    fleet = await BuiltFleet.withServer()
    const { invitation } = await fleet.ask<{ invitation: string }>(["invite", "--name", "pi"])
    device = fleet.device("pi", invitation)
    appendFileSync(
      join(fleet.folder, "device-1.toml"),
      'health_interval_ms = 1000\nrequired_processes = ["not-there"]\n'
    )
    device.program.start()
    await fleet.ask(["devices", "accept", await fleet.waiting(device)])
    await fleet.takesWork(device)
  }, patienceMs)
  afterAll(() => fleet?.close())

  it(
    "tells its health whole, with what is degraded, to the server and on the spot",
    async () => {
      const shown = await shownWhen(
        fleet,
        device,
        "a report of the missing process",
        ({ degraded, health }) => {
          const codes = health?.degraded.map(({ code }) => code) ?? []
          return codes.includes("process_missing") && degraded.includes("process_missing")
        }
      )
      expect(shown.health?.configuration_digest).toMatch(/^sha256:/)
      expect(shown.health?.processes.own.length).toBeGreaterThan(0)
      expect(shown.series.length).toBeGreaterThan(0)
      const list = await fleet.postern(["devices", "list"])
      expect(list.stdout).toContain("process_missing")
      const show = await fleet.postern(["devices", "show", "pi"])
      expect(show.stdout).toContain("not-there")
      expect(show.stdout).toContain("last 24 hours")
      const status = await fleet.ask<{ warnings: ReadonlyArray<string> }>(["status"])
      expect(status.warnings.join("\n")).toContain("process_missing")
      const local = await fleet.postern(["ps", "--state", device.state])
      expect(local.stdout).toContain("process_missing")
      const over = await fleet.postern(["history", "pi", "--since", "1h"])
      expect(over.stdout).toContain("memory free")
    },
    patienceMs
  )

  it(
    "tells of an outage once the server is there again: health, and its own history",
    async () => {
      const address = new URL(fleet.address).port
      await fleet.server.crash()
      const outage = async () => {
        const { events } = await historyOf(fleet, device)
        return events.some(({ kind, subject }) => kind === "outage" && subject === "server_unreachable")
      }
      await waitUntil("the outage in the history", outage, patienceMs, () =>
        device.program.log().slice(-3_000)
      )
      await fleet.startServer()
      const shown = await shownWhen(
        fleet,
        device,
        "a report of the outage",
        ({ health }) => health?.link.layer === "ok" && health.link.last_outage !== null
      )
      expect(shown.health?.link.last_outage?.layer).toBe("server_unreachable")
      const { events, trouble } = await historyOf(fleet, device)
      expect(trouble).toBeNull()
      expect(events.map(({ kind }) => kind)).toEqual(
        expect.arrayContaining(["start", "boot", "condition", "outage", "reached"])
      )
      expect(events.find(({ kind }) => kind === "outage")?.detail).toContain(address)
      const text = await fleet.postern(["history", "--state", device.state, "--kind", "reached"])
      expect(text.stdout).toContain("server_unreachable")
    },
    patienceMs
  )

  it(
    "remembers over kill -9, and begins anew where the file was damaged",
    async () => {
      await device.program.crash()
      const path = join(device.state, "history.db")
      device.program.start()
      const cut = async () =>
        (await historyOf(fleet, device)).events.find(({ kind }) => kind === "start")?.detail
      const started = () =>
        historyOf(fleet, device).then(
          () => true,
          () => false
        )
      await waitUntil("the client's answer", started, patienceMs, () => device.program.log().slice(-3_000))
      await waitUntil(
        "its start in the history",
        async () => (await cut()) === "the last one was cut off",
        patienceMs
      )
      expect((await historyOf(fleet, device)).events.some(({ kind }) => kind === "outage")).toBe(true)
      await device.program.crash()
      for (const suffix of ["-wal", "-shm"]) rmSync(`${path}${suffix}`, { force: true })
      writeFileSync(path, "nothing of the kind\n".repeat(1_000))
      device.program.start()
      // Its first polls prove the clock; it takes work as before from then on.
      await shownWhen(
        fleet,
        device,
        "the device to say so, and to take work",
        ({ blocked, degraded }) => degraded.includes("history_set_aside") && blocked === null
      )
      expect(existsSync(`${path}.damaged`)).toBe(true)
    },
    patienceMs
  )
})

describe.skipIf(!hasSmallDisk())("a device whose disk fills up", () => {
  let fleet: BuiltFleet
  let device: BuiltDevice
  beforeAll(async () => {
    fleet = await BuiltFleet.withServer()
    const { invitation } = await fleet.ask<{ invitation: string }>(["invite", "--name", "pi"])
    device = fleet.device("pi", invitation)
    appendFileSync(
      join(fleet.folder, "device-1.toml"),
      "health_interval_ms = 1000\nlong_poll_ms = 1000\ndisk_reserve_bytes = 10000000\n"
    )
    mkdirSync(device.state)
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=32m,mode=0700", "tmpfs", device.state])
    device.program.start()
    await fleet.ask(["devices", "accept", await fleet.waiting(device)])
    await fleet.takesWork(device)
  }, patienceMs)
  afterAll(async () => {
    if (device?.program.isRunning()) await device.program.crash()
    spawnSync("umount", ["-l", device.state])
    await fleet?.close()
  })

  it(
    "downloads nothing, polls on and says why; lives on a disk without a byte; and goes on when there is room",
    async () => {
      const filler = join(device.state, "filler")
      writeFileSync(filler, Buffer.alloc(24 * 1024 * 1024))
      const low = await shownWhen(
        fleet,
        device,
        "the poll to say so",
        ({ blocked }) => blocked === "disk_low"
      )
      expect(low.degraded).toContain("disk_low")
      const { job } = await fleet.ask<{ job: string }>([
        "run",
        "pi",
        "--detach",
        "--",
        "echo",
        "there is room"
      ])
      const { warnings } = await fleet.ask<{ warnings: ReadonlyArray<string> }>(["status"])
      expect(warnings.join("\n")).toContain("takes no work: disk_low")

      // Not a byte is left: the ledger, the history and the log cannot be written. The device polls all the same.
      const full = spawnSync("sh", ["-c", `cat /dev/zero >> ${filler}`])
      expect(full.stderr.toString()).toMatch(/No space/)
      const pid = device.clientPid()
      const before = (await fleet.ask<Shown>(["devices", "show", "pi"])).health?.at_ms ?? 0
      await shownWhen(
        fleet,
        device,
        "reports from a full disk",
        ({ health }) => (health?.at_ms ?? 0) > before + 4_000
      )
      expect(device.program.isRunning()).toBe(true)
      expect(device.clientPid()).toBe(pid)
      expect((await fleet.ask<{ state: string }>(["jobs", "show", job])).state).toMatch(/^(queued|offered)$/)

      rmSync(filler)
      expect((await fleet.finished(job, patienceMs)).state).toBe("succeeded")
      await shownWhen(
        fleet,
        device,
        "a poll without a word of it",
        ({ degraded }) => !degraded.includes("disk_low")
      )
      expect((await historyOf(fleet, device)).events.map(({ subject }) => subject)).toContain("disk_low")
    },
    2 * patienceMs
  )
})
