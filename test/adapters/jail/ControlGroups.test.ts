import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import {
  controlGroupSettings,
  openControlGroups,
  removeControlGroup
} from "../../../src/adapters/jail/ControlGroups.ts"
import { testLimits } from "./harness.ts"

/** A folder that looks like a delegated control group; the kernel's part is played by plain files. */
const imitation = Effect.acquireRelease(
  Effect.sync(() => {
    const folder = mkdtempSync(join(tmpdir(), "postern-cgroup-"))
    writeFileSync(join(folder, "cgroup.controllers"), "cpuset cpu io memory pids\n")
    writeFileSync(join(folder, "cgroup.procs"), "4711\n")
    return folder
  }),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
)

describe("taking possession of a delegated control group", () => {
  it.live(
    "moves what is in it to a leaf, turns the controllers on and sweeps what an earlier life left",
    () =>
      Effect.gen(function* () {
        const folder = yield* imitation
        mkdirSync(join(folder, "postern-job-3"))
        mkdirSync(join(folder, "somebody-else"))
        expect(yield* Effect.promise(() => openControlGroups(true, folder))).toEqual({ folder, next: 1 })
        expect(readFileSync(join(folder, "postern-client/cgroup.procs"), "utf8")).toBe("4711")
        expect(readFileSync(join(folder, "cgroup.subtree_control"), "utf8")).toBe("+memory +pids +cpu")
        expect(existsSync(join(folder, "postern-job-3"))).toBe(false)
        expect(existsSync(join(folder, "somebody-else"))).toBe(true)
      })
  )

  it.live("is left where a controller is missing, nothing is delegated, or the group is another's", () =>
    Effect.gen(function* () {
      const folder = yield* imitation
      expect(yield* Effect.promise(() => openControlGroups(false, folder))).toBe(null)
      expect(yield* Effect.promise(() => openControlGroups(true, join(folder, "nowhere")))).toBe(null)
      writeFileSync(join(folder, "cgroup.controllers"), "cpu pids\n")
      expect(yield* Effect.promise(() => openControlGroups(true, folder))).toBe(null)
      if (process.getuid?.() !== 0)
        expect(yield* Effect.promise(() => openControlGroups(true, "/"))).toBe(null)
    })
  )

  it("sets memory and disk together, processes with the chain's own, and the share of the processor", () => {
    const limits = {
      ...testLimits,
      memory_bytes: 100_000_000,
      disk_bytes: 20_000_000,
      processes: 10,
      cpu_percent: 150
    }
    expect(Object.fromEntries(controlGroupSettings(limits))).toEqual({
      "memory.max": "120000000",
      "memory.oom.group": "1",
      "pids.max": "14",
      "cpu.max": "150000 100000"
    })
  })
})

/** Where the kernel's control groups, version 2, are mounted and writable to us; null elsewhere. */
const realRoot = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].find((folder) => {
  try {
    return (
      existsSync(join(folder, "cgroup.procs")) &&
      existsSync(join(folder, "cgroup.controllers")) &&
      process.getuid?.() === 0 &&
      statSync(folder).uid === 0
    )
  } catch {
    return false
  }
})

describe.skipIf(realRoot === undefined)("removing a real control group", () => {
  it.live("kills what is in it first", () =>
    Effect.gen(function* () {
      const folder = join(realRoot ?? "", `postern-test-${process.pid}`)
      mkdirSync(folder)
      const child = spawn("sleep", ["100"], { stdio: "ignore" })
      writeFileSync(join(folder, "cgroup.procs"), String(child.pid))
      const exit = once(child, "exit")
      expect(yield* Effect.promise(() => removeControlGroup(folder))).toBe(true)
      expect((yield* Effect.promise(() => exit))[1]).toBe("SIGKILL")
      expect(existsSync(folder)).toBe(false)
    })
  )
})
