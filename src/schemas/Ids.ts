/**
 * Identifiers, digests, keys and times as they stand on the wire. All are plain strings or integers; the brands keep
 * one kind from being taken for another.
 */
import { Schema } from "effect"

/** `dev_` and 52 characters of base32 (RFC 4648, lower case): SHA-256 over tag, Ed25519 key and first X25519 key. */
export const DeviceId = Schema.String.check(
  Schema.isPattern(/^dev_[a-z2-7]{52}$/, { expected: "a device's whole id, dev_ and 52 characters" })
).pipe(Schema.brand("DeviceId"))
export type DeviceId = typeof DeviceId.Type

/** Like {@link DeviceId}, for a server. */
export const ServerId = Schema.String.check(Schema.isPattern(/^srv_[a-z2-7]{52}$/)).pipe(
  Schema.brand("ServerId")
)
export type ServerId = typeof ServerId.Type

/** Like {@link DeviceId}, for the keys of a server's broker services. */
export const ServicesId = Schema.String.check(Schema.isPattern(/^svc_[a-z2-7]{52}$/)).pipe(
  Schema.brand("ServicesId")
)
export type ServicesId = typeof ServicesId.Type

/** `key_` and base32 of SHA-256 over a tag and an Ed25519 public key: how a role or a signature names a key. */
export const KeyId = Schema.String.check(Schema.isPattern(/^key_[a-z2-7]{52}$/)).pipe(Schema.brand("KeyId"))
export type KeyId = typeof KeyId.Type

/** A work order's id: UUID version 7, lower case. */
export const OrderId = Schema.String.check(
  Schema.isPattern(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
).pipe(Schema.brand("OrderId"))
export type OrderId = typeof OrderId.Type

/** An invitation's public id: base32 of SHA-256 over a tag and its secret, so the id reveals nothing of the secret. */
export const InvitationId = Schema.String.check(Schema.isPattern(/^inv_[a-z2-7]{52}$/)).pipe(
  Schema.brand("InvitationId")
)
export type InvitationId = typeof InvitationId.Type

/** Random identity of one ledger database; a restored backup or a cloned card is told apart by it. 128 bits, base32. */
export const Incarnation = Schema.String.check(Schema.isPattern(/^[a-z2-7]{26}$/)).pipe(
  Schema.brand("Incarnation")
)
export type Incarnation = typeof Incarnation.Type

/** Random name of one life of a device's program. 128 bits, base32. */
export const LifeId = Schema.String.check(Schema.isPattern(/^[a-z2-7]{26}$/)).pipe(Schema.brand("LifeId"))
export type LifeId = typeof LifeId.Type

/** `sha256:` and 64 hexadecimal digits, lower case. */
export const Digest = Schema.String.check(Schema.isPattern(/^sha256:[0-9a-f]{64}$/)).pipe(
  Schema.brand("Digest")
)
export type Digest = typeof Digest.Type

/** Name of a device, agent or operator. `broker-services` is reserved. */
export const Name = Schema.String.check(
  Schema.isPattern(/^(?!broker-services$)[a-z0-9][a-z0-9-]{0,62}$/, {
    expected: "1 to 63 small letters, digits and dashes, with no dash first"
  })
).pipe(Schema.brand("Name"))
export type Name = typeof Name.Type

/** A raw 32-byte Ed25519 public key in standard base64 with padding. That it is a good point is checked where it is used. */
export const SigningKey = Schema.String.check(Schema.isPattern(/^[A-Za-z0-9+/]{43}=$/)).pipe(
  Schema.brand("SigningKey")
)
export type SigningKey = typeof SigningKey.Type

/** An age X25519 recipient (`age1…`, bech32). That it decodes is checked where it is used. */
export const Recipient = Schema.String.check(Schema.isPattern(/^age1[02-9ac-hj-np-z]{58}$/)).pipe(
  Schema.brand("Recipient")
)
export type Recipient = typeof Recipient.Type

/** A request nonce: 128 bits, base32. */
export const Nonce = Schema.String.check(Schema.isPattern(/^[a-z2-7]{26}$/)).pipe(Schema.brand("Nonce"))
export type Nonce = typeof Nonce.Type

/** Milliseconds since the Unix epoch, as a safe integer. */
export const TimestampMs = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 8_640_000_000_000_000 }))
export type TimestampMs = number

/** A whole number of bytes, milliseconds, entries … from 0. */
export const Count = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }))

/** A whole number from `minimum` to `maximum`. */
export const intBetween = (minimum: number, maximum: number) =>
  Schema.Int.check(Schema.isBetween({ minimum, maximum }))

/** A string of at most `maximum` characters without control characters: a label a person may read. */
export const labelUpTo = (maximum: number) =>
  Schema.String.check(Schema.isMaxLength(maximum), Schema.isPattern(/^[^\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]*$/u))

/** The version of a trust root, from 1. */
export const RootVersion = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 2 ** 31 }))
