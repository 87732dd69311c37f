/** The chain of processes of one run (see Launch.ts): starts it, listens to it, ends it. */
import type { ChildProcess } from "node:child_process"
import { spawn } from "node:child_process"
import { closeSync, openSync } from "node:fs"
import type { Readable, Writable } from "node:stream"
import type { Scope } from "effect"
import { Deferred, Effect, Option } from "effect"
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
export interface EngineEnd {
  /** What bubblewrap said of the job's main process; null where it did not come to say it. */
  readonly exitCode: number | null
  /** Processor time of all that ended and was waited for, the chain's own included; null where it was not told. */
  readonly cpuMs: number | null
  /** What the chain's tools said, and why, where it ended before the engine's start. */
  readonly message: string
  /** Whether the kernel has vouched that no process is left. */
  readonly clean: boolean
}

export interface Engine {
  /** Host pid of the guard. */
  readonly guard: number
  /** Mounts and pipes stand; nothing of the job has run. Fails with the end where it never comes to that. */
  readonly ready: Effect.Effect<void, EngineEnd>
  /** Lets init go on. */
  readonly release: Effect.Effect<void>
  /** bubblewrap has begun, so both output pipes have a writer. */
  readonly begun: Effect.Effect<void, EngineEnd>
  readonly end: Effect.Effect<EngineEnd>
  readonly terminate: Effect.Effect<void>
  /** Kills everything and waits for the end; takes at most some six seconds, whatever happens. */
  readonly kill: Effect.Effect<EngineEnd>
}

/** The job's processes are killed first, so that the jail's process 1 can still account for them. */
const accountingMs = 300
const namespaceMs = 3_000
const chainMs = 2_000

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

const start = (plan: LaunchPlan, seccomp: Uint8Array): Engine => {
  const ready = Deferred.makeUnsafe<void, EngineEnd>()
  const begun = Deferred.makeUnsafe<void, EngineEnd>()
  const end = Deferred.makeUnsafe<EngineEnd>()
  let status = ""
  let message = ""
  const child = spawnChain(plan)
  const force: Force = { released: false, init: false, chain: false }
  const finish = (code: number | null, failure: string): void => {
    const known = code === null || status.includes("child-pid") ? undefined : launchFailures[code]
    const ended: EngineEnd = {
      exitCode: statusExitCode(status),
      cpuMs: childTimesMs(status),
      message: [known, failure, message.trim()]
        .filter((part) => part !== undefined && part !== "")
        .join(": "),
      // unshare(1) takes on the signal of its child: after a kill of init it ends by one, having waited all the same.
      clean: child.pid === undefined || (!force.chain && (code !== null || force.init))
    }
    Deferred.doneUnsafe(end, Effect.succeed(ended))
    Deferred.doneUnsafe(ready, Effect.fail(ended))
    Deferred.doneUnsafe(begun, Effect.fail(ended))
  }
  child.once("error", (error) => finish(null, error.message))
  child.once("close", (code) => finish(code, ""))
  const stdio = child.stdio as ReadonlyArray<unknown>
  if (child.pid !== undefined) {
    listen(stdio[2] as Readable, messageBytes, (text) => {
      message = text
    })
    listen(stdio[LaunchDescriptor.status] as Readable, statusBytes, (text) => {
      status = text
      if (text.includes("ready\n")) Deferred.doneUnsafe(ready, Effect.void)
      if (text.includes("child-pid")) Deferred.doneUnsafe(begun, Effect.void)
    })
    deliver(stdio[LaunchDescriptor.arguments] as Writable, bubblewrapArguments(plan))
    deliver(stdio[LaunchDescriptor.seccomp] as Writable, seccomp)
    ;(stdio[LaunchDescriptor.gate] as Writable).on("error", () => undefined)
  }
  return engineOf(child, force, { ready, begun, end }, () => {
    const gate = stdio[LaunchDescriptor.gate] as Writable | undefined
    force.released = true
    if (gate !== undefined) gate.end("go\n")
  })
}

/** What was killed by force so far, and whether init was told to go on. */
interface Force {
  released: boolean
  init: boolean
  chain: boolean
}

const engineOf = (
  child: ChildProcess,
  force: Force,
  signs: {
    readonly ready: Deferred.Deferred<void, EngineEnd>
    readonly begun: Deferred.Deferred<void, EngineEnd>
    readonly end: Deferred.Deferred<EngineEnd>
  },
  openGate: () => void
): Engine => {
  const guard = child.pid ?? 0
  const running = () => guard !== 0 && child.exitCode === null && child.signalCode === null
  const act = (action: () => void) => Effect.sync(() => (running() ? action() : undefined))
  const end = Deferred.await(signs.end)
  const endWithin = (ms: number) => Effect.timeoutOption(end, ms)
  const killAtOnce = act(() => {
    force.chain = true
    killChain(guard)
  })
  const kill = Effect.gen(function* () {
    // Before init was told to go on there is nothing of the job, and init may not be there to be found.
    if (!force.released) yield* killAtOnce
    const killed = yield* Effect.sync(() => (running() ? signalJob(guard, "SIGKILL") : 0))
    const first = killed > 0 || !running() ? yield* endWithin(accountingMs) : Option.none()
    if (Option.isSome(first)) return first.value
    yield* act(() => {
      force.init = true
      killInit(guard)
    })
    const second = yield* endWithin(namespaceMs)
    if (Option.isSome(second)) return second.value
    yield* killAtOnce
    const third = yield* endWithin(chainMs)
    if (Option.isSome(third)) return third.value
    for (const pipe of child.stdio) pipe?.destroy()
    return { exitCode: null, cpuMs: null, message: "the processes do not die", clean: false }
  })
  return {
    guard,
    ready: Deferred.await(signs.ready),
    begun: Deferred.await(signs.begun),
    end,
    release: Effect.sync(openGate),
    terminate: act(() => signalJob(guard, "SIGTERM")),
    kill: Effect.uninterruptible(kill)
  }
}

/** Starts the chain; closing the scope kills it and waits until it is gone. */
export const acquireEngine = (
  plan: LaunchPlan,
  seccomp: Uint8Array
): Effect.Effect<Engine, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => start(plan, seccomp)),
    (engine) => engine.kill
  )
