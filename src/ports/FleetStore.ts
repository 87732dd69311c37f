/**
 * The server's durable memory. Each method is one transaction, answered after its commit; each change is idempotent by
 * its own key, so a replay changes nothing. The store keeps envelopes and ciphertext as they came: it has no plaintext
 * of package content and no secret but hashes.
 */
import type { Effect } from "effect"
import { Context, Schema } from "effect"
import type { HighWater, Objection } from "../schemas/DeviceApi.ts"
import type { DsseEnvelope } from "../schemas/Dsse.ts"
import type { Admission, EnrolmentRequest } from "../schemas/Enrolment.ts"
import type { HealthReport } from "../schemas/Health.ts"
import type { DeviceId, Digest, Incarnation, OrderId } from "../schemas/Ids.ts"
import type { Role } from "../schemas/ManagementApi.ts"
import type { OnionClientKey } from "../schemas/Onion.ts"
import type { Receipt } from "../schemas/Receipt.ts"
import type { CancelOrder, LaneName, OrderProgress, OrderState, WorkOrder } from "../schemas/WorkOrder.ts"
import type { EnrolmentMethods } from "./EnrolmentMethods.ts"
import type { HealthSeries } from "./HealthSeries.ts"
import type { PruneReason } from "./RetentionStore.ts"

/** The store could not be read or written; nothing was changed. */
export class StoreError extends Schema.TaggedError<StoreError>()("StoreError", {
  operation: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `the store of the fleet: ${this.operation}: ${this.reason}`
  }
}

export type DeviceStatus = "pending" | "accepted" | "rejected" | "revoked"

export interface DeviceRow {
  readonly device: DeviceId
  readonly status: DeviceStatus
  readonly name: string | null
  readonly enrolment: DsseEnvelope
  readonly request: EnrolmentRequest
  readonly admission: DsseEnvelope | null
  /** The decision in force. One made beforehand has the sequence 0 and no document of its own. */
  readonly admitted: Admission | null
  /** What an operator signed beforehand, where the device was accepted by that. */
  readonly preauthorisation: DsseEnvelope | null
  /** When the request was made by the device's clock, as far as that can be. */
  readonly requestedAtMs: number
  readonly enrolledAtMs: number
  readonly lastSeenAtMs: number | null
  /** What the last poll said, written when it changed. */
  readonly incarnation: Incarnation | null
  readonly highWater: HighWater | null
  /** When that was, by the device's own clock. */
  readonly toldAtMs: number | null
  readonly blocked: string | null
  /** Codes of what is weaker on it than it should be; those of a newer version are kept as they come. */
  readonly degraded: ReadonlyArray<string>
  readonly lastReceipt: number
  /** Version of the root it held at its last poll. */
  readonly rootVersion: number | null
  /** The device's own word for its operators, from one of its last polls. */
  readonly statement: DsseEnvelope | null
  /** Its own key to the onion service, its group there (see the port `AccessStore`), and the shared key it said it holds. */
  readonly onionKey: OnionClientKey | null
  readonly onionGroup: number | null
  readonly onionHeld: OnionClientKey | null
  /** The key that its group shares now, with the salt of its secret; not in lists of devices. */
  readonly onionShared: { readonly key: OnionClientKey; readonly salt: string } | null
  /** What the server holds against the device until an operator accepts it again. */
  readonly objection: DeviceObjection | null
}

/** An objection that only a new acceptance takes away. */
export type DeviceObjection = Exclude<Objection, "not_enrolled">

/**
 * What the server knows a device's present ledger to hold, each with the time by the device's own clock at which it was
 * there. A later poll that shows less comes from another copy of the ledger.
 */
export interface Standing {
  readonly position: { readonly rootVersion: number; readonly counter: number; readonly atMs: number } | null
  readonly receipt: { readonly number: number; readonly atMs: number } | null
}

export interface JobRow {
  readonly id: OrderId
  readonly device: DeviceId
  readonly order: WorkOrder
  readonly envelope: DsseEnvelope
  readonly digest: Digest
  readonly state: OrderState
  readonly version: number
  readonly reason: string | null
  readonly doneBytes: number | null
  readonly totalBytes: number | null
  /** How fast bytes came lately; null where it is not known. */
  readonly bytesPerSecond: number | null
  readonly submittedAtMs: number
  readonly submittedBy: string
  readonly changedAtMs: number
  readonly cancel: DsseEnvelope | null
  readonly stopRequested: boolean
  readonly receipt: DsseEnvelope | null
  readonly receiptDigest: Digest | null
  readonly outputChunks: number
  readonly artifactBytes: number
  /** When and why output and artifacts were dropped, or null while they are kept. */
  readonly resultsPruned: { readonly atMs: number; readonly why: PruneReason } | null
}

export interface OutputChunk {
  readonly sequence: number
  readonly bytes: Uint8Array
}

export interface ReceiptRow {
  readonly device: DeviceId
  readonly number: number
  readonly digest: Digest
  readonly order: OrderId | null
  readonly envelope: DsseEnvelope
}

/** An API token as it is shown; nobody has the token itself but whom it was given to. */
export interface TokenRow {
  readonly name: string
  readonly role: Role
  readonly createdAtMs: number
  readonly createdBy: string
  readonly expiresAtMs: number | null
  /** Written at most once a minute. */
  readonly lastUsedAtMs: number | null
}

/** Which devices are asked for; the newest enrolments first. What is absent does not matter. */
export interface DeviceFilter {
  readonly status?: DeviceStatus | undefined
  readonly namePrefix?: string | undefined
  /** Heard at or after this time. */
  readonly seenSinceMs?: number | undefined
  /** Not heard since this time. */
  readonly unseenSinceMs?: number | undefined
  /** Behind this device of an earlier page. */
  readonly after?: { readonly atMs: number; readonly device: DeviceId } | undefined
  readonly limit: number
}

/** Which jobs are asked for; the latest submissions first. */
export interface JobFilter {
  readonly device: DeviceId | null
  readonly open: boolean
  readonly state?: OrderState | undefined
  /** Submitted at or after, and before. */
  readonly sinceMs?: number | undefined
  readonly untilMs?: number | undefined
  /** Behind this job of an earlier page. */
  readonly after?: { readonly atMs: number; readonly id: OrderId } | undefined
  readonly limit: number
}

export interface AuditFilter {
  readonly actor?: string | undefined
  readonly action?: string | undefined
  readonly sinceMs?: number | undefined
  /** Older than the line with this number. */
  readonly before?: number | undefined
}

export interface AuditRow {
  /** Rises; never used twice. */
  readonly id: number
  readonly atMs: number
  readonly actor: string
  readonly action: string
  readonly subject: string
}

export class FleetStore extends Context.Service<
  FleetStore,
  EnrolmentMethods & {
    /** Envelopes of roots from a version on, rising. */
    readonly roots: (from: number, maximum: number) => Effect.Effect<ReadonlyArray<DsseEnvelope>, StoreError>
    readonly addRoot: (
      version: number,
      envelope: DsseEnvelope,
      actor: string,
      atMs: number
    ) => Effect.Effect<"added" | "same" | "conflict", StoreError>

    readonly device: (device: DeviceId) => Effect.Effect<DeviceRow | null, StoreError>
    /** The accepted device of that name. */
    readonly deviceNamed: (name: string) => Effect.Effect<DeviceRow | null, StoreError>
    readonly devices: (filter: DeviceFilter) => Effect.Effect<ReadonlyArray<DeviceRow>, StoreError>
    /** What a poll told (`toldAtMs` by the device's clock); the caller leaves out what only repeats the last minute's. */
    readonly sawDevice: (
      device: DeviceId,
      seen: {
        readonly atMs: number
        readonly toldAtMs: number
        readonly incarnation: Incarnation
        readonly highWater: HighWater | null
        readonly blocked: string | null
        readonly degraded: ReadonlyArray<string>
        readonly lastReceipt: number
        readonly rootVersion: number
        readonly statement: DsseEnvelope | null
        /** Its key to the onion service, when it named it, and the shared key it holds; absent where it told nothing new. */
        readonly onion?: {
          readonly key: OnionClientKey | null
          readonly held: OnionClientKey | null
          readonly toldAtMs: number
        }
      }
    ) => Effect.Effect<void, StoreError>
    /** Accepted devices that have not said that they hold this root, or a later one: longest unseen first. */
    readonly laggards: (
      version: number,
      limit: number
    ) => Effect.Effect<{ readonly count: number; readonly devices: ReadonlyArray<DeviceRow> }, StoreError>
    /** Holds something against an accepted device, in the audit log too; the next acceptance takes it away. */
    readonly object: (
      device: DeviceId,
      objection: DeviceObjection,
      atMs: number
    ) => Effect.Effect<void, StoreError>
    /** What the device's ledger is known to hold since its last acceptance. */
    readonly standing: (device: DeviceId) => Effect.Effect<Standing, StoreError>

    /** Next place in a device's sequence, and the digest of the last order submitted for it. */
    readonly sequence: (
      device: DeviceId
    ) => Effect.Effect<
      { readonly nextCounter: number; readonly previous: Digest | null; readonly rootVersion: number },
      StoreError
    >
    /** A verified order whose payload is complete. */
    readonly submit: (
      order: WorkOrder,
      envelope: DsseEnvelope,
      digest: Digest,
      actor: string,
      atMs: number
    ) => Effect.Effect<
      "queued" | "same" | "sequence_taken" | "id_taken" | "unknown_device" | "payload_missing",
      StoreError
    >
    readonly job: (id: OrderId) => Effect.Effect<JobRow | null, StoreError>
    readonly jobs: (filter: JobFilter) => Effect.Effect<ReadonlyArray<JobRow>, StoreError>
    /**
     * Orders for a device above its high-water mark that it is not known to have taken, lowest place first, marked
     * `offered`; the list ends with the last one whose lane is among `lanes`. Orders of other lanes before it are in the
     * list too, since the device could not take them after it.
     */
    readonly offer: (
      device: DeviceId,
      lanes: ReadonlyArray<LaneName>,
      above: HighWater | null,
      maximum: number,
      atMs: number
    ) => Effect.Effect<ReadonlyArray<JobRow>, StoreError>
    /** Cancels and stops for unfinished orders of a device. */
    readonly interventions: (device: DeviceId) => Effect.Effect<
      {
        readonly cancels: ReadonlyArray<{ readonly order: OrderId; readonly envelope: DsseEnvelope }>
        readonly stops: ReadonlyArray<OrderId>
      },
      StoreError
    >
    readonly cancel: (
      cancel: CancelOrder,
      envelope: DsseEnvelope,
      actor: string,
      atMs: number
    ) => Effect.Effect<"done" | "finished" | "unknown", StoreError>
    readonly requestStop: (
      id: OrderId,
      actor: string,
      atMs: number
    ) => Effect.Effect<"done" | "finished" | "unknown", StoreError>
    /**
     * Progress of the device's own unfinished orders; a version not above the stored one changes nothing (but more bytes
     * of the same step). Final states come with receipts only. Returns the ids that changed.
     */
    readonly progress: (
      device: DeviceId,
      events: ReadonlyArray<OrderProgress>
    ) => Effect.Effect<ReadonlyArray<OrderId>, StoreError>
    /** False when the order is not the device's, or a different chunk stands at that sequence already. */
    readonly addOutput: (
      device: DeviceId,
      order: OrderId,
      sequence: number,
      bytes: Uint8Array
    ) => Effect.Effect<boolean, StoreError>
    readonly output: (
      order: OrderId,
      from: number,
      maximum: number
    ) => Effect.Effect<ReadonlyArray<OutputChunk>, StoreError>
    /** Records how many bytes of the artifacts blob are durable. */
    readonly artifactsReceived: (
      device: DeviceId,
      order: OrderId,
      bytes: number
    ) => Effect.Effect<boolean, StoreError>
    /**
     * A verified receipt: stored by (device, incarnation, number); the order it names gets its final state if its digest
     * is that order's. `conflict` when another receipt stands there.
     */
    readonly addReceipt: (
      receipt: Receipt,
      envelope: DsseEnvelope,
      digest: Digest,
      atMs: number
    ) => Effect.Effect<"stored" | "same" | "conflict", StoreError>
    /** Whether a device may still have a payload: an unfinished order of its own names it, only finished ones, or none. */
    readonly payloadUse: (
      device: DeviceId,
      digest: Digest
    ) => Effect.Effect<"open" | "finished" | "none", StoreError>
    /** By number, then in the order of arrival (a device that was accepted anew counts from 1 again). */
    readonly receipts: (
      device: DeviceId,
      fromNumber: number,
      maximum: number
    ) => Effect.Effect<ReadonlyArray<ReceiptRow>, StoreError>

    readonly addHealth: (
      device: DeviceId,
      report: HealthReport,
      atMs: number
    ) => Effect.Effect<void, StoreError>
    readonly health: (
      device: DeviceId,
      maximum: number
    ) => Effect.Effect<ReadonlyArray<HealthReport>, StoreError>
    /** The means of a device's figures in a span of arrival times, in at most about so many steps. */
    readonly series: (
      device: DeviceId,
      fromMs: number,
      untilMs: number,
      points: number
    ) => Effect.Effect<HealthSeries, StoreError>

    /** The token with this SHA-256, expired or not. */
    readonly tokenByHash: (hash: string) => Effect.Effect<TokenRow | null, StoreError>
    readonly tokens: Effect.Effect<ReadonlyArray<TokenRow>, StoreError>
    readonly addToken: (
      name: string,
      role: Role,
      hash: string,
      atMs: number,
      /** Who makes it (default: the console of the server's machine), and until when it counts (default: for ever). */
      more?: { readonly actor?: string; readonly expiresAtMs?: number | null }
    ) => Effect.Effect<"added" | "name_taken", StoreError>
    /** Puts another secret in a token's place. False when there is no such token. */
    readonly rotateToken: (
      name: string,
      hash: string,
      expiresAtMs: number | null,
      actor: string,
      atMs: number
    ) => Effect.Effect<boolean, StoreError>
    /** False when there is no such token. */
    readonly revokeToken: (name: string, actor: string, atMs: number) => Effect.Effect<boolean, StoreError>
    /** Notes when a token was last used. */
    readonly tokenUsed: (name: string, atMs: number) => Effect.Effect<void, StoreError>
    /** The newest first. */
    readonly audit: (
      maximum: number,
      filter?: AuditFilter
    ) => Effect.Effect<ReadonlyArray<AuditRow>, StoreError>
    /** Accepted devices heard at or after a time. */
    readonly heardSince: (atMs: number) => Effect.Effect<number, StoreError>
    readonly counts: Effect.Effect<
      {
        readonly devices: Readonly<Record<DeviceStatus, number>>
        readonly jobs: Readonly<Record<string, number>>
      },
      StoreError
    >
  }
>()("postern/ports/FleetStore") {}
