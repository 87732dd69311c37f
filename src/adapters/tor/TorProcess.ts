/**
 * A tor process of this program's own: started in a folder of its own, its log taken in, ended with the scope. Where this
 * program is killed, tor ends by itself, since it watches its owner; one that cannot is ended by the next start.
 *
 * @module
 */
import { type ChildProcess, spawn } from "node:child_process"
import { closeSync, constants, openSync, readFileSync, rmSync, writeSync } from "node:fs"
import { createInterface } from "node:readline"
import { Deferred, Duration, Effect, type Scope } from "effect"
import { utf8 } from "../../crypto/Bytes.ts"
import { TorError } from "../../schemas/TorError.ts"
import { errorCode, errorText, requirePrivateFolder } from "../files/AtomicFile.ts"
import { launchPath } from "../jail/Launch.ts"
import { putFile } from "./PutFile.ts"
import { folderObstacle, type TorrcOptions, torDefaults, torPaths, torrcOf } from "./Torrc.ts"

export interface TorProcess {
  readonly pid: number
  /** Ends with the reason, and tor's last complaints, when the process has ended. */
  readonly ended: Effect.Effect<string>
  /** Tor's last complaints, oldest first. */
  readonly complaints: () => ReadonlyArray<string>
  /** Kills it, for when it hangs. */
  readonly kill: Effect.Effect<void>
}

const termMs = 1_000
const killMs = 2_000
const leftoverMs = 3_000
const restOfLogMs = 200
const keptComplaints = 8
const lineLength = 500
/** A complaint that comes again within this time is not logged again. */
const repeatMs = 600_000
const rememberedComplaints = 64

const signalGroup = (pid: number, signal: NodeJS.Signals): void => {
  try {
    process.kill(-pid, signal)
  } catch {
    // Gone already: what was wanted.
  }
}

/** Whether a process is a tor on this folder's torrc. */
const isOurs = (pid: number, torrc: string): boolean => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").includes(torrc)
  } catch {
    return false
  }
}

/** Ends a tor that an earlier program left on this folder: stopped, say, or hung, so that it could not see its owner die. */
const endLeftover = (folder: string): Effect.Effect<void> =>
  Effect.gen(function* () {
    const { pid: path, torrc } = torPaths(folder)
    const pid = yield* Effect.sync(() => {
      try {
        return Number(readFileSync(path, "utf8").trim())
      } catch {
        return Number.NaN
      }
    })
    if (!Number.isSafeInteger(pid) || pid <= 1) return
    for (let waitedMs = 0; isOurs(pid, torrc) && waitedMs < leftoverMs; waitedMs += 50) {
      signalGroup(pid, "SIGKILL")
      yield* Effect.sleep(Duration.millis(50))
    }
  })

const unusable = (folder: string, error: unknown): TorError =>
  new TorError({
    code: "failed",
    reason: `Tor's folder ${folder} cannot be used: ${errorText(error)}`,
    mend: ""
  })

const unwritten = (path: string, error: unknown): TorError =>
  new TorError({
    code: "failed",
    reason: `${path} cannot be written: ${errorText(error)}`,
    mend: ["ENOSPC", "EDQUOT"].includes(errorCode(error) ?? "") ? "make room on its disk" : ""
  })

/** Of what is there already nothing is written: tor starts on a full disk too, and so must what is around it. */
const writeFiles = Effect.fnUntraced(function* (options: TorrcOptions): Effect.fn.Return<void, TorError> {
  const { folder } = options
  const paths = torPaths(folder)
  const contents = yield* Effect.try({
    try: () => {
      requirePrivateFolder(folder)
      return [
        [paths.empty, ""],
        [paths.defaults, torDefaults(folder)],
        [paths.torrc, torrcOf(options)]
      ] as const
    },
    catch: (error) => unusable(folder, error)
  })
  for (const [path, text] of contents)
    yield* Effect.try({ try: () => putFile(path, utf8(text)), catch: (error) => unwritten(path, error) })
  yield* Effect.try({
    try: () => {
      // Whatever stands there is no tor's that lives: the next one that appears is the new one's.
      for (const socket of [paths.control, paths.socks]) rmSync(socket, { force: true })
    },
    catch: (error) => unusable(folder, error)
  })
})

/** Every process id has fewer digits. */
const pidWidth = 10

/**
 * Notes which process is tor, for the next start. The file is never made shorter nor taken away: where it is, a full disk has
 * room for it. Without it tor works all the same.
 */
const notePid = (folder: string, pid: number): Effect.Effect<void> => {
  const { pid: path } = torPaths(folder)
  return Effect.try({
    try: () => {
      const handle = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
      try {
        writeSync(handle, `${String(pid).padEnd(pidWidth)}\n`, 0)
      } finally {
        closeSync(handle)
      }
    },
    catch: (error) => unwritten(path, error)
  }).pipe(
    Effect.catch((error) =>
      Effect.logWarning(
        `${error.message}; should tor hang when this program is killed, the next one cannot end it`
      )
    )
  )
}

/** `Nov 22 02:14:30.429 [warn] …` taken apart; a line without a level is a complaint, since tor says it before its log is open. */
const parseLogLine = (line: string): { readonly level: string; readonly text: string } => {
  const [, level, text] = /^\w{3} \d{2} [\d:.]+ \[(\w+)\] (.*)$/.exec(line) ?? []
  return level === undefined || text === undefined ? { level: "warn", text: line } : { level, text }
}

/** Takes tor's log in: complaints as warnings, each once in ten minutes, the rest for those who debug. */
const readLog = (
  child: ChildProcess,
  complaints: Array<string>,
  onComplaint: (text: string) => void,
  log: (entry: Effect.Effect<void>) => void
) => {
  const told = new Map<string, number>()
  const take = (line: string): void => {
    const { level, text } = parseLogLine(line.slice(0, lineLength))
    if (text === "") return
    const isComplaint = level === "warn" || level === "err"
    if (!isComplaint) return log(Effect.logDebug(`tor: ${text}`))
    complaints.push(text)
    complaints.splice(0, complaints.length - keptComplaints)
    onComplaint(text)
    const nowMs = performance.now()
    const isRepeated = nowMs - (told.get(text) ?? Number.NEGATIVE_INFINITY) < repeatMs
    if (!isRepeated) {
      if (told.size >= rememberedComplaints) told.clear()
      told.set(text, nowMs)
    }
    log(isRepeated ? Effect.logDebug(`tor: ${text}`) : Effect.logWarning(`tor: ${text}`))
  }
  for (const stream of [child.stdout, child.stderr]) {
    if (stream !== null) createInterface({ input: stream }).on("line", take)
  }
}

const notStarted = (command: string, error: unknown): TorError =>
  errorCode(error) === "ENOENT" || errorCode(error) === "EACCES"
    ? new TorError({
        code: "missing",
        reason: `there is no program ${command}`,
        mend: "apt-get install tor, or say tor.command"
      })
    : new TorError({
        code: "failed",
        reason: `${command} could not be started: ${errorText(error)}`,
        mend: ""
      })

const spawnTor = (options: TorrcOptions): Effect.Effect<ChildProcess, TorError> =>
  Effect.callback<ChildProcess, TorError>((resume) => {
    const { folder, settings } = options
    const paths = torPaths(folder)
    const failed = (error: unknown) => resume(Effect.fail(notStarted(settings.command, error)))
    try {
      const files = ["--defaults-torrc", paths.defaults, "-f", paths.torrc]
      // The process without which it is not to live: another one at each start, while the torrc stays the same.
      const owner = ["--__OwningControllerProcess", String(process.pid)]
      const child = spawn(settings.command, [...files, ...owner], {
        cwd: folder,
        // A group of its own, with its transports: a terminal's Ctrl-C is for this program, which ends tor in order.
        detached: true,
        env: { PATH: `${launchPath}:${process.env["PATH"] ?? ""}`, HOME: folder },
        stdio: ["ignore", "pipe", "pipe"]
      })
      child.once("error", failed)
      child.once("spawn", () => resume(Effect.succeed(child)))
    } catch (error) {
      failed(error)
    }
  })

const hasEnded = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null

/** Waits for the end, at most so long. In finalizers too, where an Effect's time-out would wait for ever. */
const awaitEnd = (child: ChildProcess, limitMs: number): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const done = (): void => {
      clearTimeout(timer)
      child.off("exit", done)
      resume(Effect.void)
    }
    const timer = setTimeout(done, limitMs)
    child.once("exit", done)
    if (hasEnded(child)) done()
  })

/** First by request, then by force: with its sandbox on, tor is known to ignore requests. */
const stop = (child: ChildProcess): Effect.Effect<void> =>
  Effect.gen(function* () {
    const pid = child.pid as number
    if (!hasEnded(child)) {
      child.kill("SIGTERM")
      yield* awaitEnd(child, termMs)
    }
    // Also what is left of its group: transports end with tor, unless they hang.
    signalGroup(pid, "SIGKILL")
    yield* awaitEnd(child, killMs)
  })

const endOf = (child: ChildProcess, complaints: ReadonlyArray<string>): string => {
  const how = child.signalCode === null ? `with code ${child.exitCode}` : `by ${child.signalCode}`
  const words = complaints.slice(-2).join("; ")
  return `tor ended ${how}${words === "" ? "" : `, saying: ${words}`}`
}

/** Starts tor. That it ends again at once shows in `ended` alone. `onComplaint` hears of each warning of its log. */
export const startTorProcess = Effect.fnUntraced(function* (
  options: TorrcOptions,
  onComplaint: (text: string) => void
): Effect.fn.Return<TorProcess, TorError, Scope.Scope> {
  const { folder } = options
  const obstacle = folderObstacle(folder)
  if (obstacle !== undefined)
    return yield* new TorError({
      code: "failed",
      reason: `Tor's folder ${folder} cannot be used: ${obstacle}`,
      mend: "use a shorter state folder"
    })
  yield* endLeftover(folder)
  yield* writeFiles(options)
  const run = Effect.runForkWith(yield* Effect.context<never>())
  const ended = yield* Deferred.make<string>()
  const complaints: Array<string> = []
  const child = yield* Effect.acquireRelease(spawnTor(options), stop)
  readLog(child, complaints, onComplaint, (entry) => void run(entry))
  const isOver = (): void => void Deferred.doneUnsafe(ended, Effect.succeed(endOf(child, complaints)))
  // When the log has been read to its end, where the last complaint says why; unless somebody else holds it open.
  child.once("close", isOver)
  child.once("exit", () => setTimeout(isOver, restOfLogMs))
  const pid = child.pid as number
  yield* notePid(folder, pid)
  return {
    pid,
    ended: Deferred.await(ended),
    complaints: () => complaints,
    kill: Effect.sync(() => signalGroup(pid, "SIGKILL"))
  }
})
