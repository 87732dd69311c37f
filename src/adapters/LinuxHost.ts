/**
 * The port `HostProbe` from /proc, /sys and statfs. What a machine does not have, or does not tell, is null.
 *
 * @module
 */
import { readdir, readFile, statfs } from "node:fs/promises"
import { hostname, loadavg, networkInterfaces, release, totalmem, uptime } from "node:os"
import { join } from "node:path"
import { Effect, Layer } from "effect"
import { type HostFigures, HostProbe, ProbeError } from "../ports/HostProbe.ts"
import { errorText } from "./files/AtomicFile.ts"

export interface LinuxHostOptions {
  /** Where free disk is counted. */
  readonly stateFolder: string
  /** Whether the server is reached over loopback, so that no other interface is needed. Default no. */
  readonly isServerLocal?: boolean
  /** For tests: where /proc and /sys are. */
  readonly proc?: string
  readonly sys?: string
}

/** A sensor that hangs must not hold up the report. */
const readingMs = 2_000
const maximumAdapters = 32
const maximumAddresses = 16

/** Text that a report may hold: printable and short. */
const label = (text: string, maximum: number): string =>
  text
    .replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, "?")
    .slice(0, maximum)
    .toWellFormed()

const whole = (value: number): number | null =>
  Number.isSafeInteger(Math.round(value)) && value >= 0 ? Math.round(value) : null

/** The work's result, or null where it fails or takes too long. */
const orNull = <A>(work: () => Promise<A | null>): Effect.Effect<A | null> =>
  Effect.tryPromise(work).pipe(
    Effect.timeoutOption(readingMs),
    Effect.map((found) => (found._tag === "Some" ? found.value : null)),
    Effect.orElseSucceed(() => null)
  )

/** `MemAvailable` of /proc/meminfo, in bytes. */
const availableMemory = (proc: string) =>
  orNull(async () => {
    const kilobytes = /^MemAvailable:\s+(\d+) kB$/m.exec(await readFile(join(proc, "meminfo"), "utf8"))?.[1]
    return kilobytes === undefined ? null : whole(Number(kilobytes) * 1024)
  })

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
  const { bavail, blocks, bsize } = await statfs(folder)
  return { free: whole(bavail * bsize), total: whole(blocks * bsize) }
}

/** Names of the interfaces that are up. Those without a known state (point to point, WireGuard) count. */
const interfacesUp = (sys: string) =>
  orNull(async () => {
    const folder = join(sys, "class/net")
    const names = await readdir(folder)
    const states = await Promise.allSettled(
      names.map((name) => readFile(join(folder, name, "operstate"), "utf8"))
    )
    const isUp = (state: PromiseSettledResult<string> | undefined) =>
      state?.status === "fulfilled" && ["up", "unknown"].includes(state.value.trim())
    return new Set(names.filter((_, index) => isUp(states[index])))
  })

const adaptersOf = (up: ReadonlySet<string> | null): HostFigures["adapters"] =>
  Object.entries(networkInterfaces())
    .slice(0, maximumAdapters)
    .map(([name, addresses = []]) => ({
      name: label(name, 32),
      addresses: addresses.slice(0, maximumAddresses).map(({ address }) => label(address, 64)),
      // Where the kernel does not say, an interface with an address counts as up.
      up: up?.has(name) ?? addresses.length > 0
    }))

const makeProbe = (options: LinuxHostOptions): HostProbe["Service"] => {
  const { isServerLocal = false, stateFolder } = options
  const proc = options.proc ?? "/proc"
  const sys = options.sys ?? "/sys"
  const readings = Effect.all(
    {
      available: availableMemory(proc),
      celsius: temperature(sys),
      up: interfacesUp(sys),
      room: orNull(disk(stateFolder))
    },
    { concurrency: "unbounded" }
  )
  return {
    figures: Effect.map(readings, ({ available, celsius, room, up }) => ({
      uptime_s: whole(uptime()),
      process_uptime_s: Math.round(process.uptime()),
      load_1m: loadavg()[0] ?? null,
      memory_total_bytes: whole(totalmem()),
      memory_available_bytes: available,
      process_memory_bytes: process.memoryUsage.rss(),
      disk_total_bytes: room?.total ?? null,
      disk_free_bytes: room?.free ?? null,
      temperature_celsius: celsius,
      adapters: adaptersOf(up),
      hostname: label(hostname(), 64),
      kernel: label(release(), 128),
      architecture: label(process.arch, 32),
      node: label(process.version, 32)
    })),
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
    ),
    hasNetwork: Effect.map(interfacesUp(sys), (up) => {
      const isOutward = ([name, addresses = []]: [string, ReturnType<typeof networkInterfaces>[string]]) =>
        addresses.some(({ internal }) => !internal) && (up?.has(name) ?? true)
      return isServerLocal || Object.entries(networkInterfaces()).some(isOutward)
    })
  }
}

/** Figures of the Linux machine this runs on. */
export const LinuxHost = (options: LinuxHostOptions): Layer.Layer<HostProbe> =>
  Layer.succeed(HostProbe, makeProbe(options))
