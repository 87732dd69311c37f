/**
 * What the health loop reports. Every figure may be missing (null): a machine without a sensor is healthy too. All lists
 * and texts are bounded, so that a report is some kilobytes. `docs/health.md` explains each member.
 */
import { Schema } from "effect"
import { Condition } from "./Conditions.ts"
import { LinkFinding } from "./Connectivity.ts"
import { Count, Incarnation, labelUpTo, TimestampMs } from "./Ids.ts"
import { BlockedCode } from "./Refusals.ts"

/** Rises when a member changes its meaning or goes; a server keeps only reports of the version it knows. */
export const healthVersion = 1

const Figure = Schema.NullOr(Schema.Finite)
const Amount = Schema.NullOr(Count)

export const NetworkAdapter = Schema.Struct({
  name: labelUpTo(32),
  addresses: Schema.Array(labelUpTo(64)).check(Schema.isMaxLength(16)),
  up: Schema.Boolean,
  /** Since the interface was made. */
  received_bytes: Amount,
  sent_bytes: Amount,
  receive_errors: Amount,
  send_errors: Amount
})
export type NetworkAdapter = typeof NetworkAdapter.Type

export const ProcessFigure = Schema.Struct({
  pid: Count,
  name: labelUpTo(32),
  memory_bytes: Count
})
export type ProcessFigure = typeof ProcessFigure.Type

/** Who the machine is, as far as it tells. */
export const MachineIdentity = Schema.Struct({
  /** The device's id (`dev_…`). */
  device: labelUpTo(64),
  /** Which ledger it has. */
  incarnation: Incarnation,
  /** SHA-256 of /etc/machine-id with a tag: tells machines apart without naming them elsewhere. */
  machine_digest: Schema.NullOr(labelUpTo(80)),
  /** The kernel's random name of this boot. */
  boot: Schema.NullOr(labelUpTo(64)),
  model: Schema.NullOr(labelUpTo(128)),
  serial: Schema.NullOr(labelUpTo(128))
})

export const ProcessesView = Schema.Struct({
  count: Amount,
  /** The largest on the machine. */
  largest: Schema.Array(ProcessFigure).check(Schema.isMaxLength(5)),
  /** The client's own, its jobs included, largest first. */
  own: Schema.Array(ProcessFigure).check(Schema.isMaxLength(8)),
  /** Those that the configuration requires. */
  required: Schema.Array(Schema.Struct({ name: labelUpTo(32), running: Schema.Boolean })).check(
    Schema.isMaxLength(32)
  )
})

/** How the way to the server is, and the last time it was not good. */
export const LinkHealth = Schema.Struct({
  ...LinkFinding.fields,
  /** Device time since which it is so. */
  since_at_ms: TimestampMs,
  last_outage: Schema.NullOr(
    Schema.Struct({ ...LinkFinding.fields, from_at_ms: TimestampMs, until_at_ms: TimestampMs })
  )
})
export type LinkHealth = typeof LinkHealth.Type

export const HealthReport = Schema.Struct({
  version: Schema.Literal(healthVersion),
  at_ms: TimestampMs,
  uptime_s: Amount,
  process_uptime_s: Count,
  load_1m: Figure,
  load_5m: Figure,
  load_15m: Figure,
  processors: Count,
  memory_total_bytes: Amount,
  memory_available_bytes: Amount,
  swap_total_bytes: Amount,
  swap_free_bytes: Amount,
  process_memory_bytes: Count,
  disk_total_bytes: Amount,
  disk_free_bytes: Amount,
  disk_free_entries: Amount,
  temperature_celsius: Figure,
  adapters: Schema.Array(NetworkAdapter).check(Schema.isMaxLength(32)),
  processes: ProcessesView,
  identity: MachineIdentity,
  hostname: labelUpTo(64),
  kernel: labelUpTo(128),
  system: Schema.NullOr(labelUpTo(128)),
  architecture: labelUpTo(32),
  node: labelUpTo(32),
  software: labelUpTo(64),
  /** Engine and version; null before it was checked, or where there is none. */
  jail: Schema.NullOr(labelUpTo(64)),
  isolation: Schema.NullOr(labelUpTo(32)),
  /** SHA-256 of the configuration file's bytes; null where there is none. */
  configuration_digest: Schema.NullOr(labelUpTo(80)),
  /** SHA-256 of the settings in force, whatever they came from (RFC 8785 JSON, the state folder left out). */
  settings_digest: labelUpTo(80),
  link: LinkHealth,
  work: Schema.Struct({
    succeeded: Count,
    failed: Count,
    rejected: Count,
    outbox_items: Count,
    outbox_bytes: Count,
    turns: Count,
    polls: Count,
    poll_failures: Count
  }),
  blocked: Schema.NullOr(BlockedCode),
  degraded: Schema.Array(Condition).check(Schema.isMaxLength(32))
})
export type HealthReport = typeof HealthReport.Type

/** The figures of which series are kept: on the device with its history, on the server for each device. */
export const seriesFigures = [
  "load_1m",
  "memory_available_bytes",
  "process_memory_bytes",
  "disk_free_bytes",
  "temperature_celsius",
  "outbox_bytes"
] as const
export type SeriesFigure = (typeof seriesFigures)[number]

/** One point of the series. On a server's answer each figure is the mean over the step that begins at `at_ms`. */
export const HealthSample = Schema.Struct({
  at_ms: TimestampMs,
  load_1m: Figure,
  memory_available_bytes: Figure,
  process_memory_bytes: Figure,
  disk_free_bytes: Figure,
  temperature_celsius: Figure,
  outbox_bytes: Figure
})
export type HealthSample = typeof HealthSample.Type

/** The point of a report. */
export const sampleOf = (report: HealthReport): HealthSample => ({
  at_ms: report.at_ms,
  load_1m: report.load_1m,
  memory_available_bytes: report.memory_available_bytes,
  process_memory_bytes: report.process_memory_bytes,
  disk_free_bytes: report.disk_free_bytes,
  temperature_celsius: report.temperature_celsius,
  outbox_bytes: report.work.outbox_bytes
})
