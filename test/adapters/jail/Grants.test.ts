/** What of the host is lent to a job and what is not: hostile paths, and the real jail with what is left. */
import { spawnSync } from "node:child_process"
import { chmodSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join, relative } from "node:path"
import { describe, expect, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import * as fc from "fast-check"
import { afterAll, beforeAll } from "vitest"
import {
  GrantRefused,
  judgePath,
  lendDevice,
  lendGrants,
  lendReadOnly
} from "../../../src/adapters/jail/GrantedPaths.ts"
import { jailSetting } from "../../../src/adapters/jail/JailSetting.ts"
import { localJobHost } from "../../../src/adapters/jail/JobHost.ts"
import { Jail } from "../../../src/ports/Jail.ts"
import { describeWith } from "../../support/requires.ts"
import { packageFolder, requestOf, shell, testLimits, withJail } from "./harness.ts"

let base = ""
const state = () => join(base, "state")

beforeAll(() => {
  base = mkdtempSync(join(tmpdir(), "postern-grants-"))
  chmodSync(base, 0o755)
  for (const folder of ["state", "state/keys", "data", "data/inner", "other"]) mkdirSync(join(base, folder))
  writeFileSync(join(base, "data/inner/reading.txt"), "21.5\n", { mode: 0o644 })
  writeFileSync(join(base, "state/keys/device.json"), "secret\n", { mode: 0o600 })
  symlinkSync(join(base, "data"), join(base, "link"))
  symlinkSync("/etc/shadow", join(base, "shadow"))
})
afterAll(() => rmSync(base, { recursive: true, force: true }))

const refusal = (path: string): string => {
  try {
    lendReadOnly(path, [state()])
    return ""
  } catch (error) {
    if (error instanceof GrantRefused) return error.message
    throw error
  }
}

describe("a read-only path", () => {
  it("is lent where it is a plain folder or file of nobody's", () => {
    expect(lendReadOnly(join(base, "data"), [state()])).toMatchObject({
      kind: "folder",
      name: null,
      group: null
    })
    expect(lendReadOnly(join(base, "data/inner/reading.txt"), [state()])).toMatchObject({ kind: "file" })
  })

  it.each([
    "/",
    "/proc",
    "/proc/1",
    "/sys",
    "/sys/kernel",
    "/dev",
    "/dev/sda",
    "/etc",
    "/etc/passwd",
    "/run",
    "/run/systemd",
    "/boot",
    "/root",
    "/usr",
    "/usr/bin",
    "/bin",
    "/lib",
    "/var",
    "/var/run",
    "/var/log"
  ])("is refused where it touches the system: %s", (path) => expect(refusal(path)).toMatch(/is the system's/))

  it("is refused where it is the state folder, the keys in it, or what they are in", () => {
    for (const path of [state(), join(state(), "keys"), join(state(), "keys/device.json"), base]) {
      expect(refusal(path)).toMatch(/keeps its own/)
    }
    expect(refusal(`${state()}s`)).toMatch(/ENOENT/)
  })

  it("is refused where it is not plain", () => {
    for (const path of [
      `${base}/data/../state`,
      `${base}/data/.`,
      `${base}//data`,
      `${base}/data/`,
      `${base}/data/..`
    ]) {
      expect(refusal(path)).toMatch(/not plain/)
    }
    expect(refusal("relative/path")).toMatch(/not absolute/)
  })

  it("is refused where it is a link, leads over one, or is not there", () => {
    expect(refusal(join(base, "link"))).toMatch(/neither a folder nor a plain file/)
    expect(refusal(join(base, "shadow"))).toMatch(/neither a folder nor a plain file/)
    expect(refusal(join(base, "link/inner"))).toMatch(/over a link/)
    expect(refusal(join(base, "nowhere"))).toMatch(/ENOENT/)
  })

  it("is refused where the tree holds a socket, a pipe, too much, or goes too deep", async () => {
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(join(base, "other/deep.sock"), resolve))
    try {
      expect(refusal(join(base, "other"))).toMatch(/deep.sock is a socket/)
      expect(refusal(join(base, "other/deep.sock"))).toMatch(/neither a folder nor a plain file/)
    } finally {
      await new Promise((resolve) => server.close(resolve))
    }
    expect(refusal(join(base, "other"))).toBe("")
    spawnSync("mkfifo", [join(base, "other/pipe")])
    expect(refusal(join(base, "other"))).toMatch(/pipe is no plain file/)
    rmSync(join(base, "other/pipe"))
    mkdirSync(join(base, "deep", ...Array.from({ length: 33 }, () => "d")), { recursive: true })
    expect(refusal(join(base, "deep"))).toMatch(/deeper than 32/)
  })

  it("of any text is refused or is exactly what it says", () => {
    const part = fc.oneof(
      fc.constantFrom("..", ".", "", "data", "state", "link", "inner", "etc", "\0", "a b"),
      fc.string()
    )
    fc.assert(
      fc.property(fc.array(part, { maxLength: 6 }), fc.constantFrom("/", `${base}/`, ""), (parts, start) => {
        const path = start + parts.join("/")
        try {
          judgePath(path, [state()])
        } catch (error) {
          return error instanceof GrantRefused
        }
        const inside = relative(state(), path)
        return (
          path.startsWith("/") &&
          !path.split("/").includes("..") &&
          (inside.startsWith("..") || inside.startsWith("/"))
        )
      })
    )
  })
})

describe("a device", () => {
  const devices = {
    disk: "/dev/sda",
    memory: "/dev/mem",
    nothing: "/dev/null",
    terminal: "/dev/tty",
    far: "/dev/ttyUSB99",
    file: "/etc/passwd"
  }
  it.each([
    ["nothing", /no serial line/],
    ["far", /plugged in/],
    ["file", /does not lie in/],
    ["unnamed", /none of that name/]
  ])("is refused: %s", (name, why) => {
    const rules = { devices, readOnly: [], privatePaths: [], uidBase: null }
    expect(() => lendGrants({ devices: [name], read_only: [] }, rules)).toThrow(why)
  })
  it("is refused where a link in /dev leads elsewhere", () => {
    expect(() => lendDevice("x", "/dev/fd/../../etc/passwd", false)).toThrow(GrantRefused)
    expect(() => lendDevice("x", "/dev/stdin", false)).toThrow(GrantRefused)
  })
})

/** Runs a command with grants in the real jail; what it wrote, and its errors. */
const runWith = (
  command: ReadonlyArray<string>,
  grants: { readonly devices: ReadonlyArray<string>; readonly read_only: ReadonlyArray<string> },
  options: { readonly devices?: Readonly<Record<string, string>>; readonly readOnly?: ReadonlyArray<string> }
) => {
  const run = Effect.gen(function* (): Effect.gen.Return<string, unknown, Jail | Scope.Scope> {
    const said: Array<string> = []
    const request = requestOf(
      { command, onOutput: (_, bytes) => Effect.sync(() => void said.push(Buffer.from(bytes).toString())) },
      yield* packageFolder
    )
    const started = yield* (yield* Jail).run({ ...request, grants })
    yield* started.result
    return said.join("")
  })
  return withJail(run, { ...options, privatePaths: [state()] })
}

describeWith(["jail"], "the jail with grants", () => {
  it.live("shows what was granted, read-only, and nothing beside it", () =>
    Effect.gen(function* () {
      const data = join(base, "data")
      const look = `cat ${data}/inner/reading.txt; echo x >${data}/new; ls ${base}; ls ${base}/state`
      const said = yield* runWith(
        shell(`(${look}) 2>&1`),
        { devices: [], read_only: [data] },
        { readOnly: [data] }
      )
      expect(said).toContain("21.5\n")
      expect(said).toMatch(/Read-only file system/)
      expect(said).toMatch(/\ndata\n/)
      expect(said).toMatch(/state': No such file/)
    })
  )

  it.live("refuses what the owner did not list, and what no owner can", () =>
    Effect.gen(function* () {
      const ask = (path: string, readOnly: ReadonlyArray<string>) =>
        Effect.flip(runWith(["true"], { devices: [], read_only: [path] }, { readOnly }))
      expect(yield* ask(join(base, "data"), [])).toMatchObject({ reason: "grant_refused" })
      expect(yield* ask("/etc", ["/etc"])).toMatchObject({ reason: "grant_refused" })
      expect(yield* ask(state(), [state()])).toMatchObject({ reason: "grant_refused" })
    })
  )

  it("runs nothing where the folder is swapped for a link between the look and the mount", async () => {
    const victim = join(base, "swapped")
    const secret = join(base, "secret")
    mkdirSync(victim)
    mkdirSync(secret)
    const setting = await jailSetting({ readOnly: [victim], privatePaths: [state()] })
    const host = localJobHost(setting)
    const events: Array<string> = []
    await new Promise<void>((resolve) => {
      const job = host.start(
        {
          command: ["true"],
          environment: {},
          package: null,
          limits: testLimits,
          grants: { devices: [], read_only: [victim] }
        },
        {
          refused: (reason, detail) => {
            events.push(`refused ${reason} ${detail}`)
            resolve()
          },
          ready: () => {
            events.push("ready")
            job.release()
          },
          begun: () => events.push("begun"),
          ended: ({ message }) => {
            events.push(`ended ${message}`)
            resolve()
          }
        }
      )
      // The look has been taken; the chain, another process, is not even started before this turn of the event loop ends.
      renameSync(victim, `${victim}.away`)
      symlinkSync(secret, victim)
    })
    expect(events).toEqual([expect.stringMatching(/^ended .*was changed while it was granted/)])
  })
})

/** A serial line that no driver holds: where permission is given, opening it fails for another reason than that. */
const meter = "/dev/ttyUSB199"
const makeMeter = (): boolean =>
  process.getuid?.() === 0 && spawnSync("mknod", ["-m", "0660", meter, "c", "188", "199"]).status === 0

describeWith(["jail", "root"], "a device of the right kind", () => {
  it.live("is lent by its name, through its group, and no other is", () =>
    Effect.gen(function* () {
      yield* Effect.acquireRelease(
        Effect.sync(() => expect(makeMeter()).toBe(true)),
        () => Effect.sync(() => rmSync(meter))
      )
      const options = { devices: { meter } }
      const ask = runWith(
        shell(`ls $POSTERN_DEVICE_METER; cat ${meter} 2>&1; id -G; ls /dev | grep -c ttyUSB`),
        { devices: ["meter"], read_only: [] },
        options
      )
      expect(yield* Effect.flip(ask)).toMatchObject({ reason: "grant_refused" })
      spawnSync("chgrp", ["20", meter])
      const said = yield* ask
      expect(said).toContain(`${meter}\n`)
      expect(said).toMatch(/No such device|Operation not permitted/)
      expect(said).toMatch(/\n1\n$/)
    }).pipe(Effect.scoped)
  )
})
