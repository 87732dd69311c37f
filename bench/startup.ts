/**
 * Start and size of the built programs beside bare Node: how long `--version` takes, and how much memory a device (its
 * warden and its client) and a server hold that have nothing to do. Memory is what the system counts as resident, with the database's thread.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { withFleet } from "./fleet.ts"
import { type Bench, compare, median, takeTurns } from "./measure.ts"

const dist = join(import.meta.dirname, "../dist")

const ended = async (...args: ReadonlyArray<string>): Promise<void> => {
  const [code] = await once(spawn(process.execPath, args, { stdio: "ignore" }), "exit")
  if (code !== 0) throw new Error(`node ${args.join(" ")} ended with ${code}`)
}

const version = (program: string) => () => ended(join(dist, `${program}.js`), "--version")

/** Resident memory of a process in MiB. */
const residentMiB = (pid: number): number => {
  const line = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))
  if (line === null) throw new Error(`the system does not say how much memory process ${pid} holds`)
  return Number(line[1]) / 1024
}

/** A Node that waits, and says so. */
const idleNode = async (): Promise<ChildProcess> => {
  const child = spawn(process.execPath, ["-e", "setInterval(() => {}, 1e9); console.log('up')"], {
    stdio: ["ignore", "pipe", "inherit"]
  })
  await once(child.stdout as NonNullable<ChildProcess["stdout"]>, "data")
  return child
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** The median over a time in which nothing is asked of anybody. */
const watchMemory = (pids: Readonly<Record<string, number>>, seconds: number) =>
  Array.from({ length: seconds * 2 }).reduce<Promise<Record<string, ReadonlyArray<number>>>>(
    async (before) => {
      const seen = await before
      await pause(500)
      return Object.fromEntries(
        Object.entries(pids).map(([name, pid]) => [name, [...(seen[name] ?? []), residentMiB(pid)]])
      )
    },
    Promise.resolve({})
  )

const idleMemory = (short: boolean) =>
  withFleet(async ({ device, fleet }) => {
    const bare = await idleNode()
    try {
      const client = device.clientPid()
      if (client === undefined) throw new Error("the device's client does not run")
      const pids = {
        warden: device.program.pid,
        client,
        server: fleet.server.pid,
        "bare Node": bare.pid as number
      }
      const seen = await watchMemory(pids, short ? 3 : 20)
      return Object.fromEntries(Object.entries(seen).map(([name, values]) => [name, median(values)]))
    } finally {
      bare.kill()
    }
  })

export const run: Bench = async ({ short }) => {
  const times = await takeTurns(
    {
      client: version("client"),
      server: version("server"),
      postern: version("cli"),
      "node -e 0": () => ended("-e", "0")
    },
    { warmUp: 2, rounds: short ? 10 : 40 }
  )
  const memory = await idleMemory(short)
  const time = (name: string, atMost?: number) =>
    compare(
      { name: `${name} --version`, unit: "ms", better: "lower" },
      { [name]: times[name] as number, "node -e 0": times["node -e 0"] as number },
      name,
      atMost === undefined ? {} : { "node -e 0": { atMost } }
    )
  const bareMiB = memory["bare Node"] as number
  /** The aim is a number of MiB beyond bare Node, here as the ratio that this makes. */
  const resident = (name: string, moreMiB?: number) =>
    compare(
      { name: `${name}, idle`, unit: "MiB", better: "lower" },
      { [name]: memory[name] as number, "bare Node": bareMiB },
      name,
      moreMiB === undefined ? {} : { "bare Node": { atMost: (bareMiB + moreMiB) / bareMiB } }
    )
  return [
    time("client", 2.5),
    time("server"),
    time("postern"),
    resident("warden", 8),
    resident("client", 40),
    resident("server")
  ]
}
