/** The built server with simulated devices in its database, started under measurement, in a temporary folder. */
import { mkdtempSync, rmSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { ServerIdentity } from "../../src/schemas/Enrolment.ts"
import { freePort, runToEnd, waitUntil } from "../../test/support/Program.ts"
import { Probed } from "./probed.ts"
import { acceptInto, type SimulatedDevice } from "./simulated.ts"

const program = join(import.meta.dirname, "../../dist/server.js")

/** A process of its own that listens on a port of loopback. */
export interface Listening {
  readonly process: Probed
  readonly port: number
  readonly end: () => Promise<void>
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

const listening = async (
  args: ReadonlyArray<string>,
  port: number,
  clean: () => void
): Promise<Listening> => {
  const process = new Probed(args)
  const end = async () => {
    await process.end()
    clean()
  }
  try {
    await opened(process, port)
    return { process, port, end }
  } catch (error) {
    await end()
    throw error
  }
}

/** Starts a program given as text; it finds its port in `process.argv[1]`. */
export const startPeer = async (text: string): Promise<Listening> => {
  const port = await freePort()
  return listening(["-e", text, String(port)], port, () => undefined)
}

/** Starts the built server over a fresh state folder in which these devices are accepted. */
export const startServer = async (devices: ReadonlyArray<SimulatedDevice>): Promise<Listening> => {
  const state = mkdtempSync(join(tmpdir(), "postern-bench-server-"))
  const clean = () => rmSync(state, { recursive: true, force: true })
  try {
    const port = await freePort()
    const asked = await runToEnd([process.execPath, program, "identity", "--state", state], {
      cwd: state,
      environment: { PATH: process.env["PATH"] ?? "" }
    })
    const identity = JSON.parse(asked.stdout) as ServerIdentity
    await acceptInto(state, identity, `http://127.0.0.1:${port}`, devices)
    const started = await listening([program, "--state", state, "--port", String(port)], port, clean)
    // What was signed in the second of the server's start is refused: another life may have seen it.
    await new Promise((resolve) => setTimeout(resolve, 1_100))
    return started
  } catch (error) {
    clean()
    throw error
  }
}
