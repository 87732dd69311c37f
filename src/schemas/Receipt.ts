/** The receipt: what a device signs about an order it finished or refused. Receipts form a chain by number and digest. */
import { Schema } from "effect"
import {
  Count,
  DeviceId,
  Digest,
  Incarnation,
  intBetween,
  labelUpTo,
  OrderId,
  RootVersion,
  TimestampMs
} from "./Ids.ts"
import { Limits } from "./Limits.ts"
import { OutcomeReason } from "./Refusals.ts"
import { FinalState } from "./WorkOrder.ts"

/** Whose uid a job ran under: its own, or the client's (`same-uid`, weaker). */
export const Isolation = Schema.Literals(["separate-uid", "same-uid"])
export type Isolation = typeof Isolation.Type

export const ResourceUse = Schema.Struct({
  wall_ms: Count,
  /** Processor time of the whole tree; null where it could not be measured. */
  cpu_ms: Schema.NullOr(Count),
  peak_memory_bytes: Schema.NullOr(Count)
})
export type ResourceUse = typeof ResourceUse.Type

/** What became of stdout and stderr. The digest is SHA-256 over the 32-byte digests of all encrypted chunks, in order. */
export const OutputSummary = Schema.Struct({
  chunks: intBetween(0, Limits.outputChunks),
  digest: Digest,
  stdout_bytes: Count,
  stderr_bytes: Count,
  kept_bytes: Count,
  /** Whether bytes were cut because the limit was reached. */
  truncated: Schema.Boolean
})
export type OutputSummary = typeof OutputSummary.Type

/** The artifacts: one age file holding a zstd tar of /work/out. */
export const ArtifactSummary = Schema.Struct({
  digest: Digest,
  size_bytes: intBetween(1, Limits.artifactBytes * 2),
  entries: Count,
  unpacked_bytes: Count
})
export type ArtifactSummary = typeof ArtifactSummary.Type

export const Receipt = Schema.Struct({
  type: Schema.Literal("postern/receipt/v1"),
  /** From 1, without gaps within one incarnation. */
  number: intBetween(1, Number.MAX_SAFE_INTEGER),
  /** Digest of the receipt payload before this one, or null for the first. */
  previous: Schema.NullOr(Digest),
  device: DeviceId,
  incarnation: Incarnation,
  /** Null where what came was not even an order. */
  order: Schema.NullOr(OrderId),
  /** SHA-256 of the order payload as it came. */
  order_digest: Digest,
  payload_digest: Schema.NullOr(Digest),
  state: FinalState,
  reason: Schema.NullOr(OutcomeReason),
  /** A short detail for people, e.g. the path of the file that differed. Untrusted text. */
  detail: Schema.NullOr(labelUpTo(300)),
  exit_code: Schema.NullOr(intBetween(0, 255)),
  signal: Schema.NullOr(Schema.String.check(Schema.isPattern(/^SIG[A-Z0-9]{1,12}$/))),
  attempts: intBetween(0, Limits.runAttempts),
  received_at_ms: TimestampMs,
  started_at_ms: Schema.NullOr(TimestampMs),
  ended_at_ms: TimestampMs,
  usage: Schema.NullOr(ResourceUse),
  output: Schema.NullOr(OutputSummary),
  artifacts: Schema.NullOr(ArtifactSummary),
  isolation: Schema.NullOr(Isolation),
  root_version: RootVersion,
  software: labelUpTo(64)
})
export type Receipt = typeof Receipt.Type
