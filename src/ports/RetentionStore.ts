/**
 * What the server's memory lets go of, in small steps: each method is one short transaction over at most `maximum` rows,
 * called again until there is nothing left to do. What was dropped leaves a trace that says when and why.
 */
import type { Effect } from "effect"
import { Context } from "effect"
import type { DeviceId, Digest, OrderId } from "../schemas/Ids.ts"
import type { StoreError } from "./FleetStore.ts"

/** Which rule took a job's results. */
export type PruneReason = "age" | "size"

/** A job whose results were dropped, and how much they took. */
export interface DroppedResults {
  readonly order: OrderId
  readonly bytes: number
}

/** What there is, in rows and bytes. */
export interface StoredAmounts {
  readonly databaseBytes: number
  readonly outputBytes: number
  readonly artifactBytes: number
  readonly jobs: number
  readonly receipts: number
  readonly auditEntries: number
}

/** Where a device's chain of receipts begins now. */
export interface ReceiptCut {
  readonly belowNumber: number
  readonly prunedAtMs: number
}

export interface Restoration {
  readonly atMs: number
  readonly backupAtMs: number
}

export class RetentionStore extends Context.Service<
  RetentionStore,
  {
    /** Those of the payloads that no job needs, nor ended before its time: see `endedBeforeMs`. */
    readonly unusedPayloads: (
      digests: ReadonlyArray<Digest>,
      /** A job that ended, or expired, after this keeps its payload. */
      endedBeforeMs: number
    ) => Effect.Effect<ReadonlyArray<Digest>, StoreError>
    /** Those of the orders whose artifacts nobody may ask for: the job is gone, or its results were dropped. */
    readonly strayArtifacts: (
      orders: ReadonlyArray<OrderId>
    ) => Effect.Effect<ReadonlyArray<OrderId>, StoreError>
    /** Marks the oldest ended jobs' results as dropped; gives the jobs whose artifacts are to be removed now. */
    readonly pruneResults: (rule: {
      readonly beforeMs: number
      readonly nowMs: number
      readonly why: PruneReason
      readonly maximum: number
    }) => Effect.Effect<ReadonlyArray<DroppedResults>, StoreError>
    /** Removes chunks of output that were dropped; gives how many. */
    readonly pruneOutput: (maximum: number) => Effect.Effect<number, StoreError>
    /**
     * Forgets jobs that ended (or expired) before a time and have no results any more. A device's last job stays, since
     * the next place in the sequence follows from it.
     */
    readonly pruneJobs: (
      beforeMs: number,
      nowMs: number,
      maximum: number
    ) => Effect.Effect<number, StoreError>
    /** Forgets receipts that came before a time, but keeps the newest of those, so that the cut can be judged. */
    readonly pruneReceipts: (
      beforeMs: number,
      nowMs: number,
      maximum: number
    ) => Effect.Effect<number, StoreError>
    /** Forgets lines of the audit log from before a time, and the oldest above a number of lines. */
    readonly pruneAudit: (
      beforeMs: number,
      keepEntries: number,
      maximum: number
    ) => Effect.Effect<number, StoreError>
    /** Forgets invitations and tokens that expired before a time, and traces of jobs forgotten before another. */
    readonly pruneExpired: (
      beforeMs: number,
      tracesBeforeMs: number,
      maximum: number
    ) => Effect.Effect<number, StoreError>
    /** Forgets devices that waited for a decision and have not asked since a time. */
    readonly pruneEnrolments: (beforeMs: number, maximum: number) => Effect.Effect<number, StoreError>

    /** When a job was forgotten, or null when it never was here (or the trace is gone too). */
    readonly prunedJob: (id: OrderId) => Effect.Effect<number | null, StoreError>
    /** Where the present chain of a device begins, or null when nothing of it was dropped. */
    readonly receiptCut: (device: DeviceId) => Effect.Effect<ReceiptCut | null, StoreError>
    readonly amounts: Effect.Effect<StoredAmounts, StoreError>
    /** When this state was restored from a backup, and of when that was; null where it never was. */
    readonly restored: Effect.Effect<Restoration | null, StoreError>
    readonly noteRestored: (restoration: Restoration) => Effect.Effect<void, StoreError>
  }
>()("postern/ports/RetentionStore") {}
