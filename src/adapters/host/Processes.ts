/**
 * The machine's processes from /proc: how many, the largest, our own, and whether those that must run do.
 *
 * @module
 */
import { readdir, readFile } from "node:fs/promises"
import { join } from "node:path"
import { Effect } from "effect"
import type { HealthReport, ProcessFigure } from "../../schemas/Health.ts"
import { label, orNull } from "./Reading.ts"

type ProcessesView = HealthReport["processes"]

/** A machine with more is looked at only so far. */
const maximumProcesses = 4_096
const maximumLargest = 5
const maximumOwn = 8
const readTogether = 32

interface Seen extends ProcessFigure {
  readonly parent: number
}

/** One line of /proc/PID/stat: `pid (name) state ppid … rss …`; the name may hold anything, so it ends at the last `)`. */
const parseStat = (text: string, pageBytes: number): Seen | undefined => {
  const open = text.indexOf("(")
  const close = text.lastIndexOf(")")
  const rest = text.slice(close + 2).split(" ")
  const [pid, parent, pages] = [Number(text.slice(0, open)), Number(rest[1]), Number(rest[21])]
  if (open < 0 || ![pid, parent, pages].every(Number.isSafeInteger)) return undefined
  return {
    pid,
    parent,
    name: label(text.slice(open + 1, close), 32),
    memory_bytes: Math.max(0, pages) * pageBytes
  }
}

/** Page size: 4 KiB on all but some kernels for the Pi 5 (16 KiB), where this process's own two figures tell it. */
const pageBytesOf = async (proc: string): Promise<number> => {
  const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(await readFile(join(proc, "self/status"), "utf8"))?.[1]
  const pages = Number((await readFile(join(proc, "self/stat"), "utf8")).split(") ")[1]?.split(" ")[21])
  const ratio = (Number(kilobytes) * 1024) / pages
  return [4_096, 16_384, 65_536].find((size) => ratio < size * 2) ?? 4_096
}

const readAll = async (proc: string): Promise<ReadonlyArray<Seen>> => {
  const pageBytes = await pageBytesOf(proc).catch(() => 4_096)
  const names = (await readdir(proc)).filter((name) => /^[0-9]+$/.test(name)).slice(0, maximumProcesses)
  const seen: Array<Seen> = []
  for (let start = 0; start < names.length; start += readTogether) {
    const texts = await Promise.allSettled(
      names.slice(start, start + readTogether).map((name) => readFile(join(proc, name, "stat"), "utf8"))
    )
    for (const text of texts) {
      // One that ended meanwhile is no fault.
      const found = text.status === "fulfilled" ? parseStat(text.value, pageBytes) : undefined
      if (found !== undefined) seen.push(found)
    }
  }
  return seen
}

/** A process and everything below it. */
const treeOf = (root: number, all: ReadonlyArray<Seen>): ReadonlyArray<Seen> => {
  const children = Map.groupBy(all, ({ parent }) => parent)
  const found = all.filter(({ pid }) => pid === root)
  for (let index = 0; index < found.length; index++)
    found.push(...(children.get((found[index] as Seen).pid) ?? []).filter((child) => !found.includes(child)))
  return found
}

const figure = ({ memory_bytes, name, pid }: Seen): ProcessFigure => ({ pid, name, memory_bytes })

const largestOf = (all: ReadonlyArray<Seen>, count: number): ReadonlyArray<ProcessFigure> =>
  [...all]
    .sort((a, b) => b.memory_bytes - a.memory_bytes || a.pid - b.pid)
    .slice(0, count)
    .map(figure)

/** The processes as a report tells them. `required` are names as `ps -o comm` shows them (15 characters). */
export const processesOf = (
  proc: string,
  own: number,
  required: ReadonlyArray<string>
): Effect.Effect<ProcessesView> =>
  Effect.map(
    orNull(() => readAll(proc)),
    (all): ProcessesView => ({
      count: all?.length ?? null,
      largest: largestOf(all ?? [], maximumLargest),
      own: largestOf(treeOf(own, all ?? []), maximumOwn),
      // Where nothing can be read, nothing is known to be missing.
      required: required.map((name) => ({
        name: label(name, 32),
        running: all === null || all.some((process) => process.name === label(name.slice(0, 15), 32))
      }))
    })
  )
