/**
 * The jail on bubblewrap, with our own seccomp filter, resource limits and a bounded file system in memory.
 *
 * Jobs are started by a host of jobs: the warden where there is one, else this process. Where the host is root, every job
 * runs under an unprivileged uid of its own slot; where it is not, under the client's uid, which the report says. Both ways
 * nothing in the jail is host root. What a run consists of: jail/Launch.ts.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs"
import { isAbsolute } from "node:path"
import { Clock, Deferred, Effect, Layer, Option, Schema, type Scope } from "effect"
import type { JailRequest, JailRun } from "../ports/Jail.ts"
import { Jail } from "../ports/Jail.ts"
import { JailError, type JailOutcome, type JailResult, JailUnavailable } from "../schemas/JailProfile.ts"
import { Limits } from "../schemas/Limits.ts"
import { JobLimits } from "../schemas/Manifest.ts"
import { type ArtifactList, collectArtifacts } from "./jail/Artifacts.ts"
import { acquireEngine, type Engine } from "./jail/Engine.ts"
import { checkJail } from "./jail/JailCheck.ts"
import { type JailOptions, jailSetting } from "./jail/JailSetting.ts"
import { type JobEnd, type JobHost, type KnownFolder, localJobHost } from "./jail/JobHost.ts"
import { type OutputReader, type OutputSummary, openOutput } from "./jail/Output.ts"
import { lendPackage, openScratch, type ScratchError } from "./jail/Scratch.ts"
import { signalOfExitCode } from "./jail/Signals.ts"
import { isSeccompArchitecture } from "./Seccomp.ts"

const startMs = 10_000

const unavailable = (reason: JailUnavailable["reason"], detail: string, remedy: string) =>
  new JailUnavailable({ reason, detail, remedy })

const supported = Effect.suspend(() =>
  isSeccompArchitecture(process.arch)
    ? Effect.void
    : Effect.fail(
        unavailable(
          "unsupported_architecture",
          `There is no seccomp filter for ${process.arch}.`,
          "Run the client on x64, arm64 or arm."
        )
      )
)

const isJobLimits = Schema.is(JobLimits)

const judge = (request: JailRequest): JailError | null => {
  const refuse = (reason: JailError["reason"], detail: string) => new JailError({ reason, detail })
  const texts = [...request.command, ...Object.entries(request.environment).flat()]
  if (request.command.length === 0 || request.command[0] === "")
    return refuse("bad_request", "There is no command to run.")
  if (texts.some((text) => text.includes("\0")))
    return refuse("bad_request", "Command or environment holds a NUL.")
  if (Object.keys(request.environment).some((name) => !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))) {
    return refuse("bad_request", "The environment has a name that is none.")
  }
  if (!isJobLimits(request.limits))
    return refuse("bad_request", "The limits are outside of what a manifest may say.")
  if (!isAbsolute(request.packageFolder))
    return refuse("bad_request", "The package's folder is not an absolute path.")
  return null
}

/** Memory that a new tmpfs page could still get: available and swap. Null where the kernel does not say. */
const memoryLeft = Effect.sync((): number | null => {
  try {
    const text = readFileSync("/proc/meminfo", "latin1")
    const kibibytes = ["MemAvailable", "SwapFree"].map((key) =>
      Number(new RegExp(`^${key}: *(\\d+) kB`, "m").exec(text)?.[1])
    )
    return kibibytes.some(Number.isNaN) ? null : kibibytes.reduce((sum, value) => sum + value * 1024, 0)
  } catch {
    return null
  }
})

const requireMemory = (diskBytes: number): Effect.Effect<void, JailError> =>
  Effect.flatMap(memoryLeft, (left) =>
    left === null || diskBytes <= left
      ? Effect.void
      : Effect.fail(
          new JailError({
            reason: "not_enough_memory",
            detail: `The job's ${diskBytes} bytes of disk lie in memory, where ${left} bytes are free.`
          })
        )
  )

const startFailed = (detail: string) =>
  new JailError({ reason: "start_failed", detail: `The jail did not start: ${detail}` })

/** The same failure, from whichever step of the start it comes. */
const asStartFailure = (error: ScratchError | JobEnd | JailError): JailError => {
  if (error instanceof JailError) return error
  return startFailed("detail" in error ? error.detail : error.message || "the engine ended before it began")
}

interface Started {
  readonly engine: Engine
  readonly output: OutputReader
  readonly scratch: string
}

type Run = Omit<JailRequest, "packageFolder"> & { readonly packageFolder: string | null }

/**
 * Holds the package's folder open for as long as the scope lasts: the host of jobs lends only what its client has open.
 */
const openPackage = (folder: string | null): Effect.Effect<KnownFolder | null, JailError, Scope.Scope> => {
  if (folder === null) return Effect.succeed(null)
  const open = Effect.try({
    try: () => {
      const descriptor = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
      const { dev: device, ino: inode } = fstatSync(descriptor, { bigint: true })
      return { path: folder, descriptor, device, inode }
    },
    catch: (error) => new JailError({ reason: "package_unusable", detail: String(error) })
  })
  return Effect.acquireRelease(open, ({ descriptor }) => Effect.sync(() => closeSync(descriptor)))
}

/** Everything up to the moment when the command is about to be executed. */
const startEngine = (host: JobHost, request: Run) =>
  Effect.gen(function* () {
    const engine = yield* acquireEngine(host, {
      command: request.command,
      environment: request.environment,
      package: yield* openPackage(request.packageFolder),
      limits: request.limits,
      grants: request.grants
    })
    const steps = Effect.gen(function* () {
      const scratch = yield* openScratch(yield* engine.ready)
      const output = yield* openOutput(scratch, request.limits.output_bytes, request.onOutput)
      yield* engine.release
      yield* engine.begun
      return { engine, output, scratch } satisfies Started
    })
    return yield* steps.pipe(
      Effect.mapError(asStartFailure),
      Effect.timeoutOrElse({
        duration: startMs,
        orElse: () =>
          Effect.fail(
            new JailError({
              reason: "start_timed_out",
              detail: `The jail did not start within ${startMs} ms.`
            })
          )
      })
    )
  })

type Stop = "cancel" | "kill" | "timeout"

interface Ended {
  readonly end: JobEnd
  readonly stop: Stop | null
  readonly killed: boolean
}

/** Waits for the end of the engine, and brings it about: at the time-out, on demand, and after the grace by force. */
const supervise = (engine: Engine, limits: JobLimits, asked: Deferred.Deferred<Stop>): Effect.Effect<Ended> =>
  Effect.gen(function* () {
    const first = yield* engine.end.pipe(
      Effect.raceFirst(Deferred.await(asked)),
      Effect.timeoutOrElse({ duration: limits.timeout_ms, orElse: () => Effect.succeed<Stop>("timeout") })
    )
    if (typeof first !== "string") return { end: first, stop: null, killed: false }
    if (first === "kill") return { end: yield* engine.kill, stop: first, killed: true }
    yield* engine.terminate
    const obeyed = yield* Effect.timeoutOption(engine.end, limits.grace_ms)
    return Option.isSome(obeyed)
      ? { end: obeyed.value, stop: first, killed: false }
      : { end: yield* engine.kill, stop: first, killed: true }
  })

const shorten = (text: string): string => {
  const plain = text.replace(/\p{C}+/gu, " ").trim()
  return plain.length <= 300 ? plain : `${plain.slice(0, 299)}…`
}

/** What the end means. Without an exit code from the engine, the job did not end by itself. */
const judgeEnd = ({ end, killed, stop }: Ended, lastWords: string): JailOutcome => {
  const failed = (
    reason: Extract<JailOutcome, { _tag: "EngineFailed" }>["reason"],
    detail: string
  ): JailOutcome => ({
    _tag: "EngineFailed",
    reason,
    detail: shorten(detail) || "no more is known"
  })
  if (!end.clean) return failed(stop === null ? "engine_killed" : "will_not_die", end.message)
  if (stop === "timeout") return { _tag: "TimedOut", killed }
  if (stop !== null) return { _tag: "Canceled", killed }
  if (end.exitCode !== null) {
    const signal = signalOfExitCode(end.exitCode)
    return signal === null
      ? { _tag: "Exited", code: end.exitCode }
      : { _tag: "Signaled", signal, code: end.exitCode }
  }
  const said = /^bwrap: .*$/m.exec(lastWords)?.[0]
  if (said?.startsWith("bwrap: execvp") === true) return failed("command_not_started", said)
  return said === undefined ? failed("engine_killed", end.message) : failed("setup_failed", said)
}

const nothingLeft: ArtifactList = { artifacts: [], refused: [], refusedCount: 0 }

const wallClockMs = Clock.clockWith((clock) =>
  Effect.map(clock.monotonicTimeNanos, (nanos) => Number(nanos / 1_000_000n))
)

/** Follows a started run to its end and says what came of it. */
const follow = (
  { engine, output, scratch }: Started,
  request: Run,
  asked: Deferred.Deferred<Stop>
): Effect.Effect<JailResult> =>
  Effect.gen(function* () {
    const beganMs = yield* wallClockMs
    const [ended, said] = yield* Effect.all(
      [
        Effect.flatMap(supervise(engine, request.limits, asked), (ended) =>
          Effect.map(wallClockMs, (nowMs) => ({ ...ended, wallMs: nowMs - beganMs }))
        ),
        output.drain
      ],
      { concurrency: 2 }
    )
    const bounds = { bytes: request.limits.artifact_bytes, entries: request.limits.artifact_entries }
    const found = ended.end.clean ? yield* collectArtifacts(`${scratch}/work/out`, bounds) : nothingLeft
    return {
      outcome: judgeEnd(ended, said.lastWords),
      usage: {
        wall_ms: ended.wallMs,
        cpu_ms: ended.end.cpuMs,
        peak_memory_bytes: ended.end.peakMemoryBytes
      },
      output: outputCounts(said),
      artifacts: found.artifacts,
      refused_artifacts: found.refused,
      refused_artifact_count: found.refusedCount
    }
  })

const outputCounts = ({ stderr, stdout, truncated }: OutputSummary): JailResult["output"] => ({
  stdout,
  stderr,
  truncated
})

/** Runs without judging the request; the check uses it, with no package. */
const runOn = (
  host: JobHost,
  request: Run
): Effect.Effect<JailRun, JailError | JailUnavailable, Scope.Scope> =>
  Effect.gen(function* () {
    yield* supported
    yield* requireMemory(request.limits.disk_bytes)
    if (request.packageFolder !== null) {
      const entries = Limits.packageEntries * Limits.packageDepth
      yield* lendPackage(request.packageFolder, host.separateUid, entries).pipe(
        Effect.mapError(({ detail }) => new JailError({ reason: "package_unusable", detail }))
      )
    }
    const started = yield* startEngine(host, request)
    const asked = yield* Deferred.make<Stop>()
    const result = yield* Deferred.make<JailResult>()
    yield* Effect.forkScoped(
      Effect.flatMap(follow(started, request, asked), (value) => Deferred.succeed(result, value)),
      { startImmediately: true }
    )
    return {
      result: Deferred.await(result),
      cancel: Effect.asVoid(Deferred.succeed(asked, "cancel")),
      kill: Effect.asVoid(Deferred.succeed(asked, "kill"))
    }
  })

/** Jobs must never be host root: refused before anything is started. */
const requireSafeUid = (uidBase: number | undefined): Effect.Effect<void, JailUnavailable> =>
  uidBase === undefined || (Number.isInteger(uidBase) && uidBase >= 1_000 && uidBase <= 2_000_000_000)
    ? Effect.void
    : Effect.fail(
        unavailable(
          "unsafe_uid",
          `Jobs would run under the uid ${uidBase}, which may be root's or a system's.`,
          "Set jail_uid_base to 1000 or more, to a range that nobody else uses."
        )
      )

const jailOn = (host: JobHost, options: JailOptions) =>
  Jail.of({
    check: Effect.andThen(
      requireSafeUid(options.uidBase),
      checkJail(host, options.bwrap ?? "bwrap", supported, (request) => runOn(host, request))
    ),
    run: (request) =>
      Effect.suspend(() => {
        const refusal = judge(request)
        return refusal === null
          ? Effect.andThen(requireSafeUid(options.uidBase), runOn(host, request))
          : Effect.fail(refusal)
      })
  })

/** The jail as a service. Building the layer starts nothing and needs nothing: what is missing shows in the check. */
export const BubblewrapJail = {
  /** With jobs started by this very process. */
  layer: (options: JailOptions = {}): Layer.Layer<Jail> =>
    Layer.effect(
      Jail,
      Effect.map(
        Effect.promise(() => jailSetting(options)),
        (setting) => jailOn(localJobHost(setting), options)
      )
    ),
  /** With jobs started by another. */
  hosted: (host: JobHost, options: Pick<JailOptions, "bwrap"> = {}): Layer.Layer<Jail> =>
    Layer.succeed(Jail, jailOn(host, options))
}
