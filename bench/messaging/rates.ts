/**
 * Private messages through broker services, end to end: from an agent's publication, over the broker, verified, opened,
 * re-signed, sealed anew and stored, to their recipients. The built server is a process of its own; figures "per second of
 * processor time" count all of its threads and nothing of the agents', which this process plays on the same machine.
 *
 * Peers: the same server on JavaScript's engine; the primitives of a message by themselves; the report's own design.
 */
import { execFile } from "node:child_process"
import { availableParallelism } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { type Bench, compare, median, type Result } from "../measure.ts"
import { primitivesMs } from "./primitives.ts"
import { type Broker, withBroker } from "./setting.ts"
import { bodyBytes, type Flow, flood, pace, type Traffic } from "./traffic.ts"

const cores = availableParallelism()
const senders = 32
const agents = 2 * senders

const trafficOf = ({ agents: all }: Broker): Traffic => ({
  senders: all.slice(0, senders),
  receivers: all.slice(senders),
  fanOut: 1
})

interface Rounds {
  /** Messages before any counts. */
  readonly before: number
  readonly messages: number
  readonly rounds: number
}

interface Measured {
  /** Messages per second of processor time, and by the clock. */
  readonly perCpuSecond: number
  readonly perSecond: number
  /** How many processors the server keeps busy. */
  readonly busy: number
}

const measuredOf = (flows: ReadonlyArray<Flow>): Measured => ({
  perCpuSecond: median(flows.map(({ cpuMs, messages }) => (messages / cpuMs) * 1_000)),
  perSecond: median(flows.map(({ messages, wallMs }) => (messages / wallMs) * 1_000)),
  busy: median(flows.map(({ cpuMs, wallMs }) => cpuMs / wallMs))
})

/** Floods in turns; what comes before, in which everything is compiled, does not count. */
const measureFlood = async (broker: Broker, { before, messages, rounds }: Rounds): Promise<Measured> => {
  const flows: Array<Flow> = []
  await flood(broker, trafficOf(broker), before)
  for (let round = 0; round < rounds; round++) flows.push(await flood(broker, trafficOf(broker), messages))
  return measuredOf(flows)
}

/** Milliseconds of processor time of the report's broker for one message, or why that is not known. */
const reportedMs = async (count: number): Promise<number | string> => {
  const script = join(import.meta.dirname, "rsaHybrid.py")
  try {
    const { stdout } = await promisify(execFile)("/usr/bin/python3", [
      script,
      String(count),
      String(bodyBytes)
    ])
    return Number(stdout)
  } catch (error) {
    return error instanceof Error ? (error.message.trim().split("\n").at(-1) ?? "") : String(error)
  }
}

const percentile = (sorted: ReadonlyArray<number>, share: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] as number

const rateResults = async (
  native: Measured,
  noble: Measured,
  primitives: number,
  count: number
): Promise<ReadonlyArray<Result>> => {
  const reported = await reportedMs(count)
  if (typeof reported === "string")
    process.stderr.write(`the report's own design is not measured (python3-pycryptodome): ${reported}\n`)
  const byCpu = {
    ours: native.perCpuSecond,
    "on @noble alone": noble.perCpuSecond,
    "their primitives alone": 1_000 / primitives,
    ...(typeof reported === "number" ? { "RSA-2048 hybrid, cryptography alone": 1_000 / reported } : {})
  }
  return [
    compare(
      { name: "private messages, per second of processor time", unit: "messages/s", better: "higher" },
      byCpu,
      "ours",
      { "on @noble alone": { atLeast: 10 }, "their primitives alone": { atLeast: 0.5 } }
    ),
    compare(
      { name: "private messages, by the clock", unit: "messages/s", better: "higher" },
      {
        ours: native.perSecond,
        "on @noble alone": noble.perSecond,
        "their primitives alone, on all processors": (1_000 / primitives) * cores
      },
      "ours"
    ),
    compare(
      { name: "processors that the server keeps busy", unit: "", better: "higher" },
      { ours: native.busy, "all there are": cores },
      "ours"
    )
  ]
}

/** With as many threads as processors: the event loop and the databases are light beside them. */
const setting = (engine: "native" | "noble") => ({ engine, threads: cores })
const sizes = { devices: agents, come: agents }

export const run: Bench = async ({ short }) => {
  const usual: Rounds = {
    before: 6_400,
    ...(short ? { messages: 1_280, rounds: 3 } : { messages: 6_400, rounds: 7 })
  }
  const slow: Rounds = short
    ? { before: 64, messages: 64, rounds: 2 }
    : { before: 640, messages: 640, rounds: 3 }
  const before = primitivesMs(NativeCrypto, short ? 200 : 1_000, 5)
  const [native, latency] = await withBroker(setting("native"), sizes, async (broker) => {
    const measured = await measureFlood(broker, usual)
    const half = measured.perSecond / 2
    return [measured, await pace(trafficOf(broker), Math.min(usual.messages, Math.ceil(half * 10)), half)]
  })
  const noble = await withBroker(setting("noble"), sizes, (broker) => measureFlood(broker, slow))
  const primitives = (before + primitivesMs(NativeCrypto, short ? 200 : 1_000, 5)) / 2
  const [p50, p99] = [percentile(latency, 0.5), percentile(latency, 0.99)]
  return [
    ...(await rateResults(native, noble, primitives, short ? 50 : 300)),
    compare(
      { name: "from publication to delivery at half load, p50", unit: "ms", better: "lower" },
      { ours: p50, "their primitives alone": primitives },
      "ours"
    ),
    compare(
      { name: "from publication to delivery at half load, p99", unit: "ms", better: "lower" },
      { ours: p99, p50 },
      "ours"
    )
  ]
}
