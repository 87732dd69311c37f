/**
 * The chain of processes of one run (see Launch.ts): starts it, listens to it, ends it. Plain Node without Effect, since
 * the warden loads it.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { closeSync, openSync } from "node:fs"
import type { Readable, Writable } from "node:stream"
import {
  bubblewrapArguments,
  LaunchDescriptor,
  type LaunchPlan,
  launchCommand,
  launchFailures,
  launchPath
} from "./Launch.ts"
import { inheritableDescriptors, killChain, killInit, signalJob } from "./Processes.ts"

/** How the chain ended. */
export interface ChainEnd {
  /** What bubblewrap said of the job's main process; null where it did not come to say it. */
  readonly exitCode: number | null
  /** Processor time of all that ended and was waited for, the chain's own included; null where it was not told. */
  readonly cpuMs: number | null
  /** What the chain's tools said, and why, where it ended before the engine's start. */
  readonly message: string
  /** Whether the kernel has vouched that no process is left. */
  readonly clean: boolean
}

/** Who hears of a chain. Each is called at most once, in this order; `ended` always, and last. */
export interface ChainListener {
  /** Mounts and pipes stand; nothing of the job has run. `viewer` is a process that sees the job's file system. */
  readonly ready: (viewer: number) => void
  /** bubblewrap has begun, so both output pipes have a writer. */
  readonly begun: () => void
  readonly ended: (end: ChainEnd) => void
}

/** The job's processes are killed first, so that the jail's process 1 can still account for them. */
const accountingMs = 1_000
const namespaceMs = 3_000
const chainMs = 2_000

/** How soon a job is looked for again that was not there to be signalled. */
const lookAgainMs = 20

const messageBytes = 2_000
const statusBytes = 4_096

/** Collects text from a trusted pipe up to a bound and hands it on as it grows. */
const listen = (pipe: Readable, maximum: number, heard: (text: string) => void): void => {
  let text = ""
  pipe.setEncoding("utf8")
  pipe.on("data", (piece: string) => {
    if (text.length >= maximum) return
    text = (text + piece).slice(0, maximum)
    heard(text)
  })
  pipe.on("error", () => undefined)
}

/** Writes all and closes; the chain may die meanwhile, which shows as its end and needs no second report. */
const deliver = (pipe: Writable, bytes: Uint8Array): void => {
  pipe.on("error", () => undefined)
  pipe.end(bytes)
}

/** Processor time of children in the output of the shell's `times`: its second line, user and system. */
export const childTimesMs = (status: string): number | null => {
  const lines = [...status.matchAll(/^(\d+)m(\d+)[.,](\d+)s (\d+)m(\d+)[.,](\d+)s$/gm)]
  const [, ...fields] = lines[1] ?? []
  if (fields.length !== 6) return null
  const [userM, userS, userF, systemM, systemS, systemF] = fields as [
    string,
    string,
    string,
    string,
    string,
    string
  ]
  const ms = (minutes: string, seconds: string, fraction: string) =>
    Number(minutes) * 60_000 + Math.round(Number(`${seconds}.${fraction}`) * 1000)
  return ms(userM, userS, userF) + ms(systemM, systemS, systemF)
}

/** The exit code in bubblewrap's JSON status lines. */
export const statusExitCode = (status: string): number | null => {
  const found = /"exit-code": *(\d{1,3}) *\}/.exec(status)?.[1]
  return found === undefined ? null : Number(found)
}

/**
 * Descriptors that somebody left inheritable in this process would reach the job. Each is covered with /dev/null, since
 * neither Node nor a plain shell can close it in the child.
 */
const spawnChain = (plan: LaunchPlan): ChildProcess => {
  const [file, args] = launchCommand(plan)
  const stray = inheritableDescriptors(LaunchDescriptor.gate + 1)
  const nothing = openSync("/dev/null", "r")
  try {
    const stdio: Array<"ignore" | "pipe" | number> = [
      "ignore",
      "ignore",
      "pipe",
      "pipe",
      "pipe",
      "pipe",
      "pipe"
    ]
    for (const descriptor of stray) {
      while (stdio.length < descriptor) stdio.push("ignore")
      stdio[descriptor] = nothing
    }
    return spawn(file, args, { cwd: "/", env: { PATH: launchPath }, detached: true, stdio })
  } finally {
    closeSync(nothing)
  }
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

/** A chain under way. */
export class Chain {
  /** Host pid of the guard; 0 where there never was one. */
  readonly guard: number
  private readonly child: ChildProcess
  private readonly hasViewer: boolean
  private readonly listener: ChainListener
  private readonly finished: Promise<void>
  private finish: () => void = () => undefined
  private status = ""
  private message = ""
  private told = { ready: false, begun: false, ended: false }
  /** What was killed by force so far, and whether init was told to go on. */
  private readonly force = { released: false, init: false, chain: false }
  private killing: Promise<void> | null = null

  /** Starts the chain; it waits at its gate. */
  constructor(plan: LaunchPlan, seccomp: Uint8Array, listener: ChainListener) {
    this.listener = listener
    this.hasViewer = plan.viewerUid !== null
    this.finished = new Promise((resolve) => {
      this.finish = resolve
    })
    this.child = spawnChain(plan)
    this.guard = this.child.pid ?? 0
    this.child.once("error", (error) => this.end(null, error.message))
    this.child.once("close", (code) => this.end(code, ""))
    if (this.child.pid === undefined) return
    listen(this.pipe(2) as Readable, messageBytes, (text) => {
      this.message = text
    })
    listen(this.pipe(LaunchDescriptor.status) as Readable, statusBytes, (text) => this.hear(text))
    deliver(this.pipe(LaunchDescriptor.arguments) as Writable, bubblewrapArguments(plan))
    deliver(this.pipe(LaunchDescriptor.seccomp) as Writable, seccomp)
    this.pipe(LaunchDescriptor.gate)?.on("error", () => undefined)
  }

  private pipe(number: number): Readable | Writable | null {
    return (this.child.stdio as ReadonlyArray<Readable | Writable | null>)[number] ?? null
  }

  private hear(text: string): void {
    this.status = text
    const viewer = this.hasViewer ? Number(/^viewer (\d+)$/m.exec(text)?.[1] ?? 0) : this.guard
    if (!this.told.ready && viewer !== 0 && /^ready$/m.test(text)) {
      this.told.ready = true
      this.listener.ready(viewer)
    }
    if (!this.told.begun && text.includes("child-pid")) {
      this.told.begun = true
      this.listener.begun()
    }
  }

  private end(code: number | null, failure: string): void {
    if (this.told.ended) return
    this.told.ended = true
    const known = code === null || this.status.includes("child-pid") ? undefined : launchFailures[code]
    this.finish()
    this.listener.ended({
      exitCode: statusExitCode(this.status),
      cpuMs: childTimesMs(this.status),
      message: [known, failure, this.message.trim()]
        .filter((part) => part !== undefined && part !== "")
        .join(": "),
      // unshare(1) takes on the signal of its child: after a kill of init it ends by one, having waited all the same.
      clean: this.child.pid === undefined || (!this.force.chain && (code !== null || this.force.init))
    })
  }

  get running(): boolean {
    return this.guard !== 0 && this.child.exitCode === null && this.child.signalCode === null
  }

  /** Lets init go on. */
  release(): void {
    if (this.force.released || this.child.pid === undefined) return
    this.force.released = true
    ;(this.pipe(LaunchDescriptor.gate) as Writable).end("go\n")
  }

  /** SIGTERM to the job; to one that bubblewrap is still to start, as soon as it is there. */
  terminate(): void {
    if (!this.running || this.killing !== null) return
    if (signalJob(this.guard, "SIGTERM") === 0) setTimeout(() => this.terminate(), lookAgainMs).unref()
  }

  /** Kills everything; resolves when the end was told, which takes at most some six seconds, whatever happens. */
  kill(): Promise<void> {
    this.killing ??= this.killAll()
    return this.killing
  }

  private async endedWithin(ms: number): Promise<boolean> {
    await Promise.race([this.finished, pause(ms)])
    return this.told.ended
  }

  private killAtOnce(): void {
    if (!this.running) return
    this.force.chain = true
    killChain(this.guard)
  }

  private async killAll(): Promise<void> {
    // Before init was told to go on there is nothing of the job, and init may not be there to be found.
    if (!this.force.released) this.killAtOnce()
    const killed = this.running ? signalJob(this.guard, "SIGKILL") : 0
    if ((killed > 0 || !this.running) && (await this.endedWithin(accountingMs))) return
    if (this.running) {
      this.force.init = true
      killInit(this.guard)
    }
    if (await this.endedWithin(namespaceMs)) return
    this.killAtOnce()
    if (await this.endedWithin(chainMs)) return
    for (const pipe of this.child.stdio) pipe?.destroy()
    if (this.told.ended) return
    this.told.ended = true
    this.finish()
    this.listener.ended({ exitCode: null, cpuMs: null, message: "the processes do not die", clean: false })
  }
}
