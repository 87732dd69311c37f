/**
 * What one more device costs the built server: with 100, 1,000 and 10,000 enrolled devices, each with a connection of its
 * own, first polling and then waiting in long polls. The cost of a device should not depend on how many others there are.
 *
 * The devices are simulated by this process: each signs every poll with its own key. The server is a process of its own,
 * and its figures are its own: processor time, and memory after a garbage collection, which is the main thread's. The
 * peer of a waiting poll is a connection whose answer a bare `node:http` server holds back.
 */
import { type Aim, type Bench, compare, median, type Result } from "../measure.ts"
import { Line, loopbackAddress } from "./line.ts"
import { holding } from "./peers.ts"
import type { Probed, Usage } from "./probed.ts"
import { type Listening, withPeer, withServer } from "./setting.ts"
import { type SimulatedDevice, signedPoll, simulatedDevices } from "./simulated.ts"

/** As long as a server may hold a poll. */
const waitMs = 60_000
/** Devices that poll at the same moment. */
const together = 32
const sizes = [100, 1_000, 10_000]
/** How long the idle are watched. */
const watchSeconds = 2
/** Polls before the first measurement, so that what every program grows by when it begins to work is there. */
const warmUpPolls = 1_000

interface Connected {
  readonly device: SimulatedDevice
  readonly line: Line
}

/** Runs `work` for all, so many at a time. */
const forAll = async <A>(all: ReadonlyArray<A>, work: (one: A) => Promise<void>): Promise<void> => {
  let next = 0
  const lane = async () => {
    for (let one = all[next++]; one !== undefined; one = all[next++]) await work(one)
  }
  await Promise.all(Array.from({ length: together }, lane))
}

const pollOnce = async ({ device, line }: Connected, port: number): Promise<void> => {
  const status = await line.ask(signedPoll(device, `127.0.0.1:${port}`, 0))
  if (status !== 200) throw new Error(`a poll was answered with ${status}`)
}

/** Connects each device and lets it poll at once: a connection on which nothing comes is soon cut off. */
const connect = async (
  port: number,
  devices: ReadonlyArray<SimulatedDevice>
): Promise<ReadonlyArray<Connected>> => {
  const connected: Array<Connected> = []
  await forAll([...devices.entries()], async ([index, device]) => {
    const one = { device, line: await Line.open(port, loopbackAddress(index)) }
    connected.push(one)
    await pollOnce(one, port)
  })
  return connected
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** Waits until a process is idle: what was sent to it is then in its hands. */
const settled = async (process: Probed): Promise<void> => {
  for (let before = await process.usage(false); ; ) {
    await pause(500)
    const now = await process.usage(false)
    // Timers take some milliseconds in this time; whoever still reads requests takes hundreds.
    if (now.cpuMs - before.cpuMs < 100) return
    before = now
  }
}

const perDeviceKiB = (before: Usage, after: Usage, devices: number): number =>
  (after.heldBytes - before.heldBytes) / devices / 1_024

interface Held {
  /** Memory of one that waits, above what there was without any, in KiB. */
  readonly waitingKiB: number
  /** Processor time of all that wait, in milliseconds for each second. */
  readonly idleMs: number
}

/** Sends every request and measures while all of them wait for their answers. */
const holdAll = async (
  process: Probed,
  requests: ReadonlyArray<readonly [Line, Buffer]>,
  empty: Usage
): Promise<Held> => {
  let answered = 0
  const count = () => {
    answered++
  }
  for (const [index, [line, request]] of requests.entries()) {
    line.ask(request).then(count, count)
    // Not all in one moment: the server would turn away what it cannot take up within some seconds.
    if (index % 200 === 199) await process.usage(false)
  }
  await settled(process)
  const calm = await process.usage(false)
  await pause(watchSeconds * 1_000)
  const later = await process.usage(false)
  // Last: the collector tidies up for some time after it was asked to collect.
  const waiting = await process.usage(true)
  if (answered > 0)
    throw new Error(`${answered} of ${requests.length} requests were answered instead of held`)
  return {
    waitingKiB: perDeviceKiB(empty, waiting, requests.length),
    idleMs: (later.cpuMs - calm.cpuMs) / watchSeconds
  }
}

interface Cost extends Held {
  /** Memory of a device that polls: its connection, its actor and what is known of it. In KiB. */
  readonly pollingKiB: number
  /** Processor time of one poll, in microseconds. */
  readonly pollMicroseconds: number
}

/** Each device polls in turn until there were so many polls; the median of the rounds, in microseconds for each poll. */
const pollInTurns = async (
  server: Listening,
  all: ReadonlyArray<Connected>,
  polls: number
): Promise<number> => {
  const rounds: Array<number> = []
  for (let done = 0; done < polls; done += all.length) {
    const before = await server.process.usage(false)
    await forAll(all, (one) => pollOnce(one, server.port))
    const after = await server.process.usage(false)
    rounds.push(((after.cpuMs - before.cpuMs) / all.length) * 1_000)
  }
  return median(rounds)
}

/** Connections that are closed in the end. */
const withLines = async <A>(work: (open: Array<Line>, closeAll: () => void) => Promise<A>): Promise<A> => {
  const open: Array<Line> = []
  const closeAll = () => {
    for (const line of open.splice(0)) line.close()
  }
  try {
    return await work(open, closeAll)
  } finally {
    closeAll()
  }
}

const measureCost = (
  server: Listening,
  devices: ReadonlyArray<SimulatedDevice>,
  polls: number
): Promise<Cost> =>
  withLines(async (open, closeAll) => {
    const { port, process } = server
    const connectAll = async (some: ReadonlyArray<SimulatedDevice>) => {
      const connected = await connect(port, some)
      open.push(...connected.map(({ line }) => line))
      return connected
    }
    await pollInTurns(server, await connectAll(devices.slice(0, 1)), warmUpPolls)
    closeAll()
    await settled(process)
    const empty = await process.usage(true)
    const all = await connectAll(devices)
    await pollInTurns(server, all, devices.length)
    const pollingKiB = perDeviceKiB(empty, await process.usage(true), devices.length)
    const requests = all.map(
      ({ device, line }) => [line, signedPoll(device, `127.0.0.1:${port}`, waitMs)] as const
    )
    const held = await holdAll(process, requests, empty)
    closeAll()
    const pollMicroseconds = await pollInTurns(server, await connectAll(devices), polls)
    return { ...held, pollingKiB, pollMicroseconds }
  })

/** As many answers held back by a bare server. */
const measureBare = ({ port, process }: Listening, count: number): Promise<Held> =>
  withLines(async (open, closeAll) => {
    const [device] = simulatedDevices(1) as [SimulatedDevice]
    const request = signedPoll(device, `127.0.0.1:${port}`, waitMs)
    const connectSome = (some: number) =>
      forAll([...Array(some).keys()], async (index) => {
        open.push(await Line.open(port, loopbackAddress(index)))
      })
    await connectSome(200)
    for (const line of open) line.ask(request).catch(() => undefined)
    await settled(process)
    closeAll()
    await settled(process)
    const empty = await process.usage(true)
    await connectSome(count)
    const requests = open.map((line) => [line, request] as const)
    return holdAll(process, requests, empty)
  })

const flat: Aim = { atMost: 1.25 }
const bareName = "an answer held by bare node:http"

const resultsOf = (size: number, cost: Cost, smallest: Cost, bare: Held): ReadonlyArray<Result> => {
  const devices = `of ${size.toLocaleString("en")} devices`
  const peer = `of ${sizes[0]} devices`
  const flatly = (
    name: string,
    unit: string,
    figure: (cost: Cost) => number,
    others: Record<string, number> = {}
  ) =>
    compare(
      { name: `${name} ${devices}`, unit, better: "lower" },
      { ours: figure(cost), ...(cost === smallest ? {} : { [peer]: figure(smallest) }), ...others },
      "ours",
      { [peer]: flat }
    )
  return [
    flatly("processor time of a poll", "µs", ({ pollMicroseconds }) => pollMicroseconds),
    flatly("memory of a polling device", "KiB", ({ pollingKiB }) => pollingKiB),
    flatly("memory of a waiting device", "KiB", ({ waitingKiB }) => waitingKiB, {
      [bareName]: bare.waitingKiB
    }),
    compare(
      { name: `processor time of all ${devices} that wait`, unit: "ms/s", better: "lower" },
      { ours: cost.idleMs, "as many answers held by bare node:http": bare.idleMs },
      "ours"
    )
  ]
}

export const run: Bench = async ({ short }) => {
  const results: Array<Result> = []
  let smallest: Cost | undefined
  for (const size of short ? sizes.slice(0, 2) : sizes) {
    const devices = simulatedDevices(size)
    const cost = await withServer(devices, (server) => measureCost(server, devices, short ? 1_000 : 20_000))
    smallest ??= cost
    const bare = await withPeer(holding, (peer) => measureBare(peer, size))
    results.push(...resultsOf(size, cost, smallest, bare))
  }
  return results
}
