/** Rollouts with the programs as they are shipped: one package, several devices, phases; and a server that cheats. */
import { mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { afterAll, beforeAll, expect, it } from "vitest"
import { type BuiltDevice, BuiltFleet } from "../support/BuiltFleet.ts"
import { waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"

const names = ["pi-a", "pi-b", "pi-c", "pi-d"] as const

interface ShownDevice {
  readonly name: string
  readonly phase: number
  readonly outcome: string
  readonly state: string | null
  readonly verified: boolean
}

interface Shown {
  readonly state: string
  readonly reason: string | null
  readonly phase: number
  readonly counts: Readonly<Record<string, number>>
  readonly devices: ReadonlyArray<ShownDevice>
  readonly alarms: ReadonlyArray<string>
}

describeWith(["jail"], "a rollout to a group", () => {
  let fleet: BuiltFleet
  let devices: ReadonlyArray<BuiltDevice>

  beforeAll(async () => {
    fleet = await BuiltFleet.withServer()
    devices = await Promise.all(names.map((name) => fleet.acceptedDevice(name)))
    await fleet.ask(["devices", "group", "add", "cellars", ...names])
  })
  afterAll(() => fleet?.close())

  /** A package for the group that runs a line of shell. */
  const built = async (name: string, script: string): Promise<string> => {
    const folder = join(fleet.folder, name)
    mkdirSync(folder)
    writeFileSync(join(folder, "run.sh"), `${script}\n`)
    writeFileSync(join(folder, "data.bin"), Buffer.alloc(200_000, name))
    const target = join(fleet.folder, `${name}.postern`)
    await fleet.ask([
      "package",
      "build",
      folder,
      "--group",
      "cellars",
      "-o",
      target,
      "--",
      "sh",
      "/package/run.sh"
    ])
    return target
  }

  const submitted = async (file: string, ...flags: ReadonlyArray<string>): Promise<string> => {
    const args = ["jobs", "submit", file, "--group", "cellars", "--yes", ...flags]
    return (await fleet.ask<{ rollout: string }>(args)).rollout
  }

  /** `rollouts show`, which fails where there is an alarm. */
  const show = async (id: string): Promise<Shown & { readonly code: number; readonly stderr: string }> => {
    const ended = await fleet.postern(["rollouts", "show", id, "--json"])
    return { ...(JSON.parse(ended.stdout) as Shown), code: ended.code, stderr: ended.stderr }
  }

  const payloads = (): ReadonlyArray<string> =>
    readdirSync(fleet.serverFolder, { recursive: true, encoding: "utf8" })
      .map((path) => join(fleet.serverFolder, path))
      .filter((path) => /payloads?\//.test(path) && statSync(path).isFile())

  it("reaches everybody, phase by phase, over a kill of the server; the payload is there once", async () => {
    const file = await built("good", "echo done")
    const id = await submitted(file, "--canary", "1", "--phases", "50%,100%", "--soak", "500ms")
    await fleet.server.crash()
    await fleet.startServer()
    const followed = await fleet.postern(["rollouts", "follow", id], { timeoutMs: 180_000 })
    expect(followed.code, followed.stderr).toBe(0)
    const listed = await fleet.ask<{ devices: ReadonlyArray<{ groups: unknown }> }>(["devices", "list"])
    expect(listed.devices.map(({ groups }) => groups)).toEqual(names.map(() => ["cellars"]))
    for (const name of names) expect(followed.stdout).toMatch(new RegExp(`${name} +\\d +succeeded +verified`))
    const { counts, devices: rows } = await show(id)
    expect(counts).toMatchObject({ succeeded: 4, failed: 0, missing: 0, open: 0, waiting: 0 })
    expect(rows.map(({ phase }) => phase)).toEqual([0, 1, 2, 2])
    const size = statSync(file).size
    expect(payloads().map((path) => statSync(path).size)).toEqual([size])
    // The next job of a device goes on behind the rollout's place.
    const next = await fleet.postern(["run", "pi-d", "--quiet", "--", "echo", "after"])
    expect(next.stdout, next.stderr).toBe("after\n")
  })

  it("stops at a canary that fails; nobody else gets it, and an abort takes the rest back", async () => {
    const id = await submitted(await built("bad", "exit 3"), "--soak", "1s")
    const followed = await fleet.postern(["rollouts", "follow", id], { timeoutMs: 180_000 })
    expect(followed.code, followed.stderr).toBe(1)
    expect(followed.stderr).toContain(`postern rollouts resume ${id}`)
    const paused = await show(id)
    expect(paused).toMatchObject({ state: "paused", reason: "too_few_succeeded", phase: 0, code: 0 })
    expect(paused.counts).toMatchObject({ failed: 1, waiting: 3 })
    // Other work passes the order that waits.
    const between = await fleet.postern(["run", "pi-d", "--quiet", "--", "echo", "between"])
    expect(between.stdout, between.stderr).toBe("between\n")

    const aborted = await fleet.ask<Shown>(["rollouts", "abort", id, "--yes"])
    expect(aborted.state).toBe("aborted")
    const after = await show(id)
    expect(after.counts).toMatchObject({ failed: 1, withdrawn: 3, open: 0, waiting: 0 })
    expect((await fleet.postern(["rollouts", "resume", id])).code).toBe(1)
  })

  it("cannot be cheated by a server unseen: orders released before their phase raise an alarm", async () => {
    const [canary] = devices as [BuiltDevice, ...Array<BuiltDevice>]
    await canary.program.stop(60_000)
    const id = await submitted(await built("early", "echo early"), "--soak", "1s", "--phase-timeout", "1h")
    expect(await show(id)).toMatchObject({ state: "running", code: 0, alarms: [] })
    await fleet.server.stop(60_000)
    const database = new DatabaseSync(join(fleet.serverFolder, "fleet.db"))
    database.exec("UPDATE jobs SET held = 0")
    database.close()
    await fleet.startServer()
    const seen = await waitUntil(
      "an alarm",
      async () => {
        const shown = await show(id)
        return shown.alarms.length > 0 ? shown : undefined
      },
      120_000
    )
    expect(seen.code).toBe(1)
    expect(seen.alarms.join("\n")).toContain("the server went on before phase 1 had succeeded")
    expect(seen.stderr).toContain("ALARM")
    await fleet.postern(["rollouts", "abort", id, "--yes"])
  })
})
