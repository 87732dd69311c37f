/**
 * The same work directly over loopback and through a private Tor network on the same machine: a device from its start to
 * its first answered poll, the download of a large package over one circuit and over several, a package that runs `true`
 * from its build to its verified receipt, and the round trip of a poll. Servers, devices and operators are the built
 * programs; server and device have a tor of their own each.
 *
 * The network has no distance, so this shows what Tor costs in work alone; `tor/distance` shows the rest.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { Effect } from "effect"
import { BubblewrapJail } from "../../src/adapters/BubblewrapJail.ts"
import type { DeviceView } from "../../src/schemas/ManagementApi.ts"
import type { BuiltDevice } from "../../test/support/BuiltFleet.ts"
import { waitUntil } from "../../test/support/Program.ts"
import { type BenchFleet, withFleet } from "../fleet.ts"
import { jailProblem } from "../jail.ts"
import { type Bench, compare, median, takeTurns, timed } from "../measure.ts"
import { openOperator } from "../operator.ts"
import { downloadRate } from "./downloads.ts"
import { directly, keysOf, openPoller, throughTorOf } from "./polls.ts"
import { torProblem, withTorWorld } from "./world.ts"

const lower = { unit: "ms", better: "lower" } as const

/** How much is done; a short run takes some tens of seconds. */
interface Size {
  readonly starts: number
  readonly downloads: number
  readonly mebibytes: number
  readonly submissions: number
  readonly polls: number
  readonly circuits: number
}

const sizes = {
  short: { starts: 0, downloads: 1, mebibytes: 4, submissions: 5, polls: 30, circuits: 5 },
  long: { starts: 4, downloads: 4, mebibytes: 64, submissions: 60, polls: 300, circuits: 40 }
} satisfies Record<string, Size>

/** From a device's start until its second poll is at the server, which it sends when the first is answered. */
const coldStart = async ({ device, fleet }: BenchFleet, token: string): Promise<number> => {
  const own = /runs as (dev_[a-z2-7]{52})/.exec(device.program.log())?.[1]
  await device.program.stop()
  const startedMs = Date.now()
  const look = async () => {
    const answer = await fetch(`${fleet.address}/api/management/v1/devices/${own}`, {
      headers: { authorization: `Bearer ${token}` }
    })
    const { blocked, last_seen_at_ms: seen } = (await answer.json()) as DeviceView
    return seen !== null && seen >= startedMs && blocked === null
  }
  return timed(async () => {
    device.program.start()
    await waitUntil("the device's second poll", look, 120_000, () => device.program.log().slice(-3_000))
  })
}

const tokenOf = async ({ fleet }: BenchFleet): Promise<string> =>
  readFileSync(await fleet.token("bench", "viewer"), "utf8").trim()

/** The device takes so many circuits for a download from its next start on. */
const setCircuits = (device: BuiltDevice, circuits: number): void => {
  const path = `${device.state}.toml`
  const lines = readFileSync(path, "utf8").split("\n")
  const others = lines.filter((line) => !line.startsWith("download_circuits"))
  writeFileSync(path, [`download_circuits = ${circuits}`, ...others].join("\n"))
}

/** Starts and downloads of both: each number of circuits takes a start of the device. */
const startsAndDownloads = async (tor: BenchFleet, direct: BenchFleet, size: Size) => {
  const tokens = { tor: await tokenOf(tor), direct: await tokenOf(direct) }
  const starts = { tor: [] as Array<number>, directly: [] as Array<number> }
  const rates: Record<string, number> = {}
  const ratesOf = async (lent: BenchFleet): Promise<number> => {
    const values: Array<number> = []
    for (let round = 0; round < size.downloads; round++)
      values.push(await downloadRate(lent.fleet, lent.device.name, size.mebibytes))
    return median(values)
  }
  const startBoth = async () => {
    starts.tor.push(await coldStart(tor, tokens.tor))
    starts.directly.push(await coldStart(direct, tokens.direct))
  }
  for (const circuits of [1, 2, 4]) {
    setCircuits(tor.device, circuits)
    await startBoth()
    rates[`${circuits} ${circuits === 1 ? "circuit" : "circuits"}`] = await ratesOf(tor)
  }
  for (let round = 0; round < size.starts; round++) await startBoth()
  rates["directly"] = await ratesOf(direct)
  const medians = { tor: median(starts.tor), directly: median(starts.directly) }
  return [
    compare({ name: "download, 4 circuits", unit: "MiB/s", better: "higher" }, rates, "4 circuits"),
    compare({ ...lower, name: "a device's start to its first answered poll" }, medians, "tor")
  ]
}

const workResult = async (tor: BenchFleet, direct: BenchFleet, size: Size) => {
  const ours = await openOperator(tor)
  const theirs = await openOperator(direct)
  const turns = { tor: () => ours.submit(), directly: () => theirs.submit() }
  const times = await takeTurns(turns, { warmUp: 2, rounds: size.submissions })
  return compare({ ...lower, name: "submit to verified receipt, long poll" }, times, "tor")
}

const pollResults = async (tor: BenchFleet, onion: string, direct: BenchFleet, size: Size) => {
  const ours = await openPoller(throughTorOf(tor.device, onion), await keysOf(tor.device))
  const theirs = await openPoller(directly(direct.fleet), await keysOf(direct.device))
  try {
    const kept = { tor: ours.kept, directly: theirs.kept }
    const fresh = { tor: ours.fresh, directly: theirs.fresh }
    return [
      compare(
        { ...lower, name: "poll, connection kept" },
        await takeTurns(kept, { warmUp: 5, rounds: size.polls }),
        "tor"
      ),
      compare(
        { ...lower, name: "poll, fresh circuit" },
        await takeTurns(fresh, { warmUp: 1, rounds: size.circuits }),
        "tor"
      )
    ]
  } finally {
    await ours.close()
    await theirs.close()
  }
}

const measure = (size: Size) =>
  withFleet((direct) =>
    withTorWorld({}, async ({ fleet, onion, torDevice }) => {
      const tor = { fleet, device: await torDevice("bench-tor") }
      const first = await startsAndDownloads(tor, direct, size)
      const work = await workResult(tor, direct, size)
      // Last: what polls in a device's name makes the server doubt it.
      return [...first, work, ...(await pollResults(tor, onion, direct, size))]
    })
  )

export const run: Bench = async ({ short }) => {
  const jail = jailProblem.pipe(Effect.provide(BubblewrapJail.layer()))
  const problem = torProblem() ?? (await Effect.runPromise(jail))
  return problem === null ? measure(short ? sizes.short : sizes.long) : { skipped: problem }
}
