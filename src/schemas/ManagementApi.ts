/**
 * What operators' tools and the server say to each other below `/api/management/v1`: bearer tokens with roles, JSON,
 * ciphertext as octets. Declared once; the server's handlers, the CLI's client and `/openapi.json` all come from here.
 */
import { Context, Schema } from "effect"
import {
  HttpApi,
  HttpApiEndpoint,
  HttpApiGroup,
  HttpApiMiddleware,
  HttpApiSchema,
  HttpApiSecurity,
  OpenApi
} from "effect/http-api"
import { HighWater, RootChain } from "./DeviceApi.ts"
import { Base64, DsseEnvelope } from "./Dsse.ts"
import { HealthReport } from "./Health.ts"
import {
  Count,
  DeviceId,
  Digest,
  Incarnation,
  InvitationId,
  Name,
  OrderId,
  ServerId,
  TimestampMs
} from "./Ids.ts"
import { Limits } from "./Limits.ts"
import { LaneName, OrderState } from "./WorkOrder.ts"

export const managementApiPath = "/api/management/v1"

/** viewer: read. operator: submit, cancel, admit. admin: also roots and invitations. Each includes the one before. */
export const Role = Schema.Literals(["viewer", "operator", "admin"])
export type Role = typeof Role.Type

/** Who is asking. */
export class Caller extends Context.Service<Caller, { readonly name: string; readonly role: Role }>()(
  "postern/ManagementApi/Caller"
) {}

export class Unauthorized extends Schema.TaggedError<Unauthorized>()(
  "Unauthorized",
  { message: Schema.String },
  { httpApiStatus: 401 }
) {}

export class Forbidden extends Schema.TaggedError<Forbidden>()(
  "Forbidden",
  { message: Schema.String },
  { httpApiStatus: 403 }
) {}

export class NotFound extends Schema.TaggedError<NotFound>()(
  "NotFound",
  { message: Schema.String },
  { httpApiStatus: 404 }
) {}

/** The request is well-formed but can't be done as things stand; `code` says which rule. */
export class Conflict extends Schema.TaggedError<Conflict>()(
  "Conflict",
  {
    code: Schema.Literals([
      "sequence_taken",
      "id_taken",
      "name_taken",
      "unknown_device",
      "payload_missing",
      "payload_conflict",
      "stale_admission",
      "root_conflict",
      "finished",
      "no_root",
      "root_expired",
      "operator_revoked"
    ]),
    message: Schema.String
  },
  { httpApiStatus: 409 }
) {}

/** The document is malformed, or not signed by those who may. */
export class Refused extends Schema.TaggedError<Refused>()(
  "Refused",
  { message: Schema.String },
  { httpApiStatus: 422 }
) {}

/** The server's store or disk failed, or it is overloaded; nothing was changed. */
export class Unavailable extends Schema.TaggedError<Unavailable>()(
  "Unavailable",
  { message: Schema.String },
  { httpApiStatus: 503 }
) {}

export class Authorization extends HttpApiMiddleware.Service<
  Authorization,
  { provides: Caller; requires: never }
>()("postern/ManagementApi/Authorization", {
  requiredForClient: true,
  security: { bearer: HttpApiSecurity.bearer },
  error: [Unauthorized, Unavailable]
}) {}

const common = [Forbidden, Unavailable] as const

export const DeviceView = Schema.Struct({
  device: DeviceId,
  status: Schema.Literals(["pending", "accepted", "rejected", "revoked"]),
  name: Schema.NullOr(Name),
  /** As the device signed it: the CLI takes keys and claim code from here, after checking the signature. */
  enrolment: DsseEnvelope,
  admission: Schema.NullOr(DsseEnvelope),
  enrolled_at_ms: TimestampMs,
  last_seen_at_ms: Schema.NullOr(TimestampMs),
  /** Whether it is polling now. */
  online: Schema.Boolean,
  incarnation: Schema.NullOr(Incarnation),
  high_water: Schema.NullOr(HighWater),
  blocked: Schema.NullOr(Schema.String),
  last_receipt: Count,
  /** Version of the trust root it held at its last poll. */
  root_version: Schema.NullOr(Count)
})
export type DeviceView = typeof DeviceView.Type

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
  submitted_at_ms: TimestampMs,
  submitted_by: Schema.String,
  changed_at_ms: TimestampMs,
  expires_at_ms: TimestampMs,
  deadline_at_ms: TimestampMs,
  cancel_requested: Schema.Boolean,
  output_chunks: Count,
  artifact_bytes: Count,
  order: DsseEnvelope,
  receipt: Schema.NullOr(DsseEnvelope)
})
export type JobView = typeof JobView.Type

export const ServerStatus = Schema.Struct({
  server: ServerId,
  software: Schema.String,
  time_ms: TimestampMs,
  started_at_ms: TimestampMs,
  root_version: Schema.NullOr(Count),
  root_expires_at_ms: Schema.NullOr(TimestampMs),
  devices: Schema.Record(Schema.String, Count),
  jobs: Schema.Record(Schema.String, Count)
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
  version: Count
})
export type OutputPage = typeof OutputPage.Type

export const ReceiptPage = Schema.Struct({
  receipts: Schema.Array(Schema.Struct({ number: Count, digest: Digest, envelope: DsseEnvelope }))
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
    Schema.Struct({ at_ms: TimestampMs, actor: Schema.String, action: Schema.String, subject: Schema.String })
  )
})

const Octets = Schema.Uint8Array.pipe(HttpApiSchema.asUint8Array())
const Ok = Schema.Struct({ ok: Schema.Literal(true) })
const number = Schema.FiniteFromString.check(Schema.isInt(), Schema.isGreaterThanOrEqualTo(0))

class ServerGroup extends HttpApiGroup.make("server")
  .add(
    HttpApiEndpoint.get("status", "/status", { success: ServerStatus, error: [...common] }),
    /** The actor tree, as `kernel/Inspection` encodes it. */
    HttpApiEndpoint.get("actors", "/actors", { success: Schema.Unknown, error: [...common] }),
    HttpApiEndpoint.get("roots", "/roots", {
      query: { from: number },
      success: RootChain,
      error: [...common]
    }),
    HttpApiEndpoint.post("publishRoot", "/roots", {
      payload: DsseEnvelope,
      success: Ok,
      error: [...common, Refused, Conflict]
    }),
    /** Accepted devices that are not known to hold the newest root, the longest unseen first. */
    HttpApiEndpoint.get("laggards", "/roots/laggards", {
      query: { limit: number },
      success: LaggardPage,
      error: [...common]
    }),
    HttpApiEndpoint.get("audit", "/audit", {
      query: { limit: number },
      success: AuditPage,
      error: [...common]
    })
  )
  .middleware(Authorization) {}

class DevicesGroup extends HttpApiGroup.make("devices")
  .add(
    HttpApiEndpoint.post("invite", "/invitations", {
      payload: Schema.Struct({ id: InvitationId, expires_at_ms: TimestampMs }),
      success: Ok,
      error: [...common, Refused]
    }),
    HttpApiEndpoint.get("list", "/devices", {
      query: { status: Schema.optional(DeviceView.fields.status) },
      success: Schema.Struct({ devices: Schema.Array(DeviceView) }),
      error: [...common]
    }),
    HttpApiEndpoint.get("show", "/devices/:device", {
      params: { device: DeviceId },
      success: DeviceView,
      error: [...common, NotFound]
    }),
    /** An operator's signed decision: accept, reject or revoke. */
    HttpApiEndpoint.post("admit", "/devices/:device/admission", {
      params: { device: DeviceId },
      payload: DsseEnvelope,
      success: Ok,
      error: [...common, NotFound, Refused, Conflict]
    }),
    HttpApiEndpoint.get("sequence", "/devices/:device/sequence", {
      params: { device: DeviceId },
      success: SequenceView,
      error: [...common, NotFound]
    }),
    HttpApiEndpoint.get("receipts", "/devices/:device/receipts", {
      params: { device: DeviceId },
      query: { from: number },
      success: ReceiptPage,
      error: [...common, NotFound]
    }),
    HttpApiEndpoint.get("health", "/devices/:device/health", {
      params: { device: DeviceId },
      query: { limit: number },
      success: Schema.Struct({ reports: Schema.Array(HealthReport) }),
      error: [...common, NotFound]
    })
  )
  .middleware(Authorization) {}

class JobsGroup extends HttpApiGroup.make("jobs")
  .add(
    /** A block of a payload at `offset`; the answer says how many bytes are there. Complete once its digest is right. */
    HttpApiEndpoint.put("uploadPayload", "/payloads/:digest", {
      params: { digest: Digest },
      query: { offset: number, total: number },
      payload: Octets,
      success: Schema.Struct({ received_bytes: Count, complete: Schema.Boolean }),
      error: [...common, Refused, Conflict]
    }),
    HttpApiEndpoint.post("submit", "/jobs", {
      payload: DsseEnvelope,
      success: JobView,
      error: [...common, Refused, Conflict]
    }),
    HttpApiEndpoint.get("list", "/jobs", {
      query: { device: Schema.optional(DeviceId), open: Schema.optional(Schema.Literals(["true", "false"])) },
      success: Schema.Struct({ jobs: Schema.Array(JobView) }),
      error: [...common]
    }),
    /** With `wait_ms`, held until the job's version is above `after` or the time is over. */
    HttpApiEndpoint.get("show", "/jobs/:id", {
      params: { id: OrderId },
      query: { after: Schema.optional(number), wait_ms: Schema.optional(number) },
      success: JobView,
      error: [...common, NotFound]
    }),
    /** Encrypted output from a chunk on; with `wait_ms`, held until there is more or the job has ended. */
    HttpApiEndpoint.get("output", "/jobs/:id/output", {
      params: { id: OrderId },
      query: { from: number, wait_ms: Schema.optional(number) },
      success: OutputPage,
      error: [...common, NotFound]
    }),
    /** The encrypted artifacts from `offset` on, at most {@link Limits.blockBytes} a call; empty at the end. */
    HttpApiEndpoint.get("artifacts", "/jobs/:id/artifacts", {
      params: { id: OrderId },
      query: { offset: number },
      success: Octets,
      error: [...common, NotFound]
    }),
    HttpApiEndpoint.post("cancel", "/jobs/:id/cancel", {
      params: { id: OrderId },
      payload: DsseEnvelope,
      success: Ok,
      error: [...common, NotFound, Refused, Conflict]
    }),
    /** A stop without an operator's signature: can stop work, never start any. */
    HttpApiEndpoint.post("stop", "/jobs/:id/stop", {
      params: { id: OrderId },
      success: Ok,
      error: [...common, NotFound, Conflict]
    })
  )
  .middleware(Authorization) {}

export class ManagementApi extends HttpApi.make("postern-management")
  .add(ServerGroup)
  .add(DevicesGroup)
  .add(JobsGroup)
  .prefix(managementApiPath)
  .annotateMerge(
    OpenApi.annotations({
      title: "Postern management API",
      version: "1",
      description: `Pages hold at most ${Limits.pageItems} items.`
    })
  ) {}
