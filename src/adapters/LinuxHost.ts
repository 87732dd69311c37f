/**
 * The port `HostProbe` from /proc, /sys and statfs. What a machine does not have, or does not tell, is null.
 *
 * @module
 */
import { readdir, readFile, statfs } from "node:fs/promises"
import {
  availableParallelism,
  hostname,
  loadavg,
  networkInterfaces,
  release,
  totalmem,
  uptime
} from "node:os"
import { join } from "node:path"
import { Effect, Layer } from "effect"
import { type HostFigures, HostProbe, ProbeError } from "../ports/HostProbe.ts"
import { errorText } from "./files/AtomicFile.ts"
import { machineOf, systemOf } from "./host/Machine.ts"
import { processesOf } from "./host/Processes.ts"
import { label, numberOf, orNull, readingMs, textOf, whole } from "./host/Reading.ts"

export interface LinuxHostOptions {
  /** Where free disk is counted. */
  readonly stateFolder: string
  /** Names of processes that must run. */
  readonly requiredProcesses?: ReadonlyArray<string>
  /** The root of the process tree that is ours; default this process. */
  readonly ownProcess?: number
  /** For tests: where /proc, /sys and /etc are. */
  readonly proc?: string
  readonly sys?: string
  readonly etc?: string
}

const maximumAdapters = 32
const maximumAddresses = 16

interface Memory {
  readonly available: number | null
  readonly swapTotal: number | null
  readonly swapFree: number | null
}

const noMemory: Memory = { available: null, swapTotal: null, swapFree: null }

const memory = (proc: string): Effect.Effect<Memory> =>
  Effect.map(
    orNull(async () => {
      const text = await readFile(join(proc, "meminfo"), "utf8")
      const bytes = (name: string) => {
        const kilobytes = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(text)?.[1]
        return kilobytes === undefined ? null : whole(Number(kilobytes) * 1024)
      }
      return { available: bytes("MemAvailable"), swapTotal: bytes("SwapTotal"), swapFree: bytes("SwapFree") }
    }),
    (found) => found ?? noMemory
  )

/** The hottest thermal zone that tells something a machine can survive. */
const temperature = (sys: string) =>
  orNull(async () => {
    const folder = join(sys, "class/thermal")
    const zones = (await readdir(folder)).filter((name) => name.startsWith("thermal_zone"))
    const texts = await Promise.allSettled(zones.map((zone) => readFile(join(folder, zone, "temp"), "utf8")))
    const degrees = texts.flatMap((text) => {
      const value =
        text.status === "fulfilled" && text.value.trim() !== "" ? Number(text.value) / 1000 : Number.NaN
      return value > -60 && value < 200 ? [value] : []
    })
    return degrees.length === 0 ? null : Math.max(...degrees)
  })

const disk = (folder: string) => async () => {
  const { bavail, blocks, bsize, ffree, files } = await statfs(folder)
  // Some file systems have no table of entries, and say so by having none at all.
  return {
    free: whole(bavail * bsize),
    total: whole(blocks * bsize),
    entries: files === 0 ? null : whole(ffree)
  }
}

type Adapter = HostFigures["adapters"][number]

/** One interface: those without a known state (point to point, WireGuard) count as up. */
const adapterOf = async (sys: string, name: string, isTold: boolean): Promise<Adapter> => {
  const folder = join(sys, "class/net", name)
  const count = (file: string) => numberOf(join(folder, "statistics", file))
  const addresses = networkInterfaces()[name] ?? []
  const [state, received, sent, receiveErrors, sendErrors] = await Promise.all([
    textOf(join(folder, "operstate"), 32),
    count("rx_bytes"),
    count("tx_bytes"),
    count("rx_errors"),
    count("tx_errors")
  ])
  return {
    name: label(name, 32),
    addresses: addresses.slice(0, maximumAddresses).map(({ address }) => label(address, 64)),
    // Where the kernel tells of none, an interface with an address counts as up.
    up: isTold ? ["up", "unknown"].includes(state ?? "") : addresses.length > 0,
    received_bytes: received,
    sent_bytes: sent,
    receive_errors: receiveErrors,
    send_errors: sendErrors
  }
}

/** All interfaces, those without an address included. */
const adapters = (sys: string): Effect.Effect<ReadonlyArray<Adapter>> =>
  Effect.map(
    orNull(async () => {
      const known = await readdir(join(sys, "class/net")).catch(() => [])
      const names = [...new Set([...Object.keys(networkInterfaces()), ...known])].slice(0, maximumAdapters)
      return Promise.all(names.map((name) => adapterOf(sys, name, known.length > 0)))
    }),
    (found) => found ?? []
  )

const makeProbe = (options: LinuxHostOptions): HostProbe["Service"] => {
  const { ownProcess = process.pid, requiredProcesses = [], stateFolder } = options
  const places = { proc: options.proc ?? "/proc", sys: options.sys ?? "/sys", etc: options.etc ?? "/etc" }
  const readings = Effect.all(
    {
      memory: memory(places.proc),
      celsius: temperature(places.sys),
      adapters: adapters(places.sys),
      room: orNull(disk(stateFolder)),
      processes: processesOf(places.proc, ownProcess, requiredProcesses),
      machine: machineOf(places),
      system: systemOf(places)
    },
    { concurrency: "unbounded" }
  )
  return {
    figures: Effect.map(readings, (read): HostFigures => {
      const [load1, load5, load15] = loadavg()
      return {
        uptime_s: whole(uptime()),
        process_uptime_s: Math.round(process.uptime()),
        load_1m: load1 ?? null,
        load_5m: load5 ?? null,
        load_15m: load15 ?? null,
        processors: availableParallelism(),
        memory_total_bytes: whole(totalmem()),
        memory_available_bytes: read.memory.available,
        swap_total_bytes: read.memory.swapTotal,
        swap_free_bytes: read.memory.swapFree,
        process_memory_bytes: process.memoryUsage.rss(),
        disk_total_bytes: read.room?.total ?? null,
        disk_free_bytes: read.room?.free ?? null,
        disk_free_entries: read.room?.entries ?? null,
        temperature_celsius: read.celsius,
        adapters: read.adapters,
        processes: read.processes,
        machine: read.machine,
        hostname: label(hostname(), 64),
        kernel: label(release(), 128),
        system: read.system,
        architecture: label(process.arch, 32),
        node: label(process.version, 32)
      }
    }),
    freeDiskBytes: Effect.tryPromise({
      try: disk(stateFolder),
      catch: (error) => new ProbeError({ reason: `${stateFolder}: ${errorText(error)}` })
    }).pipe(
      Effect.flatMap(({ free }) =>
        free === null
          ? Effect.fail(new ProbeError({ reason: `${stateFolder}: its free room is not told` }))
          : Effect.succeed(free)
      ),
      Effect.timeoutOrElse({
        duration: readingMs,
        orElse: () =>
          Effect.fail(
            new ProbeError({ reason: `${stateFolder}: the disk did not answer within ${readingMs} ms` })
          )
      })
    )
  }
}

/** Figures of the Linux machine this runs on. */
export const LinuxHost = (options: LinuxHostOptions): Layer.Layer<HostProbe> =>
  Layer.succeed(HostProbe, makeProbe(options))
