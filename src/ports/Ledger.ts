/**
 * The device's durable memory: what it accepted, how far each order is, its receipts and what waits to be sent. Every
 * method is one transaction; when its effect succeeds, the change survives a power cut. Methods that belong together
 * (receipt, final state, chain head, outbox) are one method for that reason.
 */
import type { Effect } from "effect"
import { Context, Schema } from "effect"
import type { HighWater } from "../schemas/DeviceApi.ts"
import type { DsseEnvelope } from "../schemas/Dsse.ts"
import type { Digest, Incarnation, OrderId } from "../schemas/Ids.ts"
import type { FinalState, LaneName, OrderState, WorkOrder } from "../schemas/WorkOrder.ts"

/** The ledger could not be read or written: disk full, damaged, locked. Nothing was changed. */
export class LedgerError extends Schema.TaggedError<LedgerError>()("LedgerError", {
  operation: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `The ledger failed (${this.operation}): ${this.reason}`
  }
}

/** An order the device accepted and has not yet finished, or finished and remembers. */
export interface LedgerOrder {
  readonly order: WorkOrder
  readonly envelope: DsseEnvelope
  readonly digest: Digest
  readonly state: OrderState
  /** Rises by one with each change of state. */
  readonly version: number
  /** Runs begun, counted before the start. */
  readonly attempts: number
  readonly idempotent: boolean
  readonly receivedAtMs: number
  readonly startedAtMs: number | null
}

/** A piece waiting to be sent to the server, oldest first. Receipts are never dropped; output may be. */
export type OutboxItem =
  | {
      readonly kind: "output"
      readonly id: number
      readonly order: OrderId
      readonly sequence: number
      readonly bytes: Uint8Array
    }
  | {
      readonly kind: "artifacts"
      readonly id: number
      readonly order: OrderId
      readonly path: string
      readonly sizeBytes: number
    }
  | {
      readonly kind: "receipt"
      readonly id: number
      readonly number: number
      readonly digest: Digest
      readonly envelope: DsseEnvelope
    }

export interface OutboxSize {
  readonly items: number
  readonly bytes: number
}

/** Head of the receipt chain. */
export interface ChainHead {
  readonly number: number
  readonly digest: Digest | null
}

/** How an order ends: written together with its receipt. */
export interface Conclusion {
  /** Null where nothing that could be called an order came (then only the receipt is written). */
  readonly order: OrderId | null
  readonly orderDigest: Digest
  readonly state: FinalState
  /** The signed receipt; its number and `previous` must continue the head, else the call fails and nothing changes. */
  readonly receipt: DsseEnvelope
  readonly number: number
  readonly receiptDigest: Digest
  readonly previous: Digest | null
  /** Path of the encrypted artifacts in the spool, to be sent before the receipt. */
  readonly artifacts: { readonly path: string; readonly sizeBytes: number } | null
}

export interface LedgerCounts {
  readonly succeeded: number
  readonly failed: number
  readonly rejected: number
}

/** Small durable values beside the orders. JSON text each. */
export type NoteKey =
  | "admission"
  | "roots"
  | "highest_time"
  | "device_name"
  | "server_root_version"
  | "objection"
  | "onion_shared"

export class Ledger extends Context.Service<
  Ledger,
  {
    /** Random identity of this database, made when it was created. */
    readonly incarnation: Incarnation
    readonly highWater: Effect.Effect<HighWater | null, LedgerError>
    /**
     * Accepts an authentic order: writes it as `queued` and raises the high-water mark, if (root version, counter) is
     * above it and the id is new; otherwise says which of the two failed and changes nothing.
     */
    readonly accept: (
      order: WorkOrder,
      envelope: DsseEnvelope,
      digest: Digest,
      receivedAtMs: number
    ) => Effect.Effect<"accepted" | "replayed" | "out_of_order", LedgerError>
    /** Moves an unfinished order on and returns its new version. */
    readonly advance: (
      order: OrderId,
      state: "downloading" | "verifying"
    ) => Effect.Effect<number, LedgerError>
    /** Counts an attempt and marks it running, before the command starts. */
    readonly begin: (
      order: OrderId,
      idempotent: boolean,
      startedAtMs: number
    ) => Effect.Effect<{ version: number; attempts: number }, LedgerError>
    /** Puts an interrupted, idempotent order back to `queued`. */
    readonly requeue: (order: OrderId) => Effect.Effect<number, LedgerError>
    readonly find: (order: OrderId) => Effect.Effect<LedgerOrder | null, LedgerError>
    /** Unfinished orders of a lane, lowest counter first. */
    readonly unfinished: (lane?: LaneName) => Effect.Effect<ReadonlyArray<LedgerOrder>, LedgerError>
    /** Whether an envelope with this digest was concluded before (refused or finished). */
    readonly concluded: (orderDigest: Digest) => Effect.Effect<boolean, LedgerError>
    readonly chainHead: Effect.Effect<ChainHead, LedgerError>
    /** Receipt, final state, chain head and outbox rows in one transaction. */
    readonly conclude: (conclusion: Conclusion) => Effect.Effect<void, LedgerError>
    /** Remembers a verified cancel until it expires; true if it is new. */
    readonly rememberCancel: (
      order: OrderId,
      envelope: DsseEnvelope,
      expiresAtMs: number
    ) => Effect.Effect<boolean, LedgerError>
    readonly cancels: Effect.Effect<ReadonlyArray<OrderId>, LedgerError>
    readonly isCanceled: (order: OrderId) => Effect.Effect<boolean, LedgerError>
    /** Adds an output chunk to the outbox; false (and nothing written) when the outbox has no room. */
    readonly putOutput: (
      order: OrderId,
      sequence: number,
      bytes: Uint8Array
    ) => Effect.Effect<boolean, LedgerError>
    /** Removes output of an order that is to be run again. */
    readonly dropOutput: (order: OrderId) => Effect.Effect<void, LedgerError>
    /**
     * The oldest things to send: chunks and artifacts of an order before its receipt. Those of the orders `without` are left
     * out, their receipts are not.
     */
    readonly outbox: (
      maximum: number,
      without?: ReadonlyArray<OrderId>
    ) => Effect.Effect<ReadonlyArray<OutboxItem>, LedgerError>
    /** Paths of all artifacts that wait to be sent: what a sweep of the spool must keep. */
    readonly spooled: Effect.Effect<ReadonlyArray<string>, LedgerError>
    readonly outboxSize: Effect.Effect<OutboxSize, LedgerError>
    /** Forgets acknowledged items. A receipt goes only when number and digest are the ones named. */
    readonly acknowledge: (items: ReadonlyArray<OutboxItem>) => Effect.Effect<void, LedgerError>
    readonly counts: Effect.Effect<LedgerCounts, LedgerError>
    readonly note: (key: NoteKey) => Effect.Effect<string | null, LedgerError>
    readonly setNote: (key: NoteKey, value: string) => Effect.Effect<void, LedgerError>
    /** Forgets orders, refusals and cancels whose time is over at `nowMs`. */
    readonly prune: (nowMs: number) => Effect.Effect<void, LedgerError>
  }
>()("postern/ports/Ledger") {}
