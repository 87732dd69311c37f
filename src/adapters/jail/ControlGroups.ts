/**
 * Control groups (version 2), where the system has delegated a part of its tree to this process: systemd's
 * `Delegate=memory pids cpu`. One group per job holds memory, processes and processor share of the job as a whole.
 */
import { readFileSync, statSync } from "node:fs"
import { mkdir, readdir, readFile, rmdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { Scope } from "effect"
import { Effect, Schedule } from "effect"
import type { JobLimits } from "../../schemas/Manifest.ts"
import { ScratchError } from "./Scratch.ts"

/** The delegated group; jobs' groups are made in it. */
export interface ControlGroups {
  readonly folder: string
  /** Makes names of groups differ within this life. */
  next: number
}

export interface ControlGroup {
  readonly folder: string
  readonly peakMemoryBytes: Effect.Effect<number | null>
}

const controllers = ["memory", "pids", "cpu"] as const

/** Names of jobs' groups begin with this: what bears it at the start is left over from an earlier life. */
const jobPrefix = "postern-job-"
/** The group this process itself moves to: a group that holds processes cannot give controllers to its children. */
const clientGroup = "postern-client"

/** Processes that jobs' groups hold besides the job: guard, init, monitor, the jail's process 1. */
const chainProcesses = 4

const ownFolder = (): string | null => {
  try {
    const mounted = /^\S+ \S+ \S+ \/ (\S+) .* - cgroup2 /m.exec(
      readFileSync("/proc/self/mountinfo", "utf8")
    )?.[1]
    const path = /^0::(\/.*)$/m.exec(readFileSync("/proc/self/cgroup", "utf8"))?.[1]
    return mounted === undefined || path === undefined
      ? null
      : join(mounted, path.replace(/ \(deleted\)$/, ""))
  } catch {
    return null
  }
}

/** Kills what a group still holds and removes it. A group goes only when its last process has been reaped. */
export const removeControlGroup = (folder: string): Effect.Effect<void> =>
  Effect.tryPromise(async () => {
    await writeFile(join(folder, "cgroup.kill"), "1", { flag: "r+" }).catch(() => undefined)
    await rmdir(folder)
  }).pipe(
    Effect.retry(Schedule.max([Schedule.spaced("10 millis"), Schedule.recurs(200)])),
    Effect.catch(() =>
      Effect.logWarning(`The control group ${folder} could not be removed; the next start tries again.`)
    )
  )

/** Removes the groups of jobs that earlier lives left; nothing of this life can be among them yet. */
const sweep = (folder: string): Effect.Effect<void> =>
  Effect.promise(() => readdir(folder).catch(() => [])).pipe(
    Effect.flatMap((names) =>
      Effect.forEach(
        names.filter((name) => name.startsWith(jobPrefix)),
        (name) => removeControlGroup(join(folder, name)),
        { discard: true }
      )
    )
  )

const enable = async (own: string): Promise<string> => {
  // After a restart within one unit the process may find itself in the leaf that an earlier life made.
  const folder = own.endsWith(`/${clientGroup}`) ? join(own, "..") : own
  const offered = (await readFile(join(folder, "cgroup.controllers"), "utf8")).trim().split(" ")
  if (!controllers.every((name) => offered.includes(name)))
    throw new Error("not all controllers are delegated")
  const leaf = join(folder, clientGroup)
  await mkdir(leaf, { recursive: true })
  for (const pid of (await readFile(join(folder, "cgroup.procs"), "utf8"))
    .split("\n")
    .filter((line) => line !== "")) {
    await writeFile(join(leaf, "cgroup.procs"), pid)
  }
  await writeFile(join(folder, "cgroup.subtree_control"), controllers.map((name) => `+${name}`).join(" "))
  return folder
}

/**
 * Takes possession of the delegated group: moves this process to a leaf, turns the controllers on, sweeps. Null where
 * none is delegated, or where that fails: rlimits hold then, and the report says so.
 *
 * @param own the group this process is in; found by itself in production
 */
export const openControlGroups = (
  delegated: boolean,
  own: string | null = ownFolder()
): Effect.Effect<ControlGroups | null> =>
  Effect.gen(function* () {
    if (!delegated || own === null) return null
    const owned = yield* Effect.try(() => statSync(own).uid === process.getuid?.())
    if (!owned) return null
    const folder = yield* Effect.tryPromise(() => enable(own))
    yield* sweep(folder)
    return { folder, next: 1 }
  }).pipe(Effect.orElseSucceed(() => null))

/** What a job's group is set to. */
export const controlGroupSettings = (
  limits: JobLimits
): ReadonlyArray<readonly [file: string, value: string]> => [
  // The job's disk is memory too, and is charged to it.
  ["memory.max", String(limits.memory_bytes + limits.disk_bytes)],
  ["memory.oom.group", "1"],
  ["pids.max", String(limits.processes + chainProcesses)],
  ["cpu.max", `${limits.cpu_percent * 1_000} 100000`]
]

/** A group for one job, removed with all that is in it when the scope closes. Null where there are no control groups. */
export const acquireControlGroup = (
  groups: ControlGroups | null,
  limits: JobLimits
): Effect.Effect<ControlGroup | null, ScratchError, Scope.Scope> => {
  if (groups === null) return Effect.succeed(null)
  const folder = join(groups.folder, `${jobPrefix}${groups.next}`)
  groups.next += 1
  const make = Effect.tryPromise({
    try: async (): Promise<ControlGroup> => {
      await mkdir(folder)
      for (const [file, value] of controlGroupSettings(limits)) await writeFile(join(folder, file), value)
      // Not every kernel accounts for swap.
      await writeFile(join(folder, "memory.swap.max"), "0").catch(() => undefined)
      const peakMemoryBytes = Effect.promise(() =>
        readFile(join(folder, "memory.peak"), "utf8").then(Number, () => null)
      )
      return { folder, peakMemoryBytes }
    },
    catch: (error) => new ScratchError({ detail: `making the job's control group: ${String(error)}` })
  }).pipe(Effect.tapError(() => removeControlGroup(folder)))
  return Effect.acquireRelease(make, (group) => removeControlGroup(group.folder))
}
