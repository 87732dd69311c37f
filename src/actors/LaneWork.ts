/**
 * The way of one order through a lane: download → verify → stage → run → collect → conclude → clean up. Each step is
 * written to the ledger before it is taken, so that after a crash the ledger says where to go on; nothing here
 * remembers anything.
 */
import { Deferred, Effect, Result, Schema } from "effect"
import type { RpcGroup } from "effect/rpc"
import type { ActorRef, AskError } from "../kernel/index.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { HostProbe } from "../ports/HostProbe.ts"
import { Ledger, type LedgerError, type LedgerOrder } from "../ports/Ledger.ts"
import { type PackageRefused, PackageStore, type StagedPackage, type StorageError } from "../ports/PackageStore.ts"
import type { LinkError } from "../ports/ServerLink.ts"
import { Limits } from "../schemas/Limits.ts"
import type { JailGuardProtocol } from "../schemas/protocols/JailGuard.ts"
import { StopReason, type WorkEnd } from "../schemas/protocols/Lane.ts"
import type { NotaryProtocol } from "../schemas/protocols/Notary.ts"
import type { TrustKeeperProtocol } from "../schemas/protocols/TrustKeeper.ts"
import { RefusalCode } from "../schemas/Refusals.ts"
import type { OrderProgress } from "../schemas/WorkOrder.ts"
import { type CutShort, type DownloadBounds, download, type TooSlow } from "./Download.ts"
import { execute, type RunReport } from "./JailExecutor.ts"
import { conclude, draftOf, draftOfRun, nowMs } from "./LaneConclude.ts"
import { authenticate } from "./OrderChecks.ts"
import { bytesDone, stepInto } from "./Progress.ts"
import { type DeviceAllowance, refuseByAllowance } from "./RunVerdict.ts"
import { linkProblem } from "./TrustSteps.ts"

/** What a lane's work needs to know of its device and whom it talks to. */
export interface LaneEnvironment {
  readonly allowance: DeviceAllowance
  readonly download: DownloadBounds
  readonly diskReserveBytes: number
  readonly notary: ActorRef<RpcGroup.Rpcs<typeof NotaryProtocol>>
  readonly jailGuard: ActorRef<RpcGroup.Rpcs<typeof JailGuardProtocol>>
  readonly trust: ActorRef<RpcGroup.Rpcs<typeof TrustKeeperProtocol>>
  /** Tells lane and server how far the order is. */
  readonly report: (progress: OrderProgress) => Effect.Effect<void>
}

/** The order is to be refused, with a receipt. */
class Refuse extends Schema.TaggedError<Refuse>()("Refuse", { code: RefusalCode, detail: Schema.NullOr(Schema.String) }) {}

/** Something is missing now; the order stays where the ledger has it. */
class Later extends Schema.TaggedError<Later>()("Later", {
  code: Schema.Literals([
    "unreachable",
    "too_slow",
    "disk_low",
    "outbox_full",
    "jail_unknown",
    "clock_unproven",
    "root_expired",
    "not_enrolled",
    "device_stopped"
  ]),
  pauseMs: Schema.Finite,
  detail: Schema.String
}) {}

/** Somebody asked for the order to stop before its command was started. */
class Stop extends Schema.TaggedError<Stop>()("Stop", { reason: StopReason }) {}

/** Pauses before an order is looked at again. */
const pauses = { network: 5_000, slow: 60_000, disk: 30_000, outbox: 10_000, jail: 1_000, clock: 2_000, trust: 60_000 }

/** What the refusal says of an order that expires while it waits for this. */
const troubles: Readonly<Partial<Record<Later["code"], RefusalCode>>> = {
  too_slow: "payload_too_slow",
  disk_low: "disk_low",
  outbox_full: "outbox_full"
}

const later = (code: Later["code"], pauseMs: number, detail: string) => new Later({ code, pauseMs, detail })

const fromLink = (error: LinkError) =>
  error._tag === "ServerRefused" && (error.code === "not_found" || error.code === "gone")
    ? new Refuse({ code: "payload_missing", detail: error.message })
    : later(
        "unreachable",
        error._tag === "ServerRefused" ? Math.max(error.retryAfterMs ?? 0, pauses.network) : pauses.network,
        linkProblem(error)
      )

/** Runs a step that is given up as soon as somebody asks the order to stop. */
const haltable = <A, E, R>(step: Effect.Effect<A, E, R>, stop: Deferred.Deferred<StopReason>) =>
  Effect.raceFirst(
    step,
    Effect.flatMap(Deferred.await(stop), (reason) => Effect.fail(new Stop({ reason })))
  )

/** Version of the root the device holds, for receipts. */
const rootVersion = (row: LedgerOrder, environment: LaneEnvironment) =>
  environment.trust.ask("View").pipe(
    Effect.map((view) => view.held?.root.version ?? row.order.root_version),
    Effect.orElseSucceed(() => row.order.root_version)
  )

/**
 * Whether the operators still stand behind the order: a root that came since may have revoked its signer, a decision the
 * device itself.
 */
const checkTrust = Effect.fnUntraced(function* (row: LedgerOrder, environment: LaneEnvironment) {
  const engine = yield* CryptoEngine
  const { held, phase } = yield* environment.trust.ask("View")
  if (phase === "rejected" || phase === "revoked") return yield* new Refuse({ code: "not_accepted", detail: phase })
  if (held === null || phase !== "accepted") return yield* later("not_enrolled", pauses.trust, "the device is not accepted now")
  if (held.root.expires_at_ms <= (yield* nowMs)) return yield* later("root_expired", pauses.trust, "the trust root has expired")
  const authentic = authenticate(engine, held.root, row.envelope)
  if (Result.isFailure(authentic)) return yield* new Refuse({ code: authentic.failure.code, detail: authentic.failure.detail })
})

/** What must hold before an order is begun, each time it is taken up. */
const mayBegin = Effect.fnUntraced(function* (
  row: LedgerOrder,
  stop: Deferred.Deferred<StopReason>,
  trouble: RefusalCode | null,
  environment: LaneEnvironment
) {
  const ledger = yield* Ledger
  if (yield* ledger.isCanceled(row.order.id)) return yield* new Stop({ reason: "canceled_by_operator" })
  if (yield* Deferred.isDone(stop)) return yield* new Stop({ reason: yield* Deferred.await(stop) })
  const clock = yield* DeviceClock
  if (!(yield* clock.proven)) return yield* later("clock_unproven", pauses.clock, "the server has not yet told the time")
  if (row.order.expires_at_ms <= (yield* nowMs)) {
    return yield* new Refuse({ code: trouble ?? "expired", detail: trouble === null ? null : "until it expired" })
  }
  yield* checkTrust(row, environment)
})

/** Room for ciphertext, unpacked package and what is kept free. */
const checkDisk = Effect.fnUntraced(function* (row: LedgerOrder, environment: LaneEnvironment) {
  const probe = yield* HostProbe
  const store = yield* PackageStore
  const { payload } = row.order
  const missing = payload.size_bytes - (yield* store.downloaded(row.order.id))
  const needed = environment.diskReserveBytes + Math.max(missing, 0) + payload.unpacked_bytes
  const free = yield* probe.freeDiskBytes.pipe(Effect.mapError((error) => later("disk_low", pauses.disk, error.reason)))
  if (free < needed) return yield* later("disk_low", pauses.disk, `${free} bytes are free, ${needed} are needed`)
})

/** Fetches the payload, telling how far it is. */
const fetch = Effect.fnUntraced(function* (row: LedgerOrder, environment: LaneEnvironment) {
  const ledger = yield* Ledger
  yield* checkDisk(row, environment)
  // One that was interrupted while being verified is complete on disk: its state must not fall back.
  if (row.state === "verifying") return
  const version = row.state === "queued" ? yield* ledger.advance(row.order.id, "downloading") : row.version
  const step = stepInto(row.order.id, "downloading", version, yield* nowMs)
  yield* environment.report(step)
  const total = row.order.payload.size_bytes
  const leftMs = Math.max(row.order.expires_at_ms - step.at_ms, 1)
  const bounds = { ...environment.download, timeoutMs: Math.min(environment.download.timeoutMs, leftMs) }
  yield* download(row.order, bounds, (done) =>
    Effect.flatMap(nowMs, (atMs) => environment.report(bytesDone(step, version, Math.min(done, total), total, atMs)))
  )
})

/** Proves and unpacks the payload, and refuses what this device does not allow. */
const stage = Effect.fnUntraced(function* (row: LedgerOrder, environment: LaneEnvironment) {
  const ledger = yield* Ledger
  const store = yield* PackageStore
  const version = row.state === "verifying" ? row.version : yield* ledger.advance(row.order.id, "verifying")
  yield* environment.report(stepInto(row.order.id, "verifying", version, yield* nowMs))
  const staged = yield* store.stage(row.order)
  const refusal = refuseByAllowance(staged.manifest, environment.allowance)
  return refusal === null ? staged : yield* new Refuse(refusal)
})

/** The jail's isolation, once there is a jail; and room for what the run will give. */
const checkRun = Effect.fnUntraced(function* (environment: LaneEnvironment) {
  const ledger = yield* Ledger
  const { problem, report } = yield* environment.jailGuard.ask("Verdict")
  if (problem !== null) return yield* new Refuse({ code: "no_jail", detail: problem })
  if (report === null) return yield* later("jail_unknown", pauses.jail, "the jail has not been checked yet")
  const waiting = yield* ledger.outboxSize
  if (waiting.items >= Limits.outboxItems) {
    return yield* later("outbox_full", pauses.outbox, `${waiting.items} results wait to be sent`)
  }
  return report.isolation
})

/** Runs the staged package and ends the order with what it told. */
const run = Effect.fnUntraced(function* (
  row: LedgerOrder,
  staged: StagedPackage,
  stop: Deferred.Deferred<StopReason>,
  environment: LaneEnvironment
) {
  const ledger = yield* Ledger
  const isolation = yield* checkRun(environment)
  // The last look: from here on the order counts as begun.
  yield* mayBegin(row, stop, null, environment)
  const { idempotent } = staged.manifest
  const startedAtMs = yield* nowMs
  const { attempts, version } = yield* ledger.begin(row.order.id, idempotent, startedAtMs)
  const begun: LedgerOrder = { ...row, state: "running", version, attempts, idempotent, startedAtMs }
  yield* environment.report(stepInto(row.order.id, "running", version, startedAtMs))
  const report = yield* Effect.result(execute(row.order, staged, attempts, stop))
  const root = yield* rootVersion(row, environment)
  if (report._tag === "Success") return yield* endRun(begun, report.success, root, isolation, environment)
  const error = report.failure
  if (error._tag === "JailUnavailable") yield* Effect.ignore(environment.jailGuard.tell("Recheck"))
  const end =
    error._tag === "JailUnavailable"
      ? { state: "rejected" as const, reason: "no_jail" as const, detail: error.message }
      : error.reason === "grants_unsupported"
        ? { state: "rejected" as const, reason: "grant_refused" as const, detail: error.detail }
        : { state: "failed" as const, reason: "jail_failed" as const, detail: `${error.reason}: ${error.detail}` }
  yield* conclude(environment.notary, begun, draftOf(begun, root, yield* nowMs, end))
})

/** A run has ended: its receipt, or another attempt where the program's own stopping cut it off. */
const endRun = Effect.fnUntraced(function* (
  row: LedgerOrder,
  report: RunReport,
  rootVersion: number,
  isolation: "separate-uid" | "same-uid",
  environment: LaneEnvironment
) {
  if (report.reason === "device_stopped" && row.idempotent && row.attempts < Limits.runAttempts) {
    yield* again(row)
    return yield* later("device_stopped", 0, "the program stops; the order is run again")
  }
  const artifacts =
    report.artifacts === null ? null : { path: report.artifacts.path, sizeBytes: report.artifacts.summary.size_bytes }
  yield* conclude(environment.notary, row, draftOfRun(row, rootVersion, report, isolation), artifacts)
})

/** Puts an interrupted order back to the start of the line, without the output that waits to be sent. */
const again = Effect.fnUntraced(function* (row: LedgerOrder) {
  const ledger = yield* Ledger
  yield* ledger.dropOutput(row.order.id)
  yield* ledger.requeue(row.order.id)
})

/** An order that was running when everything stopped: run again where that is safe, else ended as interrupted. */
const recover = Effect.fnUntraced(function* (row: LedgerOrder, environment: LaneEnvironment) {
  const ledger = yield* Ledger
  const canceled = yield* ledger.isCanceled(row.order.id)
  if (!canceled && row.idempotent && row.attempts < Limits.runAttempts) {
    yield* Effect.logWarning("the order was cut off while it ran, and is run again").pipe(
      Effect.annotateLogs({ order: row.order.id, attempts: row.attempts })
    )
    yield* again(row)
    return yield* later("device_stopped", 0, "it is run again")
  }
  const end = canceled
    ? { state: "canceled" as const, reason: "canceled_by_operator" as const, detail: null }
    : {
        state: "interrupted" as const,
        reason: row.idempotent ? ("attempts_used" as const) : ("crashed_in_run" as const),
        detail: null
      }
  yield* conclude(environment.notary, row, draftOf(row, yield* rootVersion(row, environment), yield* nowMs, end))
})

/** The whole way from where the ledger says the order is. */
const proceed = Effect.fnUntraced(function* (
  row: LedgerOrder,
  stop: Deferred.Deferred<StopReason>,
  environment: LaneEnvironment,
  trouble: RefusalCode | null
) {
  if (row.state === "running") return yield* recover(row, environment)
  yield* mayBegin(row, stop, trouble, environment)
  const staged = yield* haltable(Effect.andThen(fetch(row, environment), stage(row, environment)), stop)
  yield* run(row, staged, stop, environment)
})

/** Ends an order that was never begun. */
const endUnbegun = (row: LedgerOrder, environment: LaneEnvironment, error: Refuse | Stop) =>
  Effect.gen(function* () {
    const end =
      error._tag === "Refuse"
        ? { state: "rejected" as const, reason: error.code, detail: error.detail }
        : {
            state: "canceled" as const,
            reason: error.reason === "stopped_by_server" ? ("stopped_by_server" as const) : ("canceled" as const),
            detail: null
          }
    yield* conclude(environment.notary, row, draftOf(row, yield* rootVersion(row, environment), yield* nowMs, end))
  })

/** The link's, the store's and the transfer's errors as what the lane makes of them. */
const explain = {
  ServerUnreachable: (error: LinkError) => Effect.fail(fromLink(error)),
  ServerRefused: (error: LinkError) => Effect.fail(fromLink(error)),
  ServerUntrusted: (error: LinkError) => Effect.fail(fromLink(error)),
  PackageRefused: (error: PackageRefused) => Effect.fail(new Refuse({ code: error.code, detail: error.detail })),
  TooSlow: (error: TooSlow) => Effect.fail(later("too_slow", pauses.slow, error.detail)),
  CutShort: (error: CutShort) =>
    Effect.fail(later("unreachable", pauses.network, `the payload broke off at ${error.doneBytes} bytes`))
}

/** What is broken on the device itself; the ledger still says where to go on. */
export type WorkError = LedgerError | StorageError | AskError

/**
 * Works on one order until it is concluded or cannot go on for now. `trouble` is why it was put off before.
 */
export const work = (
  row: LedgerOrder,
  stop: Deferred.Deferred<StopReason>,
  environment: LaneEnvironment,
  trouble: RefusalCode | null
) => {
  const done = (kind: WorkEnd["kind"], detail: string, pauseMs = 0, code: RefusalCode | null = null): WorkEnd => ({
    order: row.order.id,
    kind,
    pauseMs,
    trouble: code,
    detail
  })
  return proceed(row, stop, environment, trouble).pipe(
    Effect.as(done("concluded", "")),
    Effect.catchTags(explain),
    Effect.catchTags({
      Refuse: (error) => Effect.as(endUnbegun(row, environment, error), done("concluded", error.code)),
      Stop: (error) =>
        error.reason === "device_stopped"
          ? Effect.succeed(done("later", "the program stops"))
          : Effect.as(endUnbegun(row, environment, error), done("concluded", error.reason)),
      Later: (error) => Effect.succeed(done("later", error.detail, error.pauseMs, troubles[error.code] ?? null))
    })
  )
}

/** Ends an order that fails again and again for a reason of the device's own, so that the others get their turn. */
export const giveUp = (row: LedgerOrder, environment: LaneEnvironment, trouble: RefusalCode | null, detail: string) =>
  Effect.gen(function* () {
    const end =
      trouble === null
        ? { state: "failed" as const, reason: "jail_failed" as const, detail }
        : { state: "rejected" as const, reason: trouble, detail }
    yield* conclude(environment.notary, row, draftOf(row, yield* rootVersion(row, environment), yield* nowMs, end))
    const ended: WorkEnd = { order: row.order.id, kind: "concluded", pauseMs: 0, trouble: null, detail }
    return ended
  })
