/** A Node program under measurement, which tells on request what it used: processor time, and memory after a collection. */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"

/** What a process has used so far. */
export interface Usage {
  /** Processor time of all its threads, in milliseconds. */
  readonly cpuMs: number
  /** Held by its main thread after a garbage collection: heap, and buffers outside of it. In bytes. */
  readonly heldBytes: number
  /** What the system counts as resident after that collection, in bytes. */
  readonly residentBytes: number
}

/** Loaded before the program itself. It must not keep the program alive. */
const probe = `
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { isMainThread } from "node:worker_threads"
if (isMainThread) {
  setFlagsFromString("--expose-gc")
  const collect = runInNewContext("gc")
  process.on("message", (collected) => {
    const { user, system } = process.cpuUsage()
    if (collected) { collect(); collect() }
    const { external, heapUsed, rss } = process.memoryUsage()
    process.send({ cpuMs: (user + system) / 1000, heldBytes: heapUsed + external, residentBytes: rss })
  })
  // Whoever measures is gone.
  process.on("disconnect", () => process.exit(1))
  process.channel.unref()
}
`

export class Probed {
  readonly child: ChildProcess
  /** The end of what it wrote to its standard error. */
  said = ""

  /** Starts `node ARGS` with nothing of the environment but PATH, and what is named. */
  constructor(args: ReadonlyArray<string>, environment: Readonly<Record<string, string>> = {}) {
    const probeUrl = `data:text/javascript,${encodeURIComponent(probe)}`
    this.child = spawn(process.execPath, ["--import", probeUrl, ...args], {
      env: { PATH: process.env["PATH"] ?? "", ...environment },
      stdio: ["ignore", "ignore", "pipe", "ipc"]
    })
    this.child.stderr?.setEncoding("utf8").on("data", (text) => {
      this.said = (this.said + text).slice(-2_000)
    })
  }

  /** What it used so far; `collected` asks for a garbage collection first, whose own time does not count. */
  async usage(collected: boolean): Promise<Usage> {
    const answer = once(this.child, "message")
    this.child.send(collected)
    const [usage] = await answer
    return usage as Usage
  }

  /** Ends it at once. */
  async end(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    const ended = once(this.child, "exit")
    this.child.kill("SIGKILL")
    await ended
  }
}
