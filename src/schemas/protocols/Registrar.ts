/** Who belongs to the fleet: roots, invitations, enrolments, admissions. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { EnrolmentAnswer } from "../DeviceApi.ts"
import { DsseEnvelope } from "../Dsse.ts"
import { DeviceId, InvitationId, TimestampMs } from "../Ids.ts"
import { Conflict, NotFound, Refused, Unavailable } from "../ManagementApi.ts"

/** The server has no trust root yet, and so no operators who could decide. */
export class NoRoot extends Schema.TaggedError<NoRoot>()("NoRoot", {}) {
  override get message(): string {
    return "the server has no trust root yet: an operator must publish one"
  }
}

/** Too many devices wait already, or the fleet has its maximum. */
export class EnrolmentFull extends Schema.TaggedError<EnrolmentFull>()("EnrolmentFull", {}) {
  override get message(): string {
    return "too many devices ask to be let in: try again later, or use an invitation"
  }
}

export const RegistrarProtocol = RpcGroup.make(
  /** A request as it came; `device` is whose key signed the HTTP request. */
  Rpc.make("Enrol", {
    payload: { device: DeviceId, envelope: DsseEnvelope },
    success: EnrolmentAnswer,
    error: Schema.Union([NoRoot, EnrolmentFull, Refused, Conflict, Unavailable])
  }),
  Rpc.make("Admit", {
    payload: { device: DeviceId, envelope: DsseEnvelope, actor: Schema.String },
    error: Schema.Union([NotFound, Refused, Conflict, Unavailable])
  }),
  /** An acceptance signed beforehand, for whoever proves an invitation or for a device id. */
  Rpc.make("Preauthorise", {
    payload: { envelope: DsseEnvelope, actor: Schema.String },
    error: Schema.Union([Refused, Conflict, Unavailable])
  }),
  Rpc.make("Invite", {
    payload: { id: InvitationId, expires_at_ms: TimestampMs, actor: Schema.String },
    error: Schema.Union([Refused, Unavailable])
  }),
  Rpc.make("PublishRoot", {
    payload: { envelope: DsseEnvelope, actor: Schema.String },
    error: Schema.Union([Refused, Conflict, Unavailable])
  })
)
