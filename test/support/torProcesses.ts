/** What runs of a private Tor network, and what a starter leaves behind that is killed. */
import { type ChildProcess, spawn } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { waitUntil } from "./Program.ts"

/** Processes whose command line names a file below that folder. */
export const processesOf = (folder: string): ReadonlyArray<string> =>
  readdirSync("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return []
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ")
      return command.includes(`${folder}/`) ? [`${pid} ${command}`] : []
    } catch {
      // It has ended meanwhile.
      return []
    }
  })

/** A program that starts a network of its own below `parent`. */
export class NetworkStarter {
  readonly parent = mkdtempSync(join(tmpdir(), "postern-starter-"))
  private readonly child: ChildProcess
  private said = ""

  constructor() {
    const program = join(import.meta.dirname, "../tor/starter.ts")
    this.child = spawn(process.execPath, [program, this.parent], { stdio: ["ignore", "pipe", "pipe"] })
    for (const stream of [this.child.stdout, this.child.stderr])
      stream?.setEncoding("utf8").on("data", (text) => {
        this.said += text
      })
  }

  /** So many tors run. */
  async runs(count: number): Promise<void> {
    const tors = () => processesOf(this.parent).filter((command) => command.includes("/torrc"))
    await waitUntil(
      `${count} tors of the network`,
      () => tors().length >= count,
      60_000,
      () => this.said
    )
  }

  /** The network is ready. */
  async stands(): Promise<void> {
    await waitUntil(
      "the network",
      () => this.said.includes("stands"),
      120_000,
      () => this.said
    )
  }

  /** `kill -9` of the program alone; done when nothing of the network runs or lies there. */
  async killed(): Promise<void> {
    this.child.kill("SIGKILL")
    const left = () => [...processesOf(this.parent), ...readdirSync(this.parent)]
    await waitUntil(
      "the end of all that the killed program had started",
      () => left().length === 0,
      60_000,
      () => left().join("\n")
    )
    rmSync(this.parent, { recursive: true })
  }
}
