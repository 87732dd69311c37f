/** Rows of the store as the management API shows them. */
import type { DeviceRow, JobRow, TokenRow } from "../../ports/FleetStore.ts"
import { Limits } from "../../schemas/Limits.ts"
import type { DeviceView, JobView, LaggardPage } from "../../schemas/ManagementApi.ts"
import type { TokenView } from "../../schemas/ManagementViews.ts"

/** Polls are written at most once a minute; a device that keeps its rhythm was seen within this. */
export const seenWithinMs = (pollSleepMs: number): number => Math.max(pollSleepMs, Limits.longPollMs) + 90_000

export const deviceView = (row: DeviceRow, nowMs: number, pollSleepMs: number): DeviceView => ({
  device: row.device,
  status: row.status,
  name: row.name as DeviceView["name"],
  enrolment: row.enrolment,
  admission: row.admission,
  preauthorisation: row.admission === null ? row.preauthorisation : null,
  statement: row.statement,
  enrolled_at_ms: row.enrolledAtMs,
  last_seen_at_ms: row.lastSeenAtMs,
  online: row.lastSeenAtMs !== null && nowMs - row.lastSeenAtMs <= seenWithinMs(pollSleepMs),
  incarnation: row.incarnation,
  high_water: row.highWater,
  blocked: row.objection ?? row.blocked,
  degraded: row.degraded,
  last_receipt: row.lastReceipt,
  root_version: row.rootVersion
})

export const laggardView = (row: DeviceRow): LaggardPage["devices"][number] => ({
  device: row.device,
  name: row.name as DeviceView["name"],
  root_version: row.rootVersion,
  last_seen_at_ms: row.lastSeenAtMs
})

export const jobView = (row: JobRow): JobView => ({
  id: row.id,
  device: row.device,
  lane: row.order.lane,
  counter: row.order.counter,
  digest: row.digest,
  state: row.state,
  version: row.version,
  reason: row.reason,
  done_bytes: row.doneBytes,
  total_bytes: row.totalBytes,
  bytes_per_second: row.bytesPerSecond,
  submitted_at_ms: row.submittedAtMs,
  submitted_by: row.submittedBy,
  changed_at_ms: row.changedAtMs,
  expires_at_ms: row.order.expires_at_ms,
  deadline_at_ms: row.order.deadline_at_ms,
  cancel_requested: row.cancel !== null,
  output_chunks: row.outputChunks,
  artifact_bytes: row.artifactBytes,
  results_pruned_at_ms: row.resultsPruned?.atMs ?? null,
  order: row.envelope,
  receipt: row.receipt
})

export const tokenView = (row: TokenRow): TokenView => ({
  name: row.name as TokenView["name"],
  role: row.role,
  created_at_ms: row.createdAtMs,
  created_by: row.createdBy,
  expires_at_ms: row.expiresAtMs,
  last_used_at_ms: row.lastUsedAtMs
})
