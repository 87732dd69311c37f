/**
 * What stands in the operator's home, as schemas of its JSON files.
 *
 * @module
 */
import { Schema } from "effect"
import { HighWater } from "../../schemas/DeviceApi.ts"
import { DsseEnvelope } from "../../schemas/Dsse.ts"
import {
  Count,
  DeviceId,
  Digest,
  Incarnation,
  InvitationId,
  KeyId,
  labelUpTo,
  Name,
  OrderId,
  Recipient,
  RootVersion,
  ServerId,
  SigningKey,
  TimestampMs
} from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import { Receipt } from "../../schemas/Receipt.ts"
import { RolloutId } from "../../schemas/Rollout.ts"
import { ServerAddress } from "../../schemas/TrustRoot.ts"
import { LaneName } from "../../schemas/WorkOrder.ts"

/** `operator.json`: who this operator is; no secret in it. */
export const OperatorProfile = Schema.Struct({
  type: Schema.Literal("postern/operator/v1"),
  label: labelUpTo(Limits.labelLength),
  key_id: KeyId,
  signing_key: SigningKey,
  recipient: Recipient,
  created_at_ms: TimestampMs
})
export type OperatorProfile = typeof OperatorProfile.Type

/** A server this operator works with. The token is a secret. */
export const ServerEntry = Schema.Struct({
  address: ServerAddress,
  server: ServerId,
  token: Schema.String.check(Schema.isBetweenLength(1, 512)),
  /** The proxy it was logged in to through, as `--proxy` takes it; may hold a password. */
  proxy: Schema.optionalKey(Schema.String.check(Schema.isBetweenLength(1, 512)))
})
export type ServerEntry = typeof ServerEntry.Type

/** `servers.json`. `current` is the address used where no `--server` is given. */
export const ServerEntries = Schema.Struct({
  type: Schema.Literal("postern/servers/v1"),
  current: Schema.NullOr(ServerAddress),
  servers: Schema.Array(ServerEntry).check(Schema.isMaxLength(Limits.rootServers))
})
export type ServerEntries = typeof ServerEntries.Type

/** `devices/ID.json`: what the operator knows of a device first hand. Keys are taken from here, never from a server. */
export const DeviceRecord = Schema.Struct({
  type: Schema.Literal("postern/device-record/v1"),
  device: DeviceId,
  name: Name,
  status: Schema.Literals(["accepted", "rejected", "revoked"]),
  signing_key: SigningKey,
  recipient: Recipient,
  server: ServerId,
  incarnation: Incarnation,
  /** Sequence of the newest admission this operator signed. */
  admission_sequence: Count,
  admitted_at_ms: TimestampMs,
  /** The newest order this operator knows to be signed for the device: its own, or another operator's it has verified. */
  last_order: Schema.NullOr(Schema.Struct({ root_version: RootVersion, counter: Count, digest: Digest })),
  /** The newest receipt verified in this incarnation's chain. */
  last_receipt: Schema.NullOr(Schema.Struct({ number: Count, digest: Digest })),
  /** Version of `recipient`, where it is not the first, which the device's id names. */
  key_version: Schema.optionalKey(Count),
  /** The invitation that let it in beforehand. */
  invitation: Schema.optionalKey(InvitationId),
  /** When the device was last accepted with another ledger, or a restored one: orders from before it are void. */
  anew_at_ms: Schema.optionalKey(TimestampMs),
  /** The chain goes on in a ledger that was set back: it is taken from the first receipt that is shown. */
  chain_open: Schema.optionalKey(Schema.Boolean),
  /** The device's newest signed word of itself. */
  last_word: Schema.optionalKey(
    Schema.Struct({
      at_ms: TimestampMs,
      incarnation: Incarnation,
      high_water: Schema.NullOr(HighWater),
      last_receipt: Count
    })
  ),
  /** A receipt the device says it wrote and the server has not shown, and since when. */
  claimed: Schema.optionalKey(Schema.Struct({ last_receipt: Count, since_ms: TimestampMs }))
})
export type DeviceRecord = typeof DeviceRecord.Type

/** `invitations/ID.json`: kept until it was used or has expired. The secret never goes to a server. */
export const InvitationRecord = Schema.Struct({
  type: Schema.Literal("postern/invitation-record/v1"),
  id: InvitationId,
  secret: Schema.String,
  /** The name the device is to have, or null for the one it asks for. */
  name: Schema.NullOr(Name),
  server: ServerId,
  root_digest: Digest,
  expires_at_ms: TimestampMs
})
export type InvitationRecord = typeof InvitationRecord.Type

/** `orders/ID.json`: an order this operator signed. */
export const SentOrder = Schema.Struct({
  type: Schema.Literal("postern/sent-order/v1"),
  order: OrderId,
  device: DeviceId,
  lane: LaneName,
  counter: Count,
  digest: Digest,
  envelope: DsseEnvelope,
  /** What the package is called, for lists. */
  name: Schema.String,
  /** Whether a server took it. An order that none took is void: its counter serves again. */
  submitted: Schema.Boolean,
  deadline_at_ms: TimestampMs,
  /** The rollout it belongs to: its place lies far above the device's other orders. */
  rollout: Schema.optionalKey(RolloutId),
  /** The receipt, once it was verified here: whatever a server says later, this one counts. */
  receipt: Schema.NullOr(Schema.Struct({ digest: Digest, document: Receipt }))
})
export type SentOrder = typeof SentOrder.Type

export const operatorFile = "operator.json"
export const operatorKeyFile = "operator.key"
/** The operator's own key card, to be handed to whoever makes the next root. */
export const operatorCardFile = "operator.card"
export const serversFile = "servers.json"
export const deviceFile = (device: DeviceId): string => `devices/${device}.json`
export const invitationFile = (id: InvitationId): string => `invitations/${id}.json`
export const sentOrderFile = (order: OrderId): string => `orders/${order}.json`
export const rootFile = (version: number | "newest"): string =>
  version === "newest" ? "root.json" : `roots/${version}.json`
