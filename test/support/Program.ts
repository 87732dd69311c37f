/** Built programs as real processes of a test: started, watched, stopped, killed. */
import { type ChildProcess, spawn } from "node:child_process"
import { randomInt } from "node:crypto"
import { closeSync, existsSync, openSync, readdirSync, readFileSync } from "node:fs"
import { createServer, type ListenOptions, type Server } from "node:net"

const pollMs = 25

/** Waits until `look` gives something; fails with what was awaited and what `explain` knows. */
export const waitUntil = async <A>(
  what: string,
  look: () => A | undefined | false | null | Promise<A | undefined | false | null>,
  timeoutMs = 60_000,
  explain: () => string = () => ""
): Promise<A> => {
  const until = performance.now() + timeoutMs
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false && found !== null) return found
    if (performance.now() > until) {
      throw new Error(`waited ${timeoutMs / 1000} s in vain for ${what}\n${explain()}`)
    }
    await new Promise((resolve) => setTimeout(resolve, pollMs))
  }
}

/** What is read of every process that runs, as far as it is still there. */
const ofProcesses = <A>(read: (pid: number) => A | undefined): ReadonlyArray<A> =>
  readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return []
    try {
      const found = read(Number(name))
      return found === undefined ? [] : [found]
    } catch {
      // It has ended meanwhile.
      return []
    }
  })

/** Processes whose command line holds the text. */
export const processesWith = (text: string): ReadonlyArray<number> =>
  ofProcesses((pid) => (readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(text) ? pid : undefined))

/** Processes of a group; those that have ended and are not yet reaped hold nothing any more. */
const livingOf = (group: number): ReadonlyArray<number> =>
  ofProcesses((pid) => {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8")
    // The name before these may hold anything, parentheses too.
    const [state, , ofGroup] = text.slice(text.lastIndexOf(")") + 2).split(" ")
    return state !== "Z" && state !== "X" && Number(ofGroup) === group ? pid : undefined
  })

/** Below the ports that the system gives to outgoing connections, one of which could sit on it later. */
const lowestPort = 20_000
const highestPort = 32_000

/** Listens there; fails where somebody does already. */
const listening = (at: ListenOptions): Promise<Server> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once("error", reject)
    server.listen(at, () => resolve(server))
  })

/** A port of loopback that is free now, and that no other test draws for as long as this process lives. */
export const freePort = async (): Promise<number> => {
  for (let left = 50; ; left--) {
    const port = randomInt(lowestPort, highestPort)
    try {
      // A socket without a file, whose name is given back with this process, marks the port as drawn.
      const mark = await listening({ path: `\0postern-test-port-${port}` })
      mark.unref()
      const probe = await listening({ port, host: "127.0.0.1" })
      await new Promise((resolve) => probe.close(resolve))
      return port
    } catch (error) {
      if (left === 0) throw error
    }
  }
}

/** A program that keeps running: server or client. All its lives write into one log. */
export class Program {
  readonly logFile: string
  private child: ChildProcess | undefined
  private readonly name: string
  private readonly command: ReadonlyArray<string>
  private variables: Readonly<Record<string, string>>

  constructor(
    name: string,
    command: ReadonlyArray<string>,
    environment: Readonly<Record<string, string>>,
    logFile: string
  ) {
    this.name = name
    this.command = command
    this.variables = environment
    this.logFile = logFile
  }

  /** Starts it in a process group of its own, so that nothing it starts survives the test. */
  start(): void {
    if (this.isRunning()) throw new Error(`${this.name} runs already`)
    const log = openSync(this.logFile, "a", 0o600)
    const [file, ...args] = this.command as [string, ...Array<string>]
    this.child = spawn(file, args, { stdio: ["ignore", log, log], env: this.variables, detached: true })
    closeSync(log)
  }

  /** Adds to the environment of its next start. */
  environment(more: Readonly<Record<string, string>>): void {
    this.variables = { ...this.variables, ...more }
  }

  get pid(): number {
    const pid = this.child?.pid
    if (pid === undefined) throw new Error(`${this.name} was not started`)
    return pid
  }

  isRunning(): boolean {
    return this.child !== undefined && this.child.exitCode === null && this.child.signalCode === null
  }

  log(): string {
    return existsSync(this.logFile) ? readFileSync(this.logFile, "utf8") : ""
  }

  /** Waits for its end; gives its exit code, or the signal that ended it. */
  async ended(timeoutMs = 15_000): Promise<number | NodeJS.Signals> {
    const { child } = this
    if (child === undefined) throw new Error(`${this.name} was not started`)
    const explain = () => this.log().slice(-2000)
    await waitUntil(`the end of ${this.name}`, () => !this.isRunning(), timeoutMs, explain)
    return child.exitCode ?? (child.signalCode as NodeJS.Signals)
  }

  /** Sends a signal to the program alone. */
  signal(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal)
  }

  /** Sends a signal to the program and everything it started; fine when all are gone. */
  signalGroup(signal: NodeJS.Signals): void {
    if (this.child?.pid === undefined) return
    try {
      process.kill(-this.child.pid, signal)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error
    }
  }

  /** `kill -9` of the program and everything it started, as a power cut would; done when all of them are gone. */
  async crash(): Promise<void> {
    this.signalGroup("SIGKILL")
    await this.ended()
    const { pid } = this
    await waitUntil(`the end of all that ${this.name} started`, () => livingOf(pid).length === 0)
  }

  /** SIGTERM, and how long it took to end with which code. */
  async stop(
    timeoutMs = 15_000
  ): Promise<{ readonly code: number | NodeJS.Signals; readonly tookMs: number }> {
    const startedMs = performance.now()
    this.signal("SIGTERM")
    const code = await this.ended(timeoutMs)
    return { code, tookMs: performance.now() - startedMs }
  }
}

export interface Ended {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs a command to its end; killed, and an error, when it takes too long. */
export const runToEnd = (
  command: ReadonlyArray<string>,
  options: {
    readonly cwd: string
    readonly environment: Readonly<Record<string, string>>
    readonly input?: string
    readonly timeoutMs?: number
    /** Is given all of the standard output whenever there is more of it. */
    readonly onOutput?: (stdout: string) => void
  }
): Promise<Ended> =>
  new Promise((resolve, reject) => {
    const { cwd, environment, input = "", onOutput, timeoutMs = 100_000 } = options
    const [file, ...args] = command as [string, ...Array<string>]
    const child = spawn(file, args, { env: environment, cwd, stdio: ["pipe", "pipe", "pipe"] })
    let stdout = ""
    let stderr = ""
    const timer = setTimeout(() => child.kill("SIGKILL"), timeoutMs)
    child.stdout.setEncoding("utf8").on("data", (text) => {
      stdout += text
      onOutput?.(stdout)
    })
    child.stderr.setEncoding("utf8").on("data", (text) => {
      stderr += text
    })
    // A program that ends without reading its input is no failure of the test.
    child.stdin.on("error", () => undefined)
    child.stdin.end(input)
    child.once("error", reject)
    child.once("close", (code, signal) => {
      clearTimeout(timer)
      if (signal === "SIGKILL") {
        reject(new Error(`${command.join(" ")} took over ${timeoutMs} ms\n${stdout}\n${stderr}`))
      } else resolve({ code: code ?? -1, stdout, stderr })
    })
  })
