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
import { Presence } from "./Agents.ts"
import { RootChain } from "./DeviceApi.ts"
import { DsseEnvelope } from "./Dsse.ts"
import { HealthReport } from "./Health.ts"
import { Count, DeviceId, Digest, InvitationId, Name, OrderId, TimestampMs } from "./Ids.ts"
import { Limits } from "./Limits.ts"
import {
  BadRequest,
  Conflict,
  Forbidden,
  Gone,
  NotFound,
  Refused,
  StorageFull,
  TooManyRequests,
  Unauthorized,
  Unavailable
} from "./ManagementErrors.ts"
import {
  AuditPage,
  AuditQuery,
  Cursor,
  DeviceView,
  JobQuery,
  JobView,
  LaggardPage,
  MadeToken,
  nextPage,
  OutputPage,
  ReceiptPage,
  Role,
  SequenceView,
  SeriesView,
  ServerStatus,
  TokenView,
  wholeNumber
} from "./ManagementViews.ts"
import { AgentDetail, AgentPage, MessagingStatus, RefusalView } from "./MessagingViews.ts"
import { RolloutDetail, RolloutId, RolloutView } from "./Rollout.ts"

export const managementApiPath = "/api/management/v1"

/** Who is asking. */
export class Caller extends Context.Service<Caller, { readonly name: string; readonly role: Role }>()(
  "postern/ManagementApi/Caller"
) {}

export class Authorization extends HttpApiMiddleware.Service<
  Authorization,
  { provides: Caller; requires: never }
>()("postern/ManagementApi/Authorization", {
  requiredForClient: true,
  security: { bearer: HttpApiSecurity.bearer },
  error: [BadRequest, Unauthorized, Forbidden, TooManyRequests, Unavailable]
}) {}

export { Conflict, Forbidden, NotFound, Refused, Unauthorized, Unavailable } from "./ManagementErrors.ts"
export { DeviceView, JobView, LaggardPage, OutputPage, Role, ServerStatus } from "./ManagementViews.ts"

const common = [Forbidden, Unavailable] as const

const Octets = Schema.Uint8Array.pipe(HttpApiSchema.asUint8Array())
const Ok = Schema.Struct({ ok: Schema.Literal(true) })
const number = wholeNumber

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
      query: AuditQuery,
      success: AuditPage,
      error: [...common]
    }),
    /** Figures in Prometheus' text format; also at `/metrics`, with the same tokens. */
    HttpApiEndpoint.get("metrics", "/metrics", {
      success: Schema.String.pipe(HttpApiSchema.asText({ contentType: "text/plain; version=0.0.4" })),
      error: [...common]
    }),
    HttpApiEndpoint.get("tokens", "/tokens", {
      success: Schema.Struct({ tokens: Schema.Array(TokenView) }),
      error: [...common]
    }),
    /** Makes a token; the answer alone holds it. */
    HttpApiEndpoint.post("createToken", "/tokens", {
      payload: Schema.Struct({ name: Name, role: Role, expires_at_ms: Schema.NullOr(TimestampMs) }),
      success: MadeToken,
      error: [...common, Refused, Conflict]
    }),
    /** Puts a new secret in the place of the old one, which counts no more. */
    HttpApiEndpoint.post("rotateToken", "/tokens/:name/rotation", {
      params: { name: Name },
      payload: Schema.Struct({ expires_at_ms: Schema.NullOr(TimestampMs) }),
      success: MadeToken,
      error: [...common, NotFound, Refused]
    }),
    HttpApiEndpoint.delete("revokeToken", "/tokens/:name", {
      params: { name: Name },
      success: Ok,
      error: [...common, NotFound]
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
    /** An operator's signed acceptance beforehand: of whoever proves an invitation, or of a device id. */
    HttpApiEndpoint.post("preauthorise", "/preauthorisations", {
      payload: DsseEnvelope,
      success: Ok,
      error: [...common, Refused, Conflict]
    }),
    HttpApiEndpoint.get("list", "/devices", {
      query: {
        status: Schema.optional(DeviceView.fields.status),
        name_prefix: Schema.optional(Name),
        online: Schema.optional(Schema.Literals(["true", "false"])),
        limit: Schema.optional(number),
        after: Schema.optional(Cursor)
      },
      success: Schema.Struct({ devices: Schema.Array(DeviceView), next: nextPage }),
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
    }),
    /** Figures from `from_ms` until `until_ms` (default now), in at most about `points` steps (default 96). */
    HttpApiEndpoint.get("series", "/devices/:device/series", {
      params: { device: DeviceId },
      query: { from_ms: number, until_ms: Schema.optional(number), points: Schema.optional(number) },
      success: SeriesView,
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
      error: [...common, Refused, Conflict, StorageFull]
    }),
    HttpApiEndpoint.post("submit", "/jobs", {
      payload: DsseEnvelope,
      success: JobView,
      error: [...common, Refused, Conflict]
    }),
    HttpApiEndpoint.get("list", "/jobs", {
      query: JobQuery,
      success: Schema.Struct({ jobs: Schema.Array(JobView), next: nextPage }),
      error: [...common]
    }),
    /** With `wait_ms`, held until the job's version is above `after` or the time is over. */
    HttpApiEndpoint.get("show", "/jobs/:id", {
      params: { id: OrderId },
      query: { after: Schema.optional(number), wait_ms: Schema.optional(number) },
      success: JobView,
      error: [...common, NotFound, Gone]
    }),
    /**
     * Encrypted output from a chunk on; with `wait_ms`, held until there is more or the job has ended, and with `after` also
     * until its version is above that.
     */
    HttpApiEndpoint.get("output", "/jobs/:id/output", {
      params: { id: OrderId },
      query: { from: number, after: Schema.optional(number), wait_ms: Schema.optional(number) },
      success: OutputPage,
      error: [...common, NotFound, Gone]
    }),
    /** The encrypted artifacts from `offset` on, at most {@link Limits.blockBytes} a call; empty at the end. */
    HttpApiEndpoint.get("artifacts", "/jobs/:id/artifacts", {
      params: { id: OrderId },
      query: { offset: number },
      success: Octets,
      error: [...common, NotFound, Gone]
    }),
    HttpApiEndpoint.post("cancel", "/jobs/:id/cancel", {
      params: { id: OrderId },
      payload: DsseEnvelope,
      success: Ok,
      error: [...common, NotFound, Gone, Refused, Conflict]
    }),
    /** A stop without an operator's signature: can stop work, never start any. */
    HttpApiEndpoint.post("stop", "/jobs/:id/stop", {
      params: { id: OrderId },
      success: Ok,
      error: [...common, NotFound, Gone, Conflict]
    })
  )
  .middleware(Authorization) {}

class RolloutsGroup extends HttpApiGroup.make("rollouts")
  .add(
    /** A plan as an operator signed it. Its orders are submitted behind it, as jobs; the first phase begins with the last one. */
    HttpApiEndpoint.post("open", "/rollouts", {
      payload: DsseEnvelope,
      success: RolloutView,
      error: [...common, NotFound, Refused, Conflict]
    }),
    HttpApiEndpoint.get("list", "/rollouts", {
      query: { open: Schema.optional(Schema.Literals(["true", "false"])) },
      success: Schema.Struct({ rollouts: Schema.Array(RolloutView) }),
      error: [...common]
    }),
    HttpApiEndpoint.get("show", "/rollouts/:id", {
      params: { id: RolloutId },
      success: RolloutDetail,
      error: [...common, NotFound]
    }),
    HttpApiEndpoint.get("jobs", "/rollouts/:id/jobs", {
      params: { id: RolloutId },
      success: Schema.Struct({ jobs: Schema.Array(JobView) }),
      error: [...common, NotFound]
    }),
    /** An operator's signed pause, resume or abort. */
    HttpApiEndpoint.post("control", "/rollouts/:id/control", {
      params: { id: RolloutId },
      payload: DsseEnvelope,
      success: RolloutView,
      error: [...common, NotFound, Refused, Conflict]
    })
  )
  .middleware(Authorization) {}

/** Messages between devices, as far as operators see them. Where the server carries none: 404. */
class MessagingGroup extends HttpApiGroup.make("messaging")
  .add(
    HttpApiEndpoint.get("status", "/messaging", { success: MessagingStatus, error: [...common, NotFound] }),
    /** Devices that have come as agents, by name. */
    HttpApiEndpoint.get("agents", "/messaging/agents", {
      query: {
        status: Schema.optional(Presence),
        limit: Schema.optional(number),
        after: Schema.optional(Name)
      },
      success: AgentPage,
      error: [...common, NotFound]
    }),
    HttpApiEndpoint.get("agent", "/messaging/agents/:agent", {
      params: { agent: Name },
      success: AgentDetail,
      error: [...common, NotFound]
    }),
    /** How often what of whose was refused, the latest first. */
    HttpApiEndpoint.get("refusals", "/messaging/refusals", {
      query: { limit: Schema.optional(number) },
      success: Schema.Struct({ refusals: Schema.Array(RefusalView) }),
      error: [...common, NotFound]
    })
  )
  .middleware(Authorization) {}

export class ManagementApi extends HttpApi.make("postern-management")
  .add(ServerGroup)
  .add(DevicesGroup)
  .add(JobsGroup)
  .add(RolloutsGroup)
  .add(MessagingGroup)
  .prefix(managementApiPath)
  .annotateMerge(
    OpenApi.annotations({
      title: "Postern management API",
      version: "1",
      description: `Pages hold at most ${Limits.pageItems} items.`
    })
  ) {}
