/**
 * Control groups (version 2), where the system has delegated a part of its tree to this process: systemd's
 * `Delegate=memory pids cpu`. One group per job holds memory, processes and processor share of the job as a whole.
 */
import { readFileSync, statSync } from "node:fs"
import { mkdir, readdir, readFile, rmdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { JobLimits } from "../../schemas/Manifest.ts"

/** The delegated group; jobs' groups are made in it. */
export interface ControlGroups {
  readonly folder: string
  /** Makes names of groups differ within this life. */
  next: number
}

export interface ControlGroup {
  readonly folder: string
  readonly peakMemoryBytes: () => number | null
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

const removalTries = 200
const removalPauseMs = 10

/**
 * Kills what a group still holds and removes it. A group goes only when its last process has been reaped.
 *
 * @returns whether it is gone; where not, the next start tries again
 */
export const removeControlGroup = async (folder: string): Promise<boolean> => {
  for (let tries = 0; tries < removalTries; tries++) {
    await writeFile(join(folder, "cgroup.kill"), "1", { flag: "r+" }).catch(() => undefined)
    const gone = await rmdir(folder).then(
      () => true,
      (error: NodeJS.ErrnoException) => error.code === "ENOENT"
    )
    if (gone) return true
    await new Promise((resolve) => setTimeout(resolve, removalPauseMs))
  }
  return false
}

/** Removes the groups of jobs that earlier lives left; nothing of this life can be among them yet. */
const sweep = async (folder: string): Promise<void> => {
  for (const name of await readdir(folder).catch(() => [])) {
    if (name.startsWith(jobPrefix)) await removeControlGroup(join(folder, name))
  }
}

/** Makes one folder; fine where it is there. Never Node's `recursive`, which can spin for ever in such file systems. */
const makeFolder = async (folder: string): Promise<void> => {
  await mkdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error
  })
}

const enable = async (own: string): Promise<string> => {
  // After a restart within one unit the process may find itself in the leaf that an earlier life made.
  const folder = own.endsWith(`/${clientGroup}`) ? join(own, "..") : own
  const offered = (await readFile(join(folder, "cgroup.controllers"), "utf8")).trim().split(" ")
  if (!controllers.every((name) => offered.includes(name)))
    throw new Error("not all controllers are delegated")
  const leaf = join(folder, clientGroup)
  await makeFolder(leaf)
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
export const openControlGroups = async (
  delegated: boolean,
  own: string | null = ownFolder()
): Promise<ControlGroups | null> => {
  if (!delegated || own === null) return null
  try {
    if (statSync(own).uid !== process.getuid?.()) return null
    const folder = await enable(own)
    await sweep(folder)
    return { folder, next: 1 }
  } catch {
    return null
  }
}

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

/**
 * Makes a group for one job; to be removed by {@link removeControlGroup}. Null where there are no control groups.
 *
 * @throws Error where the group cannot be made or set; nothing is left of it then
 */
export const makeControlGroup = async (
  groups: ControlGroups | null,
  limits: JobLimits
): Promise<ControlGroup | null> => {
  if (groups === null) return null
  const folder = join(groups.folder, `${jobPrefix}${groups.next}`)
  groups.next += 1
  try {
    await mkdir(folder)
    for (const [file, value] of controlGroupSettings(limits)) await writeFile(join(folder, file), value)
    // Not every kernel accounts for swap.
    await writeFile(join(folder, "memory.swap.max"), "0").catch(() => undefined)
  } catch (error) {
    await removeControlGroup(folder)
    throw new Error(`making the job's control group: ${String(error)}`)
  }
  const peakMemoryBytes = (): number | null => {
    try {
      return Number(readFileSync(join(folder, "memory.peak"), "utf8"))
    } catch {
      return null
    }
  }
  return { folder, peakMemoryBytes }
}
