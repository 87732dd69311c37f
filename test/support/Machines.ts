/**
 * Two machines that are none: each a set of namespaces with its own processes, network, name, /etc and /var/lib, joined by
 * one cable. Needs root. A machine ends when its test does, however that ends.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type Ended, runToEnd, waitUntil } from "./Program.ts"
import { atTerminal, type Dialogue } from "./terminal.ts"

const tools = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/** Its own /var/lib, which is empty, and its own /etc, which is the host's as it was. Reads on until nobody writes. */
const beginning = `set -e
hostname "$1"
mount -t tmpfs tmpfs /var/lib
mkdir "$2/etc"
cp -a /etc/. "$2/etc"
mount --bind "$2/etc" /etc
ip link set lo up
`

/** Ends the machine when nobody holds its input open any more: the kernel then ends all of its processes. */
const guard = 'unshare "$@" </dev/null & echo "first $!"; cat >/dev/null; kill -9 $!; wait'

/** What the first process becomes when the machine is as it should be. */
const idle = "echo ready\nexec sleep infinity\n"

const require0 = (what: string, ended: { readonly status: number | null; readonly stderr: string }): void => {
  if (ended.status !== 0) throw new Error(`${what}: ${ended.stderr}`)
}

export class Machine {
  /** Where its owner's files lie; the folder commands run in. */
  readonly home: string
  private readonly folder: string
  private readonly first: ChildProcess
  private pid = 0

  private constructor(name: string, becomes: string) {
    this.folder = mkdtempSync(join(tmpdir(), "postern-machine-"))
    this.home = join(this.folder, "home")
    // The client, which is not root for long, must be able to read its own program.
    for (const path of [this.home, join(this.folder, "bin")]) mkdirSync(path, { mode: 0o755 })
    spawnSync("chmod", ["0755", this.folder])
    symlinkSync(process.execPath, join(this.folder, "bin", "node"))
    const namespaces = [
      "--fork",
      "--kill-child",
      "--pid",
      "--mount",
      "--mount-proc",
      "--net",
      "--uts",
      "--ipc"
    ]
    const script = ["sh", "-c", `${beginning}${becomes}`, "sh", name, this.folder]
    this.first = spawn("sh", ["-c", guard, "sh", ...namespaces, ...script], {
      env: { PATH: tools },
      stdio: ["pipe", "pipe", "inherit"]
    })
  }

  /** A machine that is up. `becomes` is what its first process does, after it has said `ready`. */
  static async start(name: string, becomes = idle): Promise<Machine> {
    const machine = new Machine(name, becomes)
    try {
      let said = ""
      machine.first.stdout?.on("data", (text: Buffer) => {
        said += text.toString()
      })
      await waitUntil(`the machine ${name}`, () => {
        if (machine.first.exitCode !== null) throw new Error(`the machine ${name} did not start`)
        return /^ready$/m.test(said)
      })
      const outer = /^first (\d+)$/m.exec(said)?.[1]
      machine.pid = Number(readFileSync(`/proc/${outer}/task/${outer}/children`, "utf8").trim())
      return machine
    } catch (error) {
      await machine.stop()
      throw error
    }
  }

  /** A cable between two machines, with the address of each, and what it is called there. */
  static connect(
    left: Machine,
    leftAddress: string,
    right: Machine,
    rightAddress: string,
    names: readonly [left: string, right: string] = ["eth0", "eth0"]
  ): void {
    const ends = [
      names[0],
      "netns",
      `${left.pid}`,
      "type",
      "veth",
      "peer",
      "name",
      names[1],
      "netns",
      `${right.pid}`
    ]
    require0("a cable", spawnSync("ip", ["link", "add", ...ends], { encoding: "utf8" }))
    const sides = [[left, leftAddress, names[0]] as const, [right, rightAddress, names[1]] as const]
    for (const [machine, address, name] of sides) {
      const up = `ip address add ${address}/24 dev ${name} && ip link set ${name} up`
      const [program = "", ...args] = machine.command(up)
      require0("an address", spawnSync(program, args, { encoding: "utf8" }))
    }
  }

  private command(script: string): ReadonlyArray<string> {
    const into = ["-t", `${this.pid}`, "-m", "-u", "-i", "-n", "-p", `--wd=${this.home}`]
    return ["nsenter", ...into, "sh", "-c", script]
  }

  private get environment(): Record<string, string> {
    return { PATH: `${join(this.folder, "bin")}:${tools}`, HOME: this.home, LANG: "C.UTF-8", NO_COLOR: "1" }
  }

  /** The path of its network namespace, while it is up. */
  get namespace(): string {
    return `/proc/${this.pid}/ns/net`
  }

  /** Runs a shell command to its end. */
  run(script: string, timeoutMs = 120_000): Promise<Ended> {
    return runToEnd(this.command(script), { environment: this.environment, cwd: this.home, timeoutMs })
  }

  /** Runs a shell command at a terminal, where a person answers its questions. */
  talk(script: string, answers: Parameters<typeof atTerminal>[2], timeoutMs = 100_000): Promise<Dialogue> {
    return atTerminal(this.command(script), this.environment, answers, timeoutMs)
  }

  /** Starts a shell command and leaves it running, its words in a file of the home; it ends with the machine. */
  async leaveRunning(script: string, log: string): Promise<void> {
    const started = await this.run(`{ ${script}; } >'${log}' 2>&1 </dev/null &`)
    if (started.code !== 0) throw new Error(`${script}: ${started.stderr}`)
  }

  /** What a program left running has said so far. */
  log(name: string): string {
    const path = join(this.home, name)
    return existsSync(path) ? readFileSync(path, "utf8") : ""
  }

  /** Ends everything on it and removes its files. */
  async stop(): Promise<void> {
    const gone = new Promise<void>((resolve) => {
      if (this.first.exitCode !== null || this.first.signalCode !== null) resolve()
      else this.first.once("exit", () => resolve())
    })
    this.first.stdin?.end()
    await gone
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 })
  }
}
