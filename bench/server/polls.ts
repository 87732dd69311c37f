/**
 * Polls that one core answers: signed requests of many accepted devices on kept connections to the built server, each
 * answered with a signed statement, nothing to do. The peers are a bare `node:http` server that reads as much and answers
 * as much, and the same with one Ed25519 verification and one signature for each request, which is what the protocol
 * costs at least.
 *
 * Each server is a process of its own; this one only sends, and signs before the clock starts. What counts is the
 * server's processor time, all its threads together: requests per second of it. So a slow sender or a busy machine
 * distorts little.
 */
import { type Bench, compare, median } from "../measure.ts"
import { Line } from "./line.ts"
import { answering } from "./peers.ts"
import { type Listening, withPeer, withServer } from "./setting.ts"
import { signedPoll, simulatedDevices } from "./simulated.ts"

const connections = 32
const devices = simulatedDevices(64)

/** Sends all, each line one after the other; every answer must be good. */
const sendAll = async (lines: ReadonlyArray<Line>, requests: ReadonlyArray<Buffer>): Promise<void> => {
  let next = 0
  const sendOn = async (line: Line) => {
    for (let request = requests[next++]; request !== undefined; request = requests[next++]) {
      const status = await line.ask(request)
      if (status !== 200) throw new Error(`a poll was answered with ${status}`)
    }
  }
  await Promise.all(lines.map(sendOn))
}

/** A round against one server: requests per second of its processor time. */
const roundAgainst = async ({ port, process }: Listening, lines: ReadonlyArray<Line>, count: number) => {
  const requests = Array.from({ length: count }, (_, index) => {
    const device = devices[index % devices.length]
    return signedPoll(device as NonNullable<typeof device>, `127.0.0.1:${port}`, 0)
  })
  const before = await process.usage(false)
  await sendAll(lines, requests)
  const after = await process.usage(false)
  return (count / (after.cpuMs - before.cpuMs)) * 1_000
}

/** Rounds in turns; the first two warm up. */
const raceOnCpu = async (
  servers: Readonly<Record<string, Listening>>,
  { count, rounds }: { readonly count: number; readonly rounds: number }
): Promise<Record<string, number>> => {
  const lines: Record<string, ReadonlyArray<Line>> = {}
  const rates: Record<string, Array<number>> = {}
  try {
    for (const [name, { port }] of Object.entries(servers)) {
      lines[name] = await Promise.all(Array.from({ length: connections }, () => Line.open(port)))
      rates[name] = []
    }
    for (let round = -2; round < rounds; round++) {
      for (const [name, server] of Object.entries(servers)) {
        const rate = await roundAgainst(server, lines[name] ?? [], count)
        if (round >= 0) rates[name]?.push(rate)
      }
    }
    return Object.fromEntries(Object.entries(rates).map(([name, values]) => [name, median(values)]))
  } finally {
    for (const line of Object.values(lines).flat()) line.close()
  }
}

export const run: Bench = async ({ short }) => {
  const size = { count: short ? 1_000 : 4_000, rounds: short ? 5 : 11 }
  const rates = await withServer(devices, (ours) =>
    withPeer(answering(false), (bare) =>
      withPeer(answering(true), (signing) =>
        raceOnCpu({ ours, "bare node:http": bare, "node:http, one verify and one sign": signing }, size)
      )
    )
  )
  return [
    compare({ name: "polls answered by one core", unit: "/s", better: "higher" }, rates, "ours", {
      "bare node:http": { atLeast: 0.1 }
    })
  ]
}
