/**
 * What distance does: the same Tor network with relays that lie apart, so that a way from the device to the server and
 * back takes 200 to 1,000 ms, as it does over the real one. Shows how long news takes to a device that holds its polls
 * open and to one that asks now and then, what a circuit of its own costs, and what it helps to ask for several things at
 * once, over one circuit or, of a large download, over several. The peer of each figure is the same without distance.
 *
 * Needs root: the relays live in network namespaces, with a switch of TUN devices between them.
 */
import { spawn } from "node:child_process"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { BuiltDevice, BuiltFleet } from "../../test/support/BuiltFleet.ts"
import { withFolder } from "../folder.ts"
import { type Bench, compare, median, type Result, timed } from "../measure.ts"
import { openOperator } from "../operator.ts"
import { downloadRate } from "./downloads.ts"
import { keysOf, openPoller, type Poller, throughTorOf } from "./polls.ts"
import { type Scattered, withScatteredRelays } from "./scattered.ts"
import { type TorWorld, torProblem, withTorWorld } from "./world.ts"

/** Requests that do not wait for each other. */
const atOnce = 8
/** A device without long polls asks as often. */
const sleepMs = 5_000

interface Size {
  readonly roundTripsMs: ReadonlyArray<number>
  readonly rounds: number
  /** Size of a download; 0 for none, and no device that asks now and then. */
  readonly mebibytes: number
}

const sizes = {
  short: { roundTripsMs: [600], rounds: 2, mebibytes: 0 },
  long: { roundTripsMs: [200, 500, 1_000], rounds: 5, mebibytes: 16 }
} satisfies Record<string, Size>

/** Tor learns how long circuits take to stand; here that changes under it. */
const patientCircuits = ["LearnCircuitBuildTimeout 0", "CircuitBuildTimeout 60"]

/** The devices of the bench. */
interface Devices {
  readonly holding: BuiltDevice
  /** Null in a short run. */
  readonly further: { readonly asking: BuiltDevice; readonly single: BuiltDevice } | null
}

type Figures = Record<string, number>

const medianOf = async (rounds: number, work: () => Promise<unknown>): Promise<number> => {
  const times: Array<number> = []
  for (let round = 0; round < rounds; round++) times.push(await timed(work))
  return median(times)
}

const oneAfterTheOther = async (poller: Poller): Promise<void> => {
  for (let count = 0; count < atOnce; count++) await poller.kept()
}

/** How long a download takes, in milliseconds. */
const fetching = async (fleet: BuiltFleet, { name }: BuiltDevice, { mebibytes }: Size): Promise<number> =>
  (mebibytes * 1_000) / (await downloadRate(fleet, name, mebibytes))

/** Everything at one distance. */
const figuresAt = async (world: TorWorld, devices: Devices, poller: Poller, size: Size): Promise<Figures> => {
  const { fleet } = world
  const holding = await openOperator({ fleet, device: devices.holding })
  const asking = devices.further && (await openOperator({ fleet, device: devices.further.asking }))
  // The first of each kind opens connections, and circuits with them.
  await holding.submit()
  await poller.together(atOnce)
  return {
    "poll, connection kept": await medianOf(size.rounds, poller.kept),
    "poll, fresh circuit": await medianOf(size.rounds, poller.fresh),
    [`${atOnce} polls, one after the other`]: await medianOf(size.rounds, () => oneAfterTheOther(poller)),
    [`${atOnce} polls at once, one circuit`]: await medianOf(size.rounds, () => poller.together(atOnce)),
    "submit to receipt, long poll": await medianOf(size.rounds, holding.submit),
    ...(asking === null || devices.further === null
      ? {}
      : {
          [`submit to receipt, a poll every ${sleepMs / 1_000} s`]: await medianOf(
            size.rounds,
            asking.submit
          ),
          [`download of ${size.mebibytes} MiB, 1 circuit`]: await fetching(
            fleet,
            devices.further.single,
            size
          ),
          [`download of ${size.mebibytes} MiB, 4 circuits`]: await fetching(fleet, devices.holding, size)
        })
  }
}

const measureIn = (scattered: Scattered, size: Size) =>
  withTorWorld(
    scattered.options,
    async (world): Promise<ReadonlyArray<Result>> => {
      const sleep = [`sleep_maximum_ms = ${sleepMs}`, "long_poll_ms = 0"]
      const devices: Devices = {
        holding: await world.torDevice("bench-holding"),
        further:
          size.mebibytes === 0
            ? null
            : {
                asking: await world.torDevice("bench-asking", sleep),
                single: await world.torDevice("bench-single", ["download_circuits = 1"])
              }
      }
      // It polls in the name of a device that is stopped then: the others' orders are not to be held back.
      const mute = await world.torDevice("bench-polls")
      await mute.program.stop()
      const poller = await openPoller(throughTorOf(devices.holding, world.onion), await keysOf(mute))
      try {
        const figures: Record<string, Figures> = {}
        figures["without distance"] = await figuresAt(world, devices, poller, size)
        for (const ms of size.roundTripsMs) {
          await scattered.setRoundTrip(ms)
          figures[`round trip of ${ms} ms`] = await figuresAt(world, devices, poller, size)
        }
        const far = `round trip of ${size.roundTripsMs.at(-1)} ms`
        return Object.keys(figures["without distance"] ?? {}).map((name) =>
          compare(
            { name, unit: "ms", better: "lower" },
            Object.fromEntries(
              Object.entries(figures).map(([distance, all]) => [distance, all[name] as number])
            ),
            far
          )
        )
      } finally {
        await poller.close()
      }
    },
    patientCircuits
  )

const isIsolated = "POSTERN_BENCH_ISOLATED"

/** Runs this bench once more, in a network namespace of its own, and takes what it writes. */
const runIsolated = (short: boolean) =>
  withFolder("distance", async (folder): Promise<ReadonlyArray<Result>> => {
    const answer = join(folder, "answer.json")
    const child = spawn(
      "unshare",
      ["--net", process.execPath, import.meta.filename, folder, short ? "short" : "long"],
      { stdio: ["ignore", 2, 2], env: { ...process.env, [isIsolated]: answer } }
    )
    const stop = () => child.kill("SIGTERM")
    process.once("exit", stop)
    const code = await new Promise<number | null>((resolve) => child.once("close", resolve))
    process.off("exit", stop)
    if (code !== 0) throw new Error(`the bench in its own network ended with ${code}`)
    return JSON.parse(readFileSync(answer, "utf8"))
  })

const whyNot = (): string | null => {
  const missing = torProblem("root", "ip", "python3", "unshare", "nsenter")
  return missing ?? (existsSync("/dev/net/tun") ? null : "there is no /dev/net/tun here")
}

export const run: Bench = async ({ short }) => {
  const problem = whyNot()
  return problem === null ? runIsolated(short) : { skipped: problem }
}

const answerFile = process.env[isIsolated]
if (answerFile !== undefined) {
  const [, , folder = "", length = "short"] = process.argv
  const size = length === "long" ? sizes.long : sizes.short
  const results = await withScatteredRelays(folder, (scattered) => measureIn(scattered, size))
  writeFileSync(answerFile, JSON.stringify(results))
  process.exit(0)
}
