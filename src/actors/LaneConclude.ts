/** How a lane ends an order: the draft of its receipt, the notary's signature, and nothing left behind. */
import { Effect, Schedule } from "effect"
import type { RpcGroup } from "effect/rpc"
import type { ActorRef } from "../kernel/index.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import type { LedgerOrder } from "../ports/Ledger.ts"
import { PackageStore } from "../ports/PackageStore.ts"
import type { NotaryProtocol, ReceiptDraft } from "../schemas/protocols/Notary.ts"
import type { Isolation } from "../schemas/Receipt.ts"
import type { OutcomeReason } from "../schemas/Refusals.ts"
import type { FinalState } from "../schemas/WorkOrder.ts"
import type { RunReport } from "./JailExecutor.ts"
import { plainText } from "./PlainText.ts"

/** Longest detail a receipt holds. */
const detailLength = 300

/** A draft that says nothing yet of a run. */
export const draftOf = (
  row: LedgerOrder,
  rootVersion: number,
  endedAtMs: number,
  end: { readonly state: FinalState; readonly reason: OutcomeReason | null; readonly detail: string | null }
): ReceiptDraft => ({
  order: row.order.id,
  order_digest: row.digest,
  payload_digest: row.order.payload.digest,
  state: end.state,
  reason: end.reason,
  detail: end.detail === null ? null : plainText(end.detail, detailLength),
  exit_code: null,
  signal: null,
  attempts: row.attempts,
  received_at_ms: row.receivedAtMs,
  started_at_ms: row.startedAtMs,
  ended_at_ms: Math.max(endedAtMs, row.startedAtMs ?? row.receivedAtMs),
  usage: null,
  output: null,
  artifacts: null,
  isolation: null,
  root_version: rootVersion
})

/** A draft with everything a run told. */
export const draftOfRun = (
  row: LedgerOrder,
  rootVersion: number,
  report: RunReport,
  isolation: Isolation
): ReceiptDraft => ({
  ...draftOf(row, rootVersion, report.endedAtMs, report),
  exit_code: report.exitCode,
  signal: report.signal,
  usage: report.usage,
  output: report.output,
  artifacts: report.artifacts?.summary ?? null,
  isolation
})

/** A full disk or a busy notary delays a receipt; nothing but the end of the program gives it up. */
const patience = Schedule.min([Schedule.exponential("200 millis", 2), Schedule.spaced("30 seconds")])

const askTimeoutMs = 30_000

/** Has the notary end the order, however often that takes, then removes what the order has on disk. */
export const conclude = (
  notary: ActorRef<RpcGroup.Rpcs<typeof NotaryProtocol>>,
  row: LedgerOrder,
  draft: ReceiptDraft,
  artifacts: { readonly path: string; readonly sizeBytes: number } | null = null
) =>
  Effect.gen(function* () {
    const store = yield* PackageStore
    const isConcludedNow = yield* notary
      .ask(
        "Conclude",
        { draft, accepted: row.order.id, key: row.digest, artifacts },
        { timeoutMs: askTimeoutMs }
      )
      .pipe(
        Effect.tapError((error) => Effect.logWarning(`the receipt is not written yet: ${error.message}`)),
        Effect.retry(patience)
      )
    // A life before this one may have packed artifacts and died before it said so.
    yield* store
      .remove(row.order.id, isConcludedNow && artifacts === null)
      .pipe(
        Effect.catch((error) =>
          Effect.logWarning(`something of the order is left on disk: ${error.path}: ${error.reason}`)
        )
      )
  })

/** Device time, for receipts. */
export const nowMs = Effect.flatMap(DeviceClock, (clock) => clock.nowMs)
