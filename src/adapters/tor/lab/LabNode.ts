/**
 * One tor of a private network: its process, and the control connection that holds it. It ends with the scope; where this
 * program is killed, tor sees its connection close, and ends itself.
 *
 * @module
 */
import { type ChildProcess, spawn } from "node:child_process"
import { closeSync, openSync } from "node:fs"
import { mkdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { Effect, type Scope } from "effect"
import { connectControl, type TorControl, torInfo } from "../TorControl.ts"
import { labFailure, labFiles, TorLabError } from "./LabFailure.ts"

/** How the nodes of one network are started. */
export interface LabLaunch {
  readonly folder: string
  /** The command and what stands before it: `ip netns exec NAME tor`. */
  readonly command: ReadonlyArray<string>
}

export interface LabNode {
  readonly nickname: string
  readonly folder: string
  readonly pid: number
  readonly control: TorControl
  /** Ends, with the last words of its log, when tor ended. */
  readonly ended: Effect.Effect<string>
}

const startMs = 60_000
const pollMs = 20

const hasEnded = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null

const awaitEnd = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (hasEnded(child)) return resume(Effect.void)
    const onExit = (): void => resume(Effect.void)
    child.once("exit", onExit)
    return Effect.sync(() => child.off("exit", onExit))
  })

/** Nothing of it is kept, so that it need not tidy up; its transports belong to the same group. */
const stop = (child: ChildProcess): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (child.pid === undefined) return Effect.void
    try {
      process.kill(-child.pid, "SIGKILL")
    } catch {
      // The whole group is gone: what was wanted.
    }
    return awaitEnd(child)
  })

/** Command line of a tor that reads nothing but its own torrc. */
const torArguments = (launch: LabLaunch, torrc: string): ReadonlyArray<string> => [
  ...launch.command,
  "--defaults-torrc",
  join(launch.folder, "empty"),
  "-f",
  torrc,
  "--hush"
]

/** Environment of every process of a network: nothing but where programs are. */
export const labEnvironment = (): NodeJS.ProcessEnv => ({
  PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/usr/bin:/sbin:/bin`
})

const lastWords = async (folder: string): Promise<string> => {
  const texts = await Promise.all(
    ["console", "log"].map((name) => readFile(join(folder, name), "utf8").catch(() => ""))
  )
  return texts.join("").trimEnd().split("\n").slice(-6).join("\n")
}

const launchProcess = (
  launch: LabLaunch,
  folder: string
): Effect.Effect<ChildProcess, TorLabError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({
      try: () => {
        const words = openSync(join(folder, "console"), "a", 0o600)
        const [file, ...args] = torArguments(launch, join(folder, "torrc")) as [string, ...Array<string>]
        try {
          const stdio = ["ignore", words, words] as const
          const child = spawn(file, args, {
            cwd: "/",
            detached: true,
            env: labEnvironment(),
            stdio: [...stdio]
          })
          child.on("error", () => undefined)
          return child
        } finally {
          closeSync(words)
        }
      },
      catch: (error) => labFailure(`${launch.command.join(" ")} could not be started`, error)
    }),
    stop
  )

/** Connects to the control socket as soon as tor has made it. */
const awaitControl = Effect.fnUntraced(function* (child: ChildProcess, folder: string, nickname: string) {
  const path = join(folder, "ctl")
  for (let waitedMs = 0; ; waitedMs += pollMs) {
    if (child.pid === undefined || hasEnded(child) || waitedMs > startMs) {
      const words = yield* Effect.promise(() => lastWords(folder))
      const how = child.pid === undefined ? "could not be started" : hasEnded(child) ? "ended" : "hangs"
      return yield* new TorLabError({ message: `The tor ${nickname} ${how}. Its last words:\n${words}` })
    }
    const connected = yield* Effect.option(connectControl({ endpoint: { path } }))
    if (connected._tag === "Some") return connected.value
    yield* Effect.sleep(pollMs)
  }
})

/** Starts one tor with these lines, and waits until it can be spoken to. */
export const startLabNode = Effect.fnUntraced(function* (
  launch: LabLaunch,
  nickname: string,
  lines: ReadonlyArray<string>
): Effect.fn.Return<LabNode, TorLabError, Scope.Scope> {
  const folder = join(launch.folder, nickname)
  const torrc = [
    `DataDirectory ${folder}`,
    `Log notice file ${join(folder, "log")}`,
    `ControlSocket ${join(folder, "ctl")}`,
    `__OwningControllerProcess ${process.pid}`,
    "ShutdownWaitLength 0",
    "AvoidDiskWrites 1",
    // Reading which country has which address would take a third of the time that tor needs to start.
    `GeoIPFile ${join(launch.folder, "empty")}`,
    `GeoIPv6File ${join(launch.folder, "empty")}`,
    ...lines
  ]
  yield* labFiles(`The torrc of ${nickname} could not be written`, async () => {
    await mkdir(folder, { recursive: true, mode: 0o700 })
    await writeFile(join(folder, "torrc"), `${torrc.join("\n")}\n`, { mode: 0o600 })
  })
  const child = yield* launchProcess(launch, folder)
  const control = yield* awaitControl(child, folder, nickname)
  yield* Effect.mapError(control.send("TAKEOWNERSHIP"), (error) => labFailure(`The tor ${nickname}`, error))
  const ended = Effect.andThen(
    awaitEnd(child),
    Effect.map(
      Effect.promise(() => lastWords(folder)),
      (words) => `The tor ${nickname} ended. Its last words:\n${words}`
    )
  )
  return { nickname, folder, pid: child.pid as number, control, ended }
})

/** Asks a node until the answer is good; fails when the node ends meanwhile, or after a minute. */
export const waitForNode = (
  node: LabNode,
  what: string,
  key: string,
  isGood: (value: string) => boolean
): Effect.Effect<string, TorLabError> => {
  const ask = Effect.orElseSucceed(torInfo(node.control, key), () => "")
  const later = Effect.delay(
    Effect.suspend(() => look),
    pollMs * 2
  )
  const look: Effect.Effect<string> = Effect.filterOrElse(ask, isGood, () => later)
  const failed = Effect.flatMap(node.ended, (message) => Effect.fail(new TorLabError({ message })))
  return Effect.raceFirst(look, failed).pipe(
    Effect.timeoutOrElse({
      duration: startMs,
      orElse: () =>
        Effect.flatMap(
          Effect.promise(() => lastWords(node.folder)),
          (words) =>
            new TorLabError({
              message: `The tor ${node.nickname} did not come so far within ${startMs / 1000} s (waiting for: ${what}). Its last words:\n${words}`
            })
        )
    })
  )
}
