/** Rows of the store as the management API shows them. */
import type { DeviceRow, JobRow } from "../../ports/FleetStore.ts"
import { Limits } from "../../schemas/Limits.ts"
import type { DeviceView, JobView, LaggardPage } from "../../schemas/ManagementApi.ts"

/** Polls are written at most once a minute; a device that keeps its rhythm was seen within this. */
const seenWithinMs = (pollSleepMs: number): number => Math.max(pollSleepMs, Limits.longPollMs) + 90_000

export const deviceView = (row: DeviceRow, nowMs: number, pollSleepMs: number): DeviceView => ({
  device: row.device,
  status: row.status,
  name: row.name as DeviceView["name"],
  enrolment: row.enrolment,
  admission: row.admission,
  enrolled_at_ms: row.enrolledAtMs,
  last_seen_at_ms: row.lastSeenAtMs,
  online: row.lastSeenAtMs !== null && nowMs - row.lastSeenAtMs <= seenWithinMs(pollSleepMs),
  incarnation: row.incarnation,
  high_water: row.highWater,
  blocked: row.objection ?? row.blocked,
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
  submitted_at_ms: row.submittedAtMs,
  submitted_by: row.submittedBy,
  changed_at_ms: row.changedAtMs,
  expires_at_ms: row.order.expires_at_ms,
  deadline_at_ms: row.order.deadline_at_ms,
  cancel_requested: row.cancel !== null,
  output_chunks: row.outputChunks,
  artifact_bytes: row.artifactBytes,
  order: row.envelope,
  receipt: row.receipt
})
