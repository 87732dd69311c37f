/**
 * The way of one order through a lane: download → verify → stage → run → collect → conclude → clean up. Each step is
 * written to the ledger before it is taken, so that after a crash the ledger says where to go on; nothing here
 * remembers anything.
 */
import { type Deferred, Effect } from "effect"
import type { AskError } from "../kernel/index.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { Ledger, type LedgerError, type LedgerOrder } from "../ports/Ledger.ts"
import {
  type PackageRefused,
  PackageStore,
  type StagedPackage,
  type StorageError
} from "../ports/PackageStore.ts"
import type { LinkError } from "../ports/ServerLink.ts"
import { Limits } from "../schemas/Limits.ts"
import type { StopReason, WorkEnd } from "../schemas/protocols/Lane.ts"
import type { NotConcluded } from "../schemas/protocols/Notary.ts"
import type { RefusalCode } from "../schemas/Refusals.ts"
import { type CutShort, download, type TooSlow } from "./Download.ts"
import { execute, type RunReport } from "./JailExecutor.ts"
import {
  checkDisk,
  checkRun,
  fromLink,
  haltable,
  type LaneEnvironment,
  later,
  mayBegin,
  pauses,
  Refuse,
  type Stop,
  troubles
} from "./LaneChecks.ts"
import { conclude, draftOf, draftOfRun, nowMs } from "./LaneConclude.ts"
import { bytesDone, stepInto } from "./Progress.ts"
import { refuseByAllowance } from "./RunVerdict.ts"

/** Version of the root the device holds, for receipts. */
const rootVersion = (row: LedgerOrder, environment: LaneEnvironment) =>
  environment.trust.ask("View").pipe(
    Effect.map((view) => view.held?.root.version ?? row.order.root_version),
    Effect.orElseSucceed(() => row.order.root_version)
  )

/**
 * Until when a download may take: the order's expiry; and its deadline, since then the operator expects to hear of it.
 * An order that came after its deadline is late anyway, and has until it expires.
 */
const downloadUntilMs = ({ order, receivedAtMs }: LedgerOrder): number =>
  receivedAtMs < order.deadline_at_ms
    ? Math.min(order.deadline_at_ms, order.expires_at_ms)
    : order.expires_at_ms

/** The refusal of a download whose time is over; it says how far it came. */
const outOfTime = Effect.fnUntraced(function* ({ order }: LedgerOrder) {
  const store = yield* PackageStore
  const { size_bytes } = order.payload
  const had = yield* store.downloaded(order.id)
  return yield* new Refuse({
    code: "payload_too_slow",
    detail: `${had} of ${size_bytes} bytes had come when the time of the order was over`
  })
})

/** Fetches the payload, telling how far it is. */
const fetch = Effect.fnUntraced(function* (row: LedgerOrder, environment: LaneEnvironment) {
  const ledger = yield* Ledger
  const clock = yield* DeviceClock
  yield* checkDisk(row, environment)
  // One that was cut off while being verified is on disk as a rule, and its state must not fall back.
  if (row.state === "verifying") return yield* download(row.order, environment.download, () => Effect.void)
  const version = row.state === "queued" ? yield* ledger.advance(row.order.id, "downloading") : row.version
  const step = stepInto(row.order.id, "downloading", version, yield* nowMs)
  yield* environment.report(step)
  const total = row.order.payload.size_bytes
  const late = outOfTime(row)
  // One that is whole on disk is not late, however long that took.
  const leftMs = Math.max(downloadUntilMs(row) - step.at_ms, 1)
  yield* download(row.order, environment.download, (done) =>
    Effect.flatMap(clock.nowMs, (atMs) =>
      environment.report(bytesDone(step, version, Math.min(done, total), total, atMs))
    )
  ).pipe(Effect.timeoutOrElse({ duration: leftMs, orElse: () => late }))
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
  const report = yield* Effect.result(execute(row.order, staged, attempts, stop, environment.outputStored))
  const root = yield* rootVersion(row, environment)
  if (report._tag === "Success") return yield* endRun(begun, report.success, root, isolation, environment)
  const error = report.failure
  if (error._tag === "JailUnavailable") yield* Effect.ignore(environment.jailGuard.tell("Recheck"))
  const end =
    error._tag === "JailUnavailable"
      ? { state: "rejected" as const, reason: "no_jail" as const, detail: error.message }
      : error.reason === "grant_refused"
        ? { state: "rejected" as const, reason: "grant_refused" as const, detail: error.detail }
        : {
            state: "failed" as const,
            reason: "jail_failed" as const,
            detail: `${error.reason}: ${error.detail}`
          }
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
    report.artifacts === null
      ? null
      : { path: report.artifacts.path, sizeBytes: report.artifacts.summary.size_bytes }
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
  yield* conclude(
    environment.notary,
    row,
    draftOf(row, yield* rootVersion(row, environment), yield* nowMs, end)
  )
})

/** How a payload shows that it is not the signed one, whoever changed it. */
const spoiled: ReadonlySet<RefusalCode> = new Set(["payload_digest", "payload_size"])

/** The whole way from where the ledger says the order is. */
const proceed = Effect.fnUntraced(function* (
  row: LedgerOrder,
  stop: Deferred.Deferred<StopReason>,
  environment: LaneEnvironment,
  trouble: RefusalCode | null
) {
  if (row.state === "running") return yield* recover(row, environment)
  yield* mayBegin(row, stop, trouble, environment)
  const store = yield* PackageStore
  const wasThere = (yield* store.downloaded(row.order.id)) > 0
  const staged = yield* haltable(Effect.andThen(fetch(row, environment), stage(row, environment)), stop).pipe(
    // A power cut may have spoiled what was kept of an earlier attempt. It is dropped: the next one begins afresh.
    Effect.mapError((error) =>
      error._tag === "PackageRefused" && wasThere && spoiled.has(error.code)
        ? later("unreachable", pauses.network, `what was kept of the payload is of no use: ${error.detail}`)
        : error
    )
  )
  yield* run(row, staged, stop, environment)
})

/** How an order ends whose command is not started, this time or at all. */
const unbegunEnd = (row: LedgerOrder, error: Refuse | Stop) => {
  if (error._tag === "Refuse") return { state: "rejected" as const, reason: error.code, detail: error.detail }
  const byServer = error.reason === "stopped_by_server"
  const byOperator = row.attempts === 0 ? ("canceled" as const) : ("canceled_by_operator" as const)
  return {
    state: "canceled" as const,
    reason: byServer ? ("stopped_by_server" as const) : byOperator,
    detail: null
  }
}

const endUnbegun = (row: LedgerOrder, environment: LaneEnvironment, error: Refuse | Stop) =>
  Effect.gen(function* () {
    const version = yield* rootVersion(row, environment)
    const draft = draftOf(row, version, yield* nowMs, unbegunEnd(row, error))
    yield* conclude(environment.notary, row, draft)
  })

/** The link's, the store's and the transfer's errors as what the lane makes of them. */
const explain = {
  ServerUnreachable: (error: LinkError) => Effect.fail(fromLink(error)),
  ServerRefused: (error: LinkError) => Effect.fail(fromLink(error)),
  ServerUntrusted: (error: LinkError) => Effect.fail(fromLink(error)),
  PackageRefused: (error: PackageRefused) =>
    Effect.fail(new Refuse({ code: error.code, detail: error.detail })),
  TooSlow: (error: TooSlow) => Effect.fail(later("too_slow", pauses.slow, error.detail)),
  CutShort: (error: CutShort) =>
    Effect.fail(later("unreachable", pauses.network, `the payload broke off at ${error.doneBytes} bytes`))
}

/** What is broken on the device itself; the ledger still says where to go on. */
export type WorkError = LedgerError | StorageError | NotConcluded | AskError

/**
 * Works on one order until it is concluded or cannot go on for now. `trouble` is why it was put off before.
 */
export const work = (
  row: LedgerOrder,
  stop: Deferred.Deferred<StopReason>,
  environment: LaneEnvironment,
  trouble: RefusalCode | null
) => {
  const done = (
    kind: WorkEnd["kind"],
    detail: string,
    pauseMs = 0,
    code: RefusalCode | null = null
  ): WorkEnd => ({
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
      Later: (error) =>
        Effect.succeed(done("later", error.detail, error.pauseMs, troubles[error.code] ?? null))
    })
  )
}

/** Ends an order that fails again and again for a reason of the device's own, so that the others get their turn. */
export const giveUp = (
  row: LedgerOrder,
  environment: LaneEnvironment,
  trouble: RefusalCode | null,
  detail: string
) =>
  Effect.gen(function* () {
    const end =
      trouble === null
        ? { state: "failed" as const, reason: "jail_failed" as const, detail }
        : { state: "rejected" as const, reason: trouble, detail }
    yield* conclude(
      environment.notary,
      row,
      draftOf(row, yield* rootVersion(row, environment), yield* nowMs, end)
    )
    const ended: WorkEnd = { order: row.order.id, kind: "concluded", pauseMs: 0, trouble: null, detail }
    return ended
  })
