/** How a device becomes known and accepted: public identities, enrolment requests, invitations, admissions. */
import { Schema } from "effect"
import {
  DeviceId,
  Digest,
  Incarnation,
  InvitationId,
  labelUpTo,
  Name,
  Recipient,
  RootVersion,
  ServerId,
  SigningKey,
  TimestampMs
} from "./Ids.ts"
import { Limits } from "./Limits.ts"
import { ServerAddress } from "./TrustRoot.ts"

/** A server's public half, as `postern keys init` takes it into the root. Its id is derived from the two keys. */
export const ServerIdentity = Schema.Struct({
  type: Schema.Literal("postern/server-identity/v1"),
  server: ServerId,
  signing_key: SigningKey,
  recipient: Recipient,
  addresses: Schema.Array(ServerAddress).check(Schema.isMaxLength(Limits.serverAddresses))
})
export type ServerIdentity = typeof ServerIdentity.Type

/** HMAC-SHA256 as 64 hexadecimal digits. */
export const Mac = Schema.String.check(Schema.isPattern(/^[0-9a-f]{64}$/))

/** What a device says of itself when it asks to be let in; signed by its own key. */
export const EnrolmentRequest = Schema.Struct({
  type: Schema.Literal("postern/enrolment/v1"),
  device: DeviceId,
  /** The name it would like; the operator gives the final one. */
  name: Schema.NullOr(Name),
  signing_key: SigningKey,
  recipient: Recipient,
  server: ServerId,
  /** Digest of the root payload (version 1) the device was given: the claim code binds it. */
  root_digest: Digest,
  incarnation: Incarnation,
  /**
   * With an invitation: its public id, and HMAC-SHA256 under its secret over device id, server id and root digest. The
   * server knows the id only; the operator who made the invitation checks the proof.
   */
  invitation: Schema.NullOr(Schema.Struct({ id: InvitationId, proof: Mac })),
  software: labelUpTo(64),
  issued_at_ms: TimestampMs
})
export type EnrolmentRequest = typeof EnrolmentRequest.Type

/** What `postern invite` prints, as `postern-invite-v1.` and base64url of this JSON. Holds a secret. */
export const Invitation = Schema.Struct({
  server: ServerId,
  addresses: Schema.Array(ServerAddress).check(
    Schema.isMinLength(1),
    Schema.isMaxLength(Limits.serverAddresses)
  ),
  root_digest: Digest,
  /** 160 bits, base32. */
  secret: Schema.String.check(Schema.isPattern(/^[a-z2-7]{32}$/)),
  expires_at_ms: TimestampMs
})
export type Invitation = typeof Invitation.Type

/** An operator's decision about a device. Device and server obey only what the operators role signed. */
export const Admission = Schema.Struct({
  type: Schema.Literal("postern/admission/v1"),
  decision: Schema.Literals(["accept", "reject", "revoke"]),
  device: DeviceId,
  name: Name,
  signing_key: SigningKey,
  recipient: Recipient,
  server: ServerId,
  /** The ledger this acceptance is for; another one needs another acceptance. */
  incarnation: Incarnation,
  root_version: RootVersion,
  /** Rises with every decision about this device; a lower one is refused. */
  sequence: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER })),
  issued_at_ms: TimestampMs
})
export type Admission = typeof Admission.Type
