/** What the health loop reports. Every figure may be missing (null): a machine without a sensor is healthy too. */
import { Schema } from "effect"
import { Count, labelUpTo, TimestampMs } from "./Ids.ts"
import { BlockedCode } from "./Refusals.ts"

const Figure = Schema.NullOr(Schema.Finite)

export const NetworkAdapter = Schema.Struct({
  name: labelUpTo(32),
  addresses: Schema.Array(labelUpTo(64)).check(Schema.isMaxLength(16)),
  up: Schema.Boolean
})

export const HealthReport = Schema.Struct({
  at_ms: TimestampMs,
  uptime_s: Schema.NullOr(Count),
  process_uptime_s: Count,
  load_1m: Figure,
  memory_total_bytes: Schema.NullOr(Count),
  memory_available_bytes: Schema.NullOr(Count),
  process_memory_bytes: Count,
  disk_total_bytes: Schema.NullOr(Count),
  disk_free_bytes: Schema.NullOr(Count),
  temperature_celsius: Figure,
  adapters: Schema.Array(NetworkAdapter).check(Schema.isMaxLength(32)),
  hostname: labelUpTo(64),
  kernel: labelUpTo(128),
  architecture: labelUpTo(32),
  node: labelUpTo(32),
  software: labelUpTo(64),
  configuration_digest: Schema.NullOr(labelUpTo(80)),
  work: Schema.Struct({
    succeeded: Count,
    failed: Count,
    rejected: Count,
    outbox_items: Count,
    outbox_bytes: Count
  }),
  blocked: Schema.NullOr(BlockedCode),
  /** Degraded parts, as `code: text`, for people. */
  degraded: Schema.Array(labelUpTo(200)).check(Schema.isMaxLength(32))
})
export type HealthReport = typeof HealthReport.Type
