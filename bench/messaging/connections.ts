/**
 * What a connected agent costs the built server in memory: it has come over TCP, subscribed to its inboxes and shaken hands,
 * and does nothing more. 10,000 of them; short runs 1,000. Peer: as many connections that a bare `node:net` server holds.
 */
import { type Bench, compare } from "../measure.ts"
import { Line, loopbackAddress } from "../server/line.ts"
import type { Usage } from "../server/probed.ts"
import { withPeer } from "../server/setting.ts"
import { withBroker } from "./setting.ts"

/** Agents that come before the first measurement, so that what every program grows by when it begins to work is there. */
const warmUp = 200

const bare = `
const { createServer } = require("node:net")
const held = new Set()
createServer((socket) => {
  held.add(socket)
  socket.on("error", () => undefined)
  socket.on("close", () => held.delete(socket))
  socket.on("data", () => undefined)
}).listen(Number(process.argv[1]), "127.0.0.1")
`

interface Kept {
  readonly heldKiB: number
  readonly residentKiB: number
}

const each = (before: Usage, after: Usage, count: number): Kept => ({
  heldKiB: (after.heldBytes - before.heldBytes) / count / 1_024,
  residentKiB: (after.residentBytes - before.residentBytes) / count / 1_024
})

const ofAgents = (count: number): Promise<Kept> =>
  withBroker(
    { engine: "native", threads: 1 },
    { devices: count + warmUp, come: warmUp },
    async ({ come, process }) => {
      const before = await process.usage(true)
      await come(warmUp, count + warmUp)
      return each(before, await process.usage(true), count)
    }
  )

const ofBare = (count: number): Promise<Kept> =>
  withPeer(bare, async ({ port, process }) => {
    const open: Array<Line> = []
    const connect = async (some: number) => {
      for (let index = 0; index < some; index++)
        open.push(await Line.open(port, loopbackAddress(open.length)))
    }
    try {
      await connect(warmUp)
      const before = await process.usage(true)
      await connect(count)
      return each(before, await process.usage(true), count)
    } finally {
      for (const line of open) line.close()
    }
  })

export const run: Bench = async ({ short }) => {
  const count = short ? 1_000 : 10_000
  const [ours, theirs] = [await ofAgents(count), await ofBare(count)]
  const agents = `of each of ${count.toLocaleString("en")} connected agents`
  const peer = "a connection to bare node:net"
  return [
    compare(
      { name: `memory held by the main thread ${agents}`, unit: "KiB", better: "lower" },
      { ours: ours.heldKiB, [peer]: theirs.heldKiB },
      "ours"
    ),
    compare(
      { name: `resident memory ${agents}`, unit: "KiB", better: "lower" },
      { ours: ours.residentKiB, [peer]: theirs.residentKiB },
      "ours"
    )
  ]
}
