/**
 * The processes of one run, seen from the host, and signals to them. Reads /proc, which answers from memory and never
 * waits, so these are plain synchronous functions. Used when a run is ended by force, and
 * now and then to weigh a job's memory.
 */
import { readdirSync, readFileSync } from "node:fs"

interface Process {
  readonly pid: number
  readonly parent: number
}

/** All processes of the host as (pid, parent). One that ends while being looked at is left out. */
const allProcesses = (): ReadonlyArray<Process> =>
  readdirSync("/proc")
    .filter((name) => /^[0-9]+$/.test(name))
    .flatMap((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, "latin1")
        // The command's name stands in brackets and may itself hold brackets and spaces: count from the last one.
        const parent = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1])
        return Number.isInteger(parent) ? [{ pid: Number(name), parent }] : []
      } catch {
        return []
      }
    })

/** The processes below `root`, generation by generation: children first, then theirs. */
const generations = (root: number): ReadonlyArray<ReadonlyArray<number>> => {
  const children = new Map<number, Array<number>>()
  for (const { pid, parent } of allProcesses()) {
    const siblings = children.get(parent)
    if (siblings === undefined) children.set(parent, [pid])
    else siblings.push(pid)
  }
  const found: Array<ReadonlyArray<number>> = []
  let generation: ReadonlyArray<number> = children.get(root) ?? []
  while (generation.length > 0) {
    found.push(generation)
    generation = generation.flatMap((pid) => children.get(pid) ?? [])
  }
  return found
}

/** Sends a signal; a process that is gone already is no failure. Answers whether it was there. */
export const signalProcess = (pid: number, signal: NodeJS.Signals): boolean => {
  try {
    return process.kill(pid, signal)
  } catch {
    return false
  }
}

/**
 * Signals every process of the job proper: those below the jail's process 1, which itself is the third generation below
 * the guard (see Launch.ts). Answers how many there were.
 */
export const signalJob = (guard: number, signal: NodeJS.Signals): number =>
  generations(guard)
    .slice(3)
    .flat()
    .filter((pid) => signalProcess(pid, signal)).length

/** The sum of some `Key:   123 kB` lines of a file in /proc, in bytes; null for a process that is gone. */
const sumOfLines = (path: string, keys: ReadonlyArray<string>): number | null => {
  try {
    const text = readFileSync(path, "latin1")
    const kibibytes = (key: string) => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0)
    return keys.reduce((sum, key) => sum + kibibytes(key) * 1024, 0)
  } catch {
    return null
  }
}

/** Memory of its own that a process has resident: anonymous and shared, but no file's. */
const ownMemoryBytes = (pid: number): number =>
  sumOfLines(`/proc/${pid}/status`, ["RssAnon", "RssShmem"]) ?? 0

/** The same without counting twice what processes share since their fork: exact, and slow for large processes. */
const proportionalMemoryBytes = (pid: number): number =>
  sumOfLines(`/proc/${pid}/smaps_rollup`, ["Pss_Anon", "Pss_Shmem"]) ?? ownMemoryBytes(pid)

/** Memory of the whole job. The exact measure is taken only where the quick one, which can only be too high, exceeds. */
export const jobMemoryBytes = (guard: number, limitBytes: number): number => {
  const job = generations(guard).slice(3).flat()
  const sum = (measure: (pid: number) => number) => job.reduce((total, pid) => total + measure(pid), 0)
  const quick = sum(ownMemoryBytes)
  return quick <= limitBytes ? quick : sum(proportionalMemoryBytes)
}

/** Kills init, and with it, by the kernel's rule for a process 1, everything in its process namespace. */
export const killInit = (guard: number): void => {
  for (const pid of generations(guard)[0] ?? []) signalProcess(pid, "SIGKILL")
}

/** Kills the guard's whole process group, for when nothing gentler helped. */
export const killChain = (guard: number): void => {
  signalProcess(-guard, "SIGKILL")
}

/**
 * Open descriptors of this process, from `from` on, that a child would inherit: those somebody handed to this process
 * without close-on-exec. Node itself opens none such.
 */
export const inheritableDescriptors = (from: number): ReadonlyArray<number> => {
  const closeOnExec = 0o2000000
  return readdirSync("/proc/self/fd")
    .map(Number)
    .filter((descriptor) => descriptor >= from)
    .filter((descriptor) => {
      try {
        const flags = /^flags:\s*([0-7]+)$/m.exec(
          readFileSync(`/proc/self/fdinfo/${descriptor}`, "latin1")
        )?.[1]
        return flags !== undefined && (Number.parseInt(flags, 8) & closeOnExec) === 0
      } catch {
        return false
      }
    })
}
