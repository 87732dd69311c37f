/**
 * What devices and server say to each other below `/api/device/v1`. Requests are signed (RFC 9421), answers carry a
 * signed statement. All paths are relative to {@link deviceApiPath}.
 *
 *     GET  /identity                        ServerIdentity                unsigned
 *     GET  /roots?from=N                    RootChain                     unsigned (the roots sign themselves)
 *     POST /enrolment   DsseEnvelope        EnrolmentAnswer               request signed by the device's own key
 *     POST /poll        PollRequest         PollAnswer                    held up to wait_ms when there is nothing
 *     GET  /payloads/DIGEST                 octets; Range: bytes=N-       bound by the digest in the order; the statement's
 *                                                                         body_digest is that of the whole payload
 *     POST /progress    ProgressReport      Acknowledged
 *     PUT  /orders/ID/output/SEQUENCE       octets (one age file)         idempotent by order and sequence
 *     PUT  /orders/ID/artifacts?offset=N&total=M   octets (a block)       idempotent by order and offset -> BlockAnswer
 *     POST /receipts    ReceiptDelivery     ReceiptAcknowledgement
 *     POST /health      HealthReport        Acknowledged
 *     GET  /messaging                       MessagingOffer                404 no_messaging where there is none
 *     GET  /mqtt                            MQTT over WebSocket           unsigned: MQTT has credentials of its own
 */
import { Effect, Schema } from "effect"
import { DegradedCodes } from "./Conditions.ts"
import { Base64, DsseEnvelope } from "./Dsse.ts"
import {
  Count,
  DeviceId,
  Digest,
  Incarnation,
  intBetween,
  LifeId,
  labelUpTo,
  OrderId,
  RootVersion,
  ServerId
} from "./Ids.ts"
import { Limits } from "./Limits.ts"
import { OnionClientKey } from "./Onion.ts"
import { BlockedCode } from "./Refusals.ts"
import { LaneName, OrderProgress } from "./WorkOrder.ts"

export const deviceApiPath = "/api/device/v1"

/** The tag of request signatures (RFC 9421). */
export const requestSignatureTag = "postern-v1"

export const RootChain = Schema.Struct({
  /** Envelopes of consecutive versions, rising, starting at the version asked for. */
  roots: Schema.Array(DsseEnvelope).check(Schema.isMaxLength(16))
})
export type RootChain = typeof RootChain.Type

/**
 * A key to the server's onion service that a group of devices shares. The secret half is an age file to the device, holding
 * {@link SharedOnionSecret}.
 */
export const SharedOnionKey = Schema.Struct({
  key: OnionClientKey,
  sealed: Base64.check(Schema.isMaxLength(Limits.sharedOnionKeyLength))
})
export type SharedOnionKey = typeof SharedOnionKey.Type

/** What is sealed in it. */
export const SharedOnionSecret = Schema.Struct({
  type: Schema.Literal("postern/shared-onion-key/v1"),
  /** For whom it was sealed, and by whom: nothing else is taken. */
  device: DeviceId,
  server: ServerId,
  /** The x25519 secret, 32 bytes. */
  secret: Schema.String.check(Schema.isPattern(/^[A-Za-z0-9+/]{43}=$/))
})
export type SharedOnionSecret = typeof SharedOnionSecret.Type

export const EnrolmentAnswer = Schema.Struct({
  status: Schema.Literals(["pending", "accepted", "rejected", "revoked"]),
  /** The operator's signed decision, once there is one. */
  admission: Schema.NullOr(DsseEnvelope),
  /** What an operator signed beforehand, where the device was accepted by that. */
  preauthorisation: Schema.NullOr(DsseEnvelope),
  /** For an accepted device that shares a key to the onion service with others. */
  onion_shared: Schema.optionalKey(SharedOnionKey)
})
export type EnrolmentAnswer = typeof EnrolmentAnswer.Type

/** Where in the sequence the device stands: the last order it accepted. Null before the first. */
export const HighWater = Schema.Struct({
  root_version: RootVersion,
  counter: Count,
  order_digest: Digest
})
export type HighWater = typeof HighWater.Type

export const PollRequest = Schema.Struct({
  incarnation: Incarnation,
  /** Random name of this life of the program, and which poll of it this is: a copy of the device shows by them. */
  life: LifeId,
  turn: Count,
  /** The device's word for its operators: a {@link DeviceStatement}. */
  statement: DsseEnvelope,
  root_version: RootVersion,
  admission_sequence: Count,
  high_water: Schema.NullOr(HighWater),
  /** Number of the last receipt written (0: none). */
  last_receipt: Count,
  /** Lanes that can take an order now. */
  free_lanes: Schema.Array(LaneName).check(Schema.isMaxLength(4), Schema.isUnique()),
  /** Orders the device is busy with, and how far. */
  active: Schema.Array(OrderProgress).check(Schema.isMaxLength(Limits.pollActive)),
  /** Cancels seen and kept, so that the server stops sending them. */
  cancels_seen: Schema.Array(OrderId).check(Schema.isMaxLength(Limits.pollCancels)),
  /** Why it takes no orders at the moment, or null. */
  blocked: Schema.NullOr(BlockedCode),
  /** What is weaker on the device than it should be. */
  degraded: DegradedCodes.pipe(Schema.withDecodingDefault(Effect.succeed([]))),
  /** How long the server may hold the request when it has nothing. 0: answer at once. */
  wait_ms: intBetween(0, Limits.longPollMs),
  /** The shared key to the onion service that it holds, if any. */
  onion_held: Schema.optionalKey(OnionClientKey)
})
export type PollRequest = typeof PollRequest.Type

/** What the server may hold against a device. */
export const Objection = Schema.Literals(["ledger_rolled_back", "cloned", "not_enrolled"])
export type Objection = typeof Objection.Type

export const PollAnswer = Schema.Struct({
  /** Order envelopes for the free lanes, lowest counter first. */
  orders: Schema.Array(DsseEnvelope).check(Schema.isMaxLength(Limits.pollOrders)),
  /** Signed cancels. */
  cancels: Schema.Array(DsseEnvelope).check(Schema.isMaxLength(Limits.pollCancels)),
  /** Orders the server asks to stop on its own account, unsigned by an operator: these can stop, never start work. */
  stops: Schema.Array(OrderId).check(Schema.isMaxLength(Limits.pollCancels)),
  /** A decision about the device that is newer than the one it named. */
  admission: Schema.NullOr(DsseEnvelope),
  /** What the server holds against the device, or null: it must take no orders until an operator mends it. */
  objection: Schema.NullOr(Objection),
  /** How long to sleep before the next poll; the device clamps it. */
  sleep_ms: intBetween(0, Limits.pollSleepMaximumMs),
  /** The shared key to the onion service, where the device does not hold it. */
  onion_shared: Schema.optionalKey(SharedOnionKey)
})
export type PollAnswer = typeof PollAnswer.Type

export const ProgressReport = Schema.Struct({
  events: Schema.Array(OrderProgress).check(Schema.isMinLength(1), Schema.isMaxLength(Limits.progressEvents))
})
export type ProgressReport = typeof ProgressReport.Type

export const Acknowledged = Schema.Struct({ ok: Schema.Literal(true) })

/** How many bytes of the artifacts the server has now; the device goes on from there. */
export const BlockAnswer = Schema.Struct({ received_bytes: Count })
export type BlockAnswer = typeof BlockAnswer.Type

export const ReceiptDelivery = Schema.Struct({
  receipts: Schema.Array(DsseEnvelope).check(
    Schema.isMinLength(1),
    Schema.isMaxLength(Limits.receiptsPerRequest)
  )
})
export type ReceiptDelivery = typeof ReceiptDelivery.Type

/** Names each receipt that is now durable on the server, by number and digest of its payload. */
export const ReceiptAcknowledgement = Schema.Struct({
  acknowledged: Schema.Array(Schema.Struct({ number: Count, digest: Digest })).check(
    Schema.isMaxLength(Limits.receiptsPerRequest)
  )
})
export type ReceiptAcknowledgement = typeof ReceiptAcknowledgement.Type

/** Codes of a refused request; the answer's body. */
export const DeviceApiErrorCode = Schema.Literals([
  "bad_request",
  "bad_signature",
  "wrong_authority",
  "clock_skew",
  "replayed_nonce",
  "unknown_device",
  "not_accepted",
  "revoked",
  "no_root",
  "not_found",
  "conflict",
  "too_large",
  "gone",
  "no_messaging",
  "overloaded",
  "internal"
])
export type DeviceApiErrorCode = typeof DeviceApiErrorCode.Type

export const DeviceApiErrorBody = Schema.Struct({
  error: DeviceApiErrorCode,
  message: labelUpTo(500)
})
export type DeviceApiErrorBody = typeof DeviceApiErrorBody.Type
