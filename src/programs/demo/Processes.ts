/**
 * Child processes of the demo: each in a process group of its own, so that Ctrl-C reaches the demo alone and it can end
 * them in order; none outlives the scope it was started in.
 *
 * @module
 */
import { type ChildProcess, spawn } from "node:child_process"
import { closeSync, openSync, readFileSync } from "node:fs"
import { Effect, Schema } from "effect"

/** A program of the demo did not do its part. */
export class DemoFailure extends Schema.TaggedError<DemoFailure>()("DemoFailure", {
  message: Schema.String
}) {}

/** How long a program may take to end after SIGTERM before it is killed. */
const stopMs = 6_000
/** How long what its leader has left of a group may take to end by the same SIGTERM. */
const restMs = 1_000
const pollMs = 50

/** Whether the child has ended, by its own code or a signal. */
const hasEnded = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null

const signalGroup = (child: ChildProcess, signal: NodeJS.Signals): void => {
  try {
    process.kill(-(child.pid as number), signal)
  } catch {
    // The whole group is gone: what was wanted.
  }
}

/** Waits until the child has ended. */
const awaitEnd = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (hasEnded(child)) return resume(Effect.void)
    const onExit = (): void => resume(Effect.void)
    child.once("exit", onExit)
    return Effect.sync(() => child.off("exit", onExit))
  })

/** Waits until nothing of the child's group is there any more; whether it came to that in time. */
const awaitRest = (child: ChildProcess): Effect.Effect<boolean> =>
  Effect.gen(function* () {
    for (let waitedMs = 0; ; waitedMs += pollMs) {
      try {
        process.kill(-(child.pid as number), 0)
      } catch {
        return true
      }
      if (waitedMs >= restMs) return false
      yield* Effect.sleep(pollMs)
    }
  })

const stop = (child: ChildProcess): Effect.Effect<void> =>
  Effect.gen(function* () {
    if (child.pid === undefined || hasEnded(child)) return
    signalGroup(child, "SIGTERM")
    const kill = Effect.andThen(
      Effect.sync(() => signalGroup(child, "SIGKILL")),
      awaitEnd(child)
    )
    yield* Effect.timeoutOrElse(awaitEnd(child), { duration: stopMs, orElse: () => kill })
    // A leader that a signal ended has not waited for its own.
    if (yield* awaitRest(child)) return
    signalGroup(child, "SIGKILL")
    yield* awaitRest(child)
  })

const isPassedOn = (name: string): boolean => name === "POSTERN_BWRAP" || !name.startsWith("POSTERN_")

/** Environment of all children: the demo's own, without what would lead them to the operator's real files. */
const environment = (extra: Readonly<Record<string, string>>): NodeJS.ProcessEnv => ({
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => isPassedOn(name))),
  ...extra
})

/** A program that runs as long as the scope is open; what it says goes into a log file. */
export interface Service {
  readonly name: string
  readonly logFile: string
  readonly hasEnded: () => boolean
}

/** Starts a program with its log in a file. */
export const startService = (options: {
  readonly name: string
  readonly command: ReadonlyArray<string>
  readonly environment: Readonly<Record<string, string>>
  readonly logFile: string
}) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const log = openSync(options.logFile, "a", 0o600)
        const [file, ...args] = options.command as [string, ...Array<string>]
        const child = spawn(file, args, {
          stdio: ["ignore", log, log],
          detached: true,
          env: environment(options.environment)
        })
        closeSync(log)
        return child
      }),
      stop
    ),
    (child): Service => ({ name: options.name, logFile: options.logFile, hasEnded: () => hasEnded(child) })
  )

/** The last lines of a service's log, for the message when it fails. */
const lastLines = (service: Service): string =>
  readFileSync(service.logFile, "utf8").trimEnd().split("\n").slice(-8).join("\n")

/** Waits until `find` gives something, as long as the service lives; at most `timeoutMs`. */
export const waitFor = <A>(
  what: string,
  service: Service,
  find: () => A | undefined,
  timeoutMs: number
): Effect.Effect<A, DemoFailure> =>
  Effect.gen(function* () {
    for (let waitedMs = 0; ; waitedMs += pollMs) {
      const found = find()
      if (found !== undefined) return found
      if (service.hasEnded() || waitedMs >= timeoutMs) {
        const how = service.hasEnded() ? "ended" : `did not come so far within ${timeoutMs / 1000} s`
        return yield* new DemoFailure({
          message: `The ${service.name} ${how} (waiting for: ${what}). Its last words:\n${lastLines(service)}`
        })
      }
      yield* Effect.sleep(pollMs)
    }
  })

/** How a command ended. */
export interface Ended {
  readonly code: number
  readonly stdout: string
}

/**
 * Runs a command to its end. `show`: its output goes where the demo's goes; else stdout is given back and stderr shown
 * only in the failure.
 */
export const runCommand = (options: {
  readonly command: ReadonlyArray<string>
  readonly environment: Readonly<Record<string, string>>
  readonly show: boolean
}): Effect.Effect<Ended, DemoFailure> =>
  Effect.scoped(
    Effect.gen(function* () {
      const [file, ...args] = options.command as [string, ...Array<string>]
      let stdout = ""
      let stderr = ""
      const child = yield* Effect.acquireRelease(
        Effect.sync(() => {
          const started = spawn(file, args, {
            stdio: options.show ? ["ignore", "inherit", "inherit"] : ["ignore", "pipe", "pipe"],
            detached: true,
            env: environment(options.environment)
          })
          started.stdout?.setEncoding("utf8").on("data", (text: string) => (stdout += text))
          started.stderr?.setEncoding("utf8").on("data", (text: string) => (stderr += text))
          return started
        }),
        stop
      )
      const code = yield* Effect.callback<number>((resume) => {
        child.once("close", (exitCode) => resume(Effect.succeed(exitCode ?? 1)))
        child.once("error", () => resume(Effect.succeed(127)))
      })
      if (code === 0) return { code, stdout }
      return yield* new DemoFailure({
        message: `${stderr.trim() === "" ? "That command failed, so the demo ends here" : stderr.trim()} (exit code ${code})`
      })
    })
  )
