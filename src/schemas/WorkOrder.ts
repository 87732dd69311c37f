/**
 * Orders and cancels: what an operator signs. An order says which device runs which payload, in which lane, in which
 * place of that device's sequence, until when. The payload itself travels apart and is bound by its digest.
 */
import { Schema } from "effect"
import { Count, DeviceId, Digest, intBetween, OrderId, Recipient, RootVersion, TimestampMs } from "./Ids.ts"
import { Limits } from "./Limits.ts"

/** `job`: one after the other. `service`: a short request that runs even while a job runs. */
export const LaneName = Schema.Literals(["job", "service"])
export type LaneName = typeof LaneName.Type

export const PayloadReference = Schema.Struct({
  /** SHA-256 of the whole ciphertext (the age file). */
  digest: Digest,
  size_bytes: intBetween(1, Limits.payloadBytes),
  /** Sum of the sizes of all files after decryption and decompression, the manifest included. */
  unpacked_bytes: intBetween(1, Limits.unpackedBytes),
  /** Tar entries, the manifest and folders included. */
  entries: intBetween(1, Limits.packageEntries)
})

export const WorkOrder = Schema.Struct({
  type: Schema.Literal("postern/order/v1"),
  id: OrderId,
  device: DeviceId,
  lane: LaneName,
  /** Place in the device's sequence, from 1, rising; gaps are legal. Compared together with `root_version`. */
  counter: intBetween(1, Number.MAX_SAFE_INTEGER),
  /** Digest of the order payload that was signed before this one for the device, or null for the first. */
  previous: Schema.NullOr(Digest),
  root_version: RootVersion,
  issued_at_ms: TimestampMs,
  /** After this the device refuses to begin it. At most 90 days after `issued_at_ms`. */
  expires_at_ms: TimestampMs,
  /** When the operator expects a receipt at the latest; withholding shows after it. */
  deadline_at_ms: TimestampMs,
  payload: PayloadReference,
  /** Who can read output and artifacts. */
  results_to: Schema.Array(Recipient).check(
    Schema.isMinLength(1),
    Schema.isMaxLength(Limits.resultRecipients),
    Schema.isUnique()
  )
}).check(
  Schema.makeFilter((order) =>
    order.expires_at_ms <= order.issued_at_ms
      ? "it expires before it was issued"
      : order.expires_at_ms - order.issued_at_ms > Limits.orderLifetimeMs
        ? "it lives longer than 90 days"
        : order.deadline_at_ms >= order.issued_at_ms || "its deadline lies before its issue"
  )
)
export type WorkOrder = typeof WorkOrder.Type

export const CancelOrder = Schema.Struct({
  type: Schema.Literal("postern/cancel/v1"),
  order: OrderId,
  device: DeviceId,
  root_version: RootVersion,
  issued_at_ms: TimestampMs,
  /** As the order's: the device remembers a cancel for an order it has not seen until then. */
  expires_at_ms: TimestampMs
}).check(
  Schema.makeFilter(
    (cancel) =>
      (cancel.expires_at_ms > cancel.issued_at_ms &&
        cancel.expires_at_ms - cancel.issued_at_ms <= 2 * Limits.orderLifetimeMs) ||
      "its lifetime is not between 0 and 180 days"
  )
)
export type CancelOrder = typeof CancelOrder.Type

/** The states nothing can follow. */
export const FinalState = Schema.Literals([
  "succeeded",
  "failed",
  "rejected",
  "timed_out",
  "canceled",
  "interrupted",
  "removed"
])
export type FinalState = typeof FinalState.Type

/** The states of an order, as seen by server and device. */
export const OrderState = Schema.Literals([
  "queued",
  "offered",
  "downloading",
  "verifying",
  "running",
  ...FinalState.literals
])
export type OrderState = typeof OrderState.Type

const finalStates: ReadonlySet<string> = new Set(FinalState.literals)
/** Whether nothing can follow `state`. */
export const isFinal = (state: OrderState): state is FinalState => finalStates.has(state)

/** A step on an order's way, reported by the device. `version` rises with each step, so late reports change nothing. */
export const OrderProgress = Schema.Struct({
  order: OrderId,
  state: OrderState,
  version: Count,
  at_ms: TimestampMs,
  /** Bytes done and to do in this state (download), where that makes sense. */
  done_bytes: Schema.NullOr(Count),
  total_bytes: Schema.NullOr(Count)
})
export type OrderProgress = typeof OrderProgress.Type
