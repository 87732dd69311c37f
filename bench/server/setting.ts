/** The built server with simulated devices in its database, started under measurement, in a temporary folder. */
import { connect } from "node:net"
import { join } from "node:path"
import type { ServerIdentity } from "../../src/schemas/Enrolment.ts"
import { freePort, runToEnd, waitUntil } from "../../test/support/Program.ts"
import { withFolder } from "../folder.ts"
import { Line } from "./line.ts"
import { Probed } from "./probed.ts"
import { acceptInto, type SimulatedDevice, signedPoll } from "./simulated.ts"

const program = join(import.meta.dirname, "../../dist/server.js")

/** A process of its own that listens on a port of loopback. */
export interface Listening {
  readonly process: Probed
  readonly port: number
}

const isOpen = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1")
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false))
    socket.once("connect", () => socket.resetAndDestroy())
  })

const opened = (process: Probed, port: number): Promise<true> =>
  waitUntil("a server's port", () => {
    if (process.child.exitCode !== null) throw new Error(`the server ended:\n${process.said}`)
    return isOpen(port)
  })

/** Waits until a process listens, lends it, and ends it. */
const lend = async <A>(
  process: Probed,
  port: number,
  work: (listening: Listening) => Promise<A>
): Promise<A> => {
  try {
    await opened(process, port)
    return await work({ process, port })
  } finally {
    await process.end()
  }
}

/** Starts a program given as text, which finds its port in `process.argv[1]`, and lends it to `work`. */
export const withPeer = async <A>(text: string, work: (peer: Listening) => Promise<A>): Promise<A> => {
  const port = await freePort()
  return lend(new Probed(["-e", text, String(port)]), port, work)
}

/** Waits until the server takes a poll: it refuses what was signed in the second of its start, which another life may have seen. */
const takesPolls = (process: Probed, port: number, device: SimulatedDevice): Promise<true> => {
  let last: unknown
  const look = async () => {
    const line = await Line.open(port)
    try {
      last = await line.ask(signedPoll(device, `127.0.0.1:${port}`, 0))
      return last === 200 || undefined
    } finally {
      line.close()
    }
  }
  const patient = () =>
    look().catch((error) => {
      last = error
      return undefined
    })
  return waitUntil("a poll to be taken", patient, 60_000, () => `the last: ${last}\n${process.said}`)
}

/**
 * Starts the built server over a fresh state folder in which these devices are accepted, and lends it to `work`. Settings
 * are given as the environment that sets them.
 */
export const withServer = <A>(
  devices: ReadonlyArray<SimulatedDevice>,
  work: (server: Listening, id: string) => Promise<A>,
  settings: Readonly<Record<string, string>> = {}
): Promise<A> =>
  withFolder("server", async (state) => {
    const port = await freePort()
    const asked = await runToEnd([process.execPath, program, "identity", "--state", state], {
      cwd: state,
      environment: { PATH: process.env["PATH"] ?? "" }
    })
    const identity = JSON.parse(asked.stdout) as ServerIdentity
    await acceptInto(state, identity, `http://127.0.0.1:${port}`, devices)
    const probed = new Probed([program, "--state", state, "--port", String(port)], settings)
    return lend(probed, port, async (server) => {
      await takesPolls(probed, port, devices[0] as SimulatedDevice)
      return work(server, identity.server)
    })
  })
