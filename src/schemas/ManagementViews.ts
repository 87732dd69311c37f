/** What the management API shows: devices, jobs, tokens, the server itself. */
import { Effect, Schema } from "effect"
import { HighWater } from "./DeviceApi.ts"
import { Base64, DsseEnvelope } from "./Dsse.ts"
import { HealthSample } from "./Health.ts"
import { Count, DeviceId, Digest, Incarnation, Name, OrderId, ServerId, TimestampMs } from "./Ids.ts"
import { MessagingStatus } from "./MessagingViews.ts"
import { OnionClientKey } from "./Onion.ts"
import { OnionStatus } from "./OnionStatus.ts"
import { LaneName, OrderState } from "./WorkOrder.ts"

/** viewer: read. operator: submit, cancel, admit. admin: also roots and invitations. Each includes the one before. */
export const Role = Schema.Literals(["viewer", "operator", "admin"])
export type Role = typeof Role.Type

export const DeviceView = Schema.Struct({
  device: DeviceId,
  status: Schema.Literals(["pending", "accepted", "rejected", "revoked"]),
  name: Schema.NullOr(Name),
  /** As the device signed it: the CLI takes keys and claim code from here, after checking the signature. */
  enrolment: DsseEnvelope,
  admission: Schema.NullOr(DsseEnvelope),
  /** What an operator signed beforehand, where the device was let in by that and nothing was decided since. */
  preauthorisation: Schema.NullOr(DsseEnvelope),
  /** The device's own word, signed by it: where it stands, and the key to encrypt to. */
  statement: Schema.NullOr(DsseEnvelope),
  enrolled_at_ms: TimestampMs,
  last_seen_at_ms: Schema.NullOr(TimestampMs),
  /** Whether it is polling now. */
  online: Schema.Boolean,
  incarnation: Schema.NullOr(Incarnation),
  high_water: Schema.NullOr(HighWater),
  blocked: Schema.NullOr(Schema.String),
  /** Codes of what is weaker on the device than it should be, as its last poll told. */
  degraded: Schema.Array(Schema.String),
  last_receipt: Count,
  /** Version of the trust root it held at its last poll. */
  root_version: Schema.NullOr(Count),
  /** Its own key to the onion service, and the group whose key it shares there; absent where it has none. */
  onion_key: Schema.optionalKey(OnionClientKey),
  onion_group: Schema.optionalKey(Count)
})
export type DeviceView = typeof DeviceView.Type

/** How fast bytes came lately; null where it is not known. */
const bytesPerSecond = Schema.NullOr(Count).pipe(Schema.withDecodingDefault(Effect.succeed(null)))

export const JobView = Schema.Struct({
  id: OrderId,
  device: DeviceId,
  lane: LaneName,
  counter: Count,
  digest: Digest,
  state: OrderState,
  version: Count,
  reason: Schema.NullOr(Schema.String),
  done_bytes: Schema.NullOr(Count),
  total_bytes: Schema.NullOr(Count),
  bytes_per_second: bytesPerSecond,
  submitted_at_ms: TimestampMs,
  submitted_by: Schema.String,
  changed_at_ms: TimestampMs,
  expires_at_ms: TimestampMs,
  deadline_at_ms: TimestampMs,
  cancel_requested: Schema.Boolean,
  output_chunks: Count,
  artifact_bytes: Count,
  /** When output and artifacts were dropped, or null while they are kept. */
  results_pruned_at_ms: Schema.NullOr(TimestampMs),
  order: DsseEnvelope,
  receipt: Schema.NullOr(DsseEnvelope)
})
export type JobView = typeof JobView.Type

/** What the server keeps, as of its last look. */
export const StorageView = Schema.Struct({
  measured_at_ms: TimestampMs,
  database_bytes: Count,
  payload_files: Count,
  payload_bytes: Count,
  artifact_files: Count,
  artifact_bytes: Count,
  output_bytes: Count,
  jobs: Count,
  receipts: Count,
  audit_entries: Count,
  free_bytes: Schema.NullOr(Count)
})
export type StorageView = typeof StorageView.Type

export const ServerStatus = Schema.Struct({
  server: ServerId,
  software: Schema.String,
  time_ms: TimestampMs,
  started_at_ms: TimestampMs,
  root_version: Schema.NullOr(Count),
  root_expires_at_ms: Schema.NullOr(TimestampMs),
  devices: Schema.Record(Schema.String, Count),
  jobs: Schema.Record(Schema.String, Count),
  /** Null until the first look after a start. */
  storage: Schema.NullOr(StorageView),
  /** How it is reached over Tor; null where it is not, or cannot tell. */
  onion: Schema.NullOr(OnionStatus).pipe(Schema.withDecodingDefault(Effect.succeed(null))),
  /** How messages between devices are carried; null where they are not, or that cannot be told now. */
  messaging: Schema.NullOr(MessagingStatus).pipe(Schema.withDecodingDefault(Effect.succeed(null))),
  /** Why there is nothing to tell where there should be, in a sentence; else null. */
  messaging_problem: Schema.NullOr(Schema.String).pipe(Schema.withDecodingDefault(Effect.succeed(null))),
  /** When this state was restored from a backup, and of when that is; null where it never was. */
  restored: Schema.NullOr(Schema.Struct({ at_ms: TimestampMs, backup_at_ms: TimestampMs }))
})
export type ServerStatus = typeof ServerStatus.Type

export const SequenceView = Schema.Struct({
  next_counter: Count,
  previous: Schema.NullOr(Digest),
  root_version: Count
})

export const OutputPage = Schema.Struct({
  chunks: Schema.Array(Schema.Struct({ sequence: Count, data: Base64 })),
  state: OrderState,
  version: Count,
  /** As in {@link JobView}. */
  done_bytes: Schema.NullOr(Count).pipe(Schema.withDecodingDefault(Effect.succeed(null))),
  total_bytes: Schema.NullOr(Count).pipe(Schema.withDecodingDefault(Effect.succeed(null))),
  bytes_per_second: bytesPerSecond
})
export type OutputPage = typeof OutputPage.Type

export const ReceiptPage = Schema.Struct({
  receipts: Schema.Array(Schema.Struct({ number: Count, digest: Digest, envelope: DsseEnvelope })),
  /** Receipts below this number are not kept any more; null while all are there. */
  pruned_below: Schema.NullOr(Count),
  /** When the server was restored from a backup: what came between is missing. Null where it never was. */
  restored_at_ms: Schema.NullOr(TimestampMs)
})

export const LaggardPage = Schema.Struct({
  root_version: Schema.NullOr(Count),
  /** All of them, also those that are not in the list. */
  count: Count,
  devices: Schema.Array(
    Schema.Struct({
      device: DeviceId,
      name: Schema.NullOr(Name),
      root_version: Schema.NullOr(Count),
      last_seen_at_ms: Schema.NullOr(TimestampMs)
    })
  )
})
export type LaggardPage = typeof LaggardPage.Type

export const AuditPage = Schema.Struct({
  entries: Schema.Array(
    Schema.Struct({
      id: Count,
      at_ms: TimestampMs,
      actor: Schema.String,
      action: Schema.String,
      subject: Schema.String
    })
  ),
  /** For `before`, to get the next page; null on the last one. */
  next: Schema.NullOr(Count)
})

/** Where a page ends, as the server wrote it; given back as `after`. */
export const Cursor = Schema.String.check(Schema.isMaxLength(200))

/** The next page begins behind this; null on the last one. */
export const nextPage = Schema.NullOr(Cursor)

export const TokenView = Schema.Struct({
  name: Name,
  role: Role,
  created_at_ms: TimestampMs,
  created_by: Schema.String,
  /** Null: it counts until it is revoked. */
  expires_at_ms: Schema.NullOr(TimestampMs),
  /** To the minute; null when it never was. */
  last_used_at_ms: Schema.NullOr(TimestampMs)
})
export type TokenView = typeof TokenView.Type

/** A token that was just made, shown this once. */
export const MadeToken = Schema.Struct({ ...TokenView.fields, token: Schema.String })

/** A plain whole number in a query. */
export const wholeNumber = Schema.FiniteFromString.check(Schema.isInt(), Schema.isGreaterThanOrEqualTo(0))

/** Which lines of the audit log are shown. */
export const AuditQuery = Schema.Struct({
  limit: Schema.optional(wholeNumber),
  before: Schema.optional(wholeNumber),
  since_ms: Schema.optional(wholeNumber),
  actor: Schema.optional(Schema.String),
  action: Schema.optional(Schema.String)
})
export type AuditQuery = typeof AuditQuery.Type

/** Which jobs are listed. */
export const JobQuery = Schema.Struct({
  device: Schema.optional(DeviceId),
  open: Schema.optional(Schema.Literals(["true", "false"])),
  state: Schema.optional(OrderState),
  /** Submitted at or after, and before. */
  since_ms: Schema.optional(wholeNumber),
  until_ms: Schema.optional(wholeNumber),
  limit: Schema.optional(wholeNumber),
  after: Schema.optional(Cursor)
})
export type JobQuery = typeof JobQuery.Type

/** Figures of a device over time: the mean of each step that has any, oldest first, by the time of arrival. */
export const SeriesView = Schema.Struct({
  step_ms: Count,
  samples: Schema.Array(HealthSample)
})
