/**
 * Start and size of the built programs beside bare Node: how long `--version` takes, how long a device's client takes from
 * its start to its work (warden, client, checks, database, all actors), and how much memory a device (its warden and its
 * client) and a server hold that have nothing to do. Memory is what the system counts as resident, with the database's
 * thread.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { withFleet } from "./fleet.ts"
import { withFolder } from "./folder.ts"
import { type Bench, compare, median, takeTurns } from "./measure.ts"

const dist = join(import.meta.dirname, "../dist")

const ended = async (...args: ReadonlyArray<string>): Promise<void> => {
  const [code] = await once(spawn(process.execPath, args, { stdio: "ignore" }), "exit")
  if (code !== 0) throw new Error(`node ${args.join(" ")} ended with ${code}`)
}

const version = (program: string) => () => ended(join(dist, `${program}.js`), "--version")

/** How long a client takes from its start until it says that it runs, in a folder of its own and without a server. */
const timeToWork = async (folder: string): Promise<number> => {
  const config = join(folder, "client.toml")
  writeFileSync(config, 'server = "http://127.0.0.1:9"\n')
  const before = performance.now()
  const child = spawn(
    process.execPath,
    [join(dist, "client.js"), "--config", config, "--state", join(folder, "state")],
    { env: { PATH: process.env["PATH"] ?? "", HOME: folder }, stdio: ["ignore", "ignore", "pipe"] }
  )
  const ended = once(child, "exit")
  const stop = () => child.kill("SIGTERM")
  process.once("exit", stop)
  let said = ""
  await new Promise<void>((resolve, reject) => {
    child.stderr.setEncoding("utf8").on("data", (text) => {
      said += text
      if (said.includes(" runs as ")) resolve()
    })
    child.once("exit", () => reject(new Error(`the client ended:\n${said}`)))
  })
  const ms = performance.now() - before
  stop()
  await ended
  process.off("exit", stop)
  return ms
}

/** The median of some starts, after the first. */
const medianTimeToWork = async (folder: string, rounds: number): Promise<number> => {
  const times: Array<number> = []
  for (let round = -1; round < rounds; round++) {
    const ms = await timeToWork(folder)
    if (round >= 0) times.push(ms)
  }
  return median(times)
}

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
  const toWork = await withFolder("start", (folder) => medianTimeToWork(folder, short ? 5 : 15))
  const memory = await idleMemory(short)
  const time = (name: string) =>
    compare(
      { name: `${name} --version`, unit: "ms", better: "lower" },
      { [name]: times[name] as number, "node -e 0": times["node -e 0"] as number },
      name
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
    time("client"),
    compare(
      { name: "client, from its start to its work", unit: "ms", better: "lower" },
      { client: toWork, "node -e 0": times["node -e 0"] as number },
      "client",
      { "node -e 0": { atMost: 2.5 } }
    ),
    time("server"),
    time("postern"),
    resident("warden", 8),
    resident("client", 40),
    resident("server")
  ]
}
