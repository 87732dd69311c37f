/** The outside of a simulated device: jail, package store, host. Everything completes at once or by virtual sleep. */
import { Deferred, Effect, Fiber, Layer, Scope, Stream } from "effect"
import { NodeKeys } from "../../../src/adapters/NodeKeys.ts"
import { concatBytes, fromUtf8, utf8 } from "../../../src/crypto/Bytes.ts"
import { digestOf } from "../../../src/crypto/Documents.ts"
import { Connectivity } from "../../../src/ports/Connectivity.ts"
import { type HostFigures, HostProbe, ProbeError } from "../../../src/ports/HostProbe.ts"
import { Jail } from "../../../src/ports/Jail.ts"
import { PackageRefused, PackageStore, StorageError } from "../../../src/ports/PackageStore.ts"
import { ServiceManager } from "../../../src/ports/ServiceManager.ts"
import type { LinkFinding } from "../../../src/schemas/Connectivity.ts"
import type { OrderId } from "../../../src/schemas/Ids.ts"
import { type JailOutcome, type JailResult, JailUnavailable } from "../../../src/schemas/JailProfile.ts"
import type { Manifest } from "../../../src/schemas/Manifest.ts"
import type { RefusalCode } from "../../../src/schemas/Refusals.ts"
import { missingSpans } from "../../../src/schemas/Spans.ts"
import { engine } from "./Parties.ts"

/** A run as the simulated jail saw it. */
export interface SeenRun {
  readonly order: OrderId
  readonly startedAtMs: number
  /** null while it runs, or when the device died under it. */
  endedAtMs: number | null
}

/** What survives a device's crash, and the knobs a test turns. */
export class SimulatedHost {
  readonly files = new Map<OrderId, Uint8Array>()
  readonly spool = new Map<string, Uint8Array>()
  readonly runs: Array<SeenRun> = []
  jailProblem: string | null = null
  freeDiskBytes: number | null = 1_000_000_000
  /** What a look at the network finds. */
  layer: LinkFinding["layer"] = "ok"
  looks = 0
  missingProcesses: Array<string> = []
  /** Fails the next so many uses of the disk by the package store. */
  storageFailures = 0
  /** The disk does not answer. */
  hangs = false
  /** Signs of life towards the service manager. */
  alive = 0
}

const storageFault = (host: SimulatedHost, operation: string): Effect.Effect<void, StorageError> =>
  Effect.suspend(() => {
    if (host.storageFailures === 0) return Effect.void
    host.storageFailures--
    return Effect.fail(new StorageError({ operation, path: "/sim", reason: "simulated" }))
  })

const refuse = (code: RefusalCode, detail = "simulated") => Effect.fail(new PackageRefused({ code, detail }))

interface Plan {
  readonly refuse: RefusalCode | null
  readonly manifest: Manifest
}

/** Packages are JSON: the manifest, and the refusal staging shall come to. */
export const simulatedPackages = (host: SimulatedHost) =>
  PackageStore.of({
    downloaded: (order) => Effect.as(storageFault(host, "look"), host.files.get(order)?.length ?? 0),
    missing: (order) =>
      Effect.as(
        storageFault(host, "look"),
        missingSpans([{ from: 0, until: host.files.get(order.id)?.length ?? 0 }], order.payload.size_bytes)
      ),
    download: (order, offset, bytes, onProgress) =>
      Effect.gen(function* () {
        yield* storageFault(host, "download")
        const start = (host.files.get(order.id) ?? new Uint8Array(0)).slice(0, offset)
        host.files.set(order.id, start)
        yield* Stream.runForEach(bytes, (block) =>
          Effect.suspend(() => {
            const there = concatBytes(host.files.get(order.id) ?? new Uint8Array(0), block)
            if (there.length > order.payload.size_bytes) {
              host.files.delete(order.id)
              return refuse("payload_size", "more came")
            }
            host.files.set(order.id, there)
            return onProgress(there.length)
          })
        )
      }),
    stage: (order) =>
      Effect.gen(function* () {
        yield* storageFault(host, "stage")
        const bytes = host.files.get(order.id) ?? new Uint8Array(0)
        const fail = (code: RefusalCode) => {
          host.files.delete(order.id)
          return refuse(code)
        }
        if (bytes.length !== order.payload.size_bytes) return yield* fail("payload_size")
        if (digestOf(engine, bytes) !== order.payload.digest) return yield* fail("payload_digest")
        const plan = JSON.parse(fromUtf8(bytes) as string) as Plan
        if (plan.refuse !== null) return yield* fail(plan.refuse)
        return { manifest: plan.manifest, folder: `/sim/${order.id}` }
      }),
    packArtifacts: (order, files, _recipients, limits) =>
      Effect.gen(function* () {
        yield* storageFault(host, "pack")
        if (files.length === 0) return null
        const bytes = files.reduce((sum, file) => sum + file.size_bytes, 0)
        if (bytes > limits.bytes || files.length > limits.entries)
          return yield* refuse("payload_entries", "too much")
        const content = utf8(JSON.stringify(files.map((file) => [file.path, file.size_bytes])))
        const path = `/spool/${order}.age`
        host.spool.set(path, content)
        return {
          path,
          summary: {
            digest: digestOf(engine, content),
            size_bytes: content.length,
            entries: files.length,
            unpacked_bytes: bytes
          }
        }
      }),
    readBlock: (path, offset, maximumBytes) =>
      Effect.suspend(() => {
        const content = host.spool.get(path)
        return content === undefined
          ? Effect.fail(new StorageError({ operation: "read", path, reason: "it is not there" }))
          : Effect.succeed(content.slice(offset, offset + maximumBytes))
      }),
    removeSpooled: (path) => Effect.sync(() => void host.spool.delete(path)),
    sealChunk: (plaintext) =>
      Effect.gen(function* () {
        yield* storageFault(host, "seal")
        const bytes = concatBytes(utf8("sealed:"), plaintext)
        return { bytes, digest: digestOf(engine, bytes) }
      }),
    scratch: () => Effect.succeed("/scratch"),
    remove: (order, spooled) =>
      Effect.sync(() => {
        host.files.delete(order)
        if (spooled) host.spool.delete(`/spool/${order}.age`)
      }),
    sweep: (keep, keepSpooled) =>
      Effect.sync(() => {
        for (const order of host.files.keys()) if (!keep.includes(order)) host.files.delete(order)
        for (const path of host.spool.keys()) if (!keepSpooled.includes(path)) host.spool.delete(path)
      })
  })

interface Interpreted {
  readonly outcome: JailOutcome
  readonly artifacts: JailResult["artifacts"]
  readonly refused: JailResult["refused_artifacts"]
}

/**
 * The words of a script: `out:TEXT`, `err:TEXT`, `flood:BYTES`, `sleep:MS`, `exit:CODE`, `signal:NAME`, `leave:PATH:BYTES`,
 * `leave-bad:NAME`, `stubborn` (ignores SIGTERM), `broken` (the engine fails).
 */
const interpret = Effect.fnUntraced(function* (
  script: ReadonlyArray<string>,
  write: (stream: "stdout" | "stderr", bytes: Uint8Array) => Effect.Effect<void>
): Effect.fn.Return<Interpreted> {
  const artifacts: Array<JailResult["artifacts"][number]> = []
  const refused: Array<JailResult["refused_artifacts"][number]> = []
  const end = (outcome: JailOutcome): Interpreted => ({ outcome, artifacts, refused })
  for (const word of script) {
    const [verb, first = "", second = "0"] = word.split(":")
    if (verb === "out" || verb === "err") yield* write(verb === "out" ? "stdout" : "stderr", utf8(first))
    else if (verb === "flood") {
      for (let left = Number(first); left > 0; left -= 8_192)
        yield* write("stdout", new Uint8Array(Math.min(left, 8_192)))
    } else if (verb === "sleep") yield* Effect.sleep(Number(first))
    else if (verb === "exit") return end({ _tag: "Exited", code: Number(first) })
    else if (verb === "signal") return end({ _tag: "Signaled", signal: first, code: 139 })
    else if (verb === "broken")
      return end({ _tag: "EngineFailed", reason: "setup_failed", detail: "simulated" })
    else if (verb === "leave") {
      artifacts.push({
        path: first as never,
        size_bytes: Number(second),
        executable: false,
        host_path: `/sim/out/${first}`
      })
    } else if (verb === "leave-bad") refused.push({ name: first, reason: "not_a_file" })
  }
  return end({ _tag: "Exited", code: 0 })
})

const cappedWriter = (
  limit: number,
  take: (stream: "stdout" | "stderr", bytes: Uint8Array) => Effect.Effect<void>
) => {
  const seen = { stdout: 0, stderr: 0 }
  const kept = { stdout: 0, stderr: 0 }
  return {
    write: (stream: "stdout" | "stderr", bytes: Uint8Array) => {
      seen[stream] += bytes.length
      const room = limit - kept.stdout - kept.stderr
      const piece = bytes.subarray(0, Math.max(room, 0))
      kept[stream] += piece.length
      return piece.length === 0 ? Effect.void : take(stream, piece)
    },
    summary: (): JailResult["output"] => ({
      stdout: { seen_bytes: seen.stdout, kept_bytes: kept.stdout },
      stderr: { seen_bytes: seen.stderr, kept_bytes: kept.stderr },
      truncated: seen.stdout + seen.stderr > kept.stdout + kept.stderr
    })
  }
}

/** A jail whose jobs are scripts, by virtual sleep. */
export const simulatedJail = (host: SimulatedHost) => {
  const unavailable = (detail: string) =>
    new JailUnavailable({ reason: "no_engine", detail, remedy: "Install it." })
  return Jail.of({
    check: Effect.suspend(() =>
      host.jailProblem !== null
        ? Effect.fail(unavailable(host.jailProblem))
        : Effect.succeed({
            engine: "simulated",
            version: "1",
            isolation: "separate-uid" as const,
            seccomp: true,
            limits: {
              memory: "none" as const,
              processes: "none" as const,
              cpu: "none" as const,
              disk: "tmpfs" as const
            },
            notes: []
          })
    ),
    run: Effect.fnUntraced(function* (request) {
      if (host.jailProblem !== null) return yield* unavailable(host.jailProblem)
      const clock = yield* Effect.clockWith((service) => Effect.succeed(service))
      const scope = yield* Scope.Scope
      const startedAtMs = clock.currentTimeMillisUnsafe()
      const seen: SeenRun = {
        order: request.packageFolder.slice("/sim/".length) as OrderId,
        startedAtMs,
        endedAtMs: null
      }
      host.runs.push(seen)
      const done = Deferred.makeUnsafe<JailResult>()
      const { summary, write } = cappedWriter(request.limits.output_bytes, request.onOutput)
      const finish = (ended: Interpreted) =>
        Effect.suspend(() => {
          seen.endedAtMs = clock.currentTimeMillisUnsafe()
          return Deferred.succeed(done, {
            outcome: ended.outcome,
            usage: { wall_ms: seen.endedAtMs - startedAtMs, cpu_ms: null, peak_memory_bytes: null },
            output: summary(),
            artifacts: ended.artifacts,
            refused_artifacts: ended.refused,
            refused_artifact_count: ended.refused.length
          })
        })
      const bare = (outcome: JailOutcome): Interpreted => ({ outcome, artifacts: [], refused: [] })
      const body = interpret(request.command, write).pipe(
        Effect.timeoutOrElse({
          duration: request.limits.timeout_ms,
          orElse: () =>
            Effect.succeed(bare({ _tag: "TimedOut", killed: request.command.includes("stubborn") }))
        }),
        Effect.flatMap(finish)
      )
      const fiber = yield* Effect.forkIn(body, scope)
      const end = (killed: boolean) =>
        Effect.andThen(
          Fiber.interrupt(fiber),
          Effect.suspend(() =>
            seen.endedAtMs === null ? finish(bare({ _tag: "Canceled", killed })) : Effect.void
          )
        )
      return {
        result: Deferred.await(done),
        kill: Effect.asVoid(end(true)),
        cancel: Effect.suspend(() =>
          request.command.includes("stubborn")
            ? Effect.asVoid(Effect.forkIn(Effect.delay(end(true), request.limits.grace_ms), scope))
            : Effect.asVoid(end(false))
        )
      }
    })
  })
}

/** Figures of no machine in particular. */
export const simulatedFigures: HostFigures = {
  uptime_s: 1,
  process_uptime_s: 1,
  load_1m: 0,
  load_5m: 0,
  load_15m: 0,
  processors: 1,
  memory_total_bytes: 1,
  memory_available_bytes: 1,
  swap_total_bytes: null,
  swap_free_bytes: null,
  process_memory_bytes: 1,
  disk_total_bytes: 1,
  disk_free_bytes: 1,
  disk_free_entries: null,
  temperature_celsius: null,
  adapters: [],
  processes: { count: 1, largest: [], own: [], required: [] },
  machine: { machine_digest: null, boot: "boot-1", model: null, serial: null },
  hostname: "sim",
  kernel: "sim",
  system: null,
  architecture: "sim",
  node: "sim"
}

export const simulatedProbe = (host: SimulatedHost) =>
  HostProbe.of({
    figures: Effect.sync(() => ({
      ...simulatedFigures,
      processes: {
        ...simulatedFigures.processes,
        required: host.missingProcesses.map((name) => ({ name, running: false }))
      }
    })),
    freeDiskBytes: Effect.suspend(() =>
      host.hangs
        ? Effect.never
        : host.freeDiskBytes === null
          ? Effect.fail(new ProbeError({ reason: "simulated" }))
          : Effect.succeed(host.freeDiskBytes)
    )
  })

/** The network below the server, as the test says; it takes a little time to look. */
export const simulatedConnectivity = (host: SimulatedHost) =>
  Connectivity.of({
    hasReferences: false,
    look: () =>
      Effect.delay(
        Effect.sync(() => {
          host.looks++
          return { layer: host.layer, detail: host.layer === "ok" ? "" : "simulated" }
        }),
        100
      )
  })

/** All of it as one layer. */
export const SimulatedHostLayer = (host: SimulatedHost) =>
  Layer.mergeAll(
    Layer.succeed(PackageStore, simulatedPackages(host)),
    Layer.succeed(Jail, simulatedJail(host)),
    Layer.succeed(HostProbe, simulatedProbe(host)),
    Layer.succeed(Connectivity, simulatedConnectivity(host)),
    Layer.succeed(ServiceManager, {
      ready: Effect.void,
      alive: Effect.sync(() => void host.alive++),
      stopping: Effect.void
    })
  )

export { NodeKeys }
