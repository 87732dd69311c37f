/** How a device becomes known and accepted: public identities, enrolment requests, invitations, admissions. */
import { Schema } from "effect"
import { DsseEnvelope } from "./Dsse.ts"
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
import { OnionClientKey } from "./Onion.ts"
import { ServerAddress } from "./TrustRoot.ts"

/**
 * Where a newcomer reaches the server before it is accepted: asked for identity, roots and enrolment only, never polled.
 * Absent where the server's other addresses serve for that too.
 */
const EnrolAddresses = Schema.Array(ServerAddress).check(Schema.isMaxLength(Limits.serverAddresses))

/** The server's word for the key that its broker services sign with, which is apart from its own. */
export const BrokerServicesKey = Schema.Struct({
  type: Schema.Literal("postern/broker-services/v1"),
  server: ServerId,
  signing_key: SigningKey
})
export type BrokerServicesKey = typeof BrokerServicesKey.Type

/** A server's public half, as `postern keys init` takes it into the root. Its id is derived from the two keys. */
export const ServerIdentity = Schema.Struct({
  type: Schema.Literal("postern/server-identity/v1"),
  server: ServerId,
  signing_key: SigningKey,
  recipient: Recipient,
  addresses: Schema.Array(ServerAddress).check(Schema.isMaxLength(Limits.serverAddresses)),
  enrol_addresses: Schema.optionalKey(EnrolAddresses),
  /**
   * A {@link BrokerServicesKey} signed by the server's own key, so that whoever has compared the server's id has it from the
   * server; `brokerServicesOf` reads it. Absent where the server carries no messages.
   */
  broker_services: Schema.optionalKey(DsseEnvelope)
})
export type ServerIdentity = typeof ServerIdentity.Type

/**
 * Proof that a device holds an invitation's secret: an Ed25519 signature by the key that follows from the secret, over
 * device id, server id and root digest. The invitation's id is a digest of that key, so everybody can check the proof and only
 * who has the secret can make it.
 */
export const InvitationProof = Schema.Struct({
  id: InvitationId,
  key: SigningKey,
  signature: Schema.String.check(Schema.isPattern(/^[A-Za-z0-9+/]{86}==$/))
})
export type InvitationProof = typeof InvitationProof.Type

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
  /** With an invitation: the proof. An enrolment whose proof does not hold is no enrolment. */
  invitation: Schema.NullOr(InvitationProof),
  software: labelUpTo(64),
  issued_at_ms: TimestampMs,
  /** The key by which it may be let to the server's onion service; absent where it goes without Tor. */
  onion_key: Schema.optionalKey(OnionClientKey)
})
export type EnrolmentRequest = typeof EnrolmentRequest.Type

/** What `postern invite` prints, as `postern-invite-v1.` and base64url of this JSON. Holds a secret. */
export const Invitation = Schema.Struct({
  server: ServerId,
  addresses: Schema.Array(ServerAddress).check(
    Schema.isMinLength(1),
    Schema.isMaxLength(Limits.serverAddresses)
  ),
  enrol_addresses: Schema.optionalKey(EnrolAddresses),
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

/** Whom a pre-authorisation is for: who proves an invitation, or a device whose id is known beforehand. */
export const PreauthorisedSubject = Schema.Union([InvitationId, DeviceId])
export type PreauthorisedSubject = typeof PreauthorisedSubject.Type

/**
 * An operator's decision made beforehand: the first device that proves the invitation, or the device of this id, is
 * accepted as `name` without a further step, once, for the ledger it enrols with. It stands below every decision made
 * about the device itself.
 */
export const Preauthorisation = Schema.Struct({
  type: Schema.Literal("postern/preauthorisation/v1"),
  subject: PreauthorisedSubject,
  name: Name,
  server: ServerId,
  /** Digest of the first root: the fleet the device must have been given. */
  root_digest: Digest,
  root_version: RootVersion,
  issued_at_ms: TimestampMs,
  /** A device that comes later must be accepted by hand. */
  expires_at_ms: TimestampMs
})
export type Preauthorisation = typeof Preauthorisation.Type
