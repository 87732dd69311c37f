/**
 * Messages between agents, as they travel over MQTT: canonical JSON (RFC 8785), read strictly, each kind told apart by its
 * signed `type`. A signature is Ed25519 over the canonical form of all other members.
 *
 *     agent ── Message ──▶ broker services ── Delivery(Message) ──▶ agent  protected
 *     agent ── Sealed(Message) ──▶ broker services ── Sealed(Message) ──▶ agent    private
 *     agent ── Sealed(Message) ──▶ broker services ── Delivery(Sealed) ──▶ agent   end to end
 *
 * A {@link Message} is the sender's own word and stays as it is on the whole way: who receives it can prove its origin.
 */
import { Schema } from "effect"
import { labelUpTo, SigningKey, TimestampMs } from "./Ids.ts"
import { AgentName } from "./Topics.ts"

/** 128 random bits, base32. Never used twice by one sender. */
export const MessageId = Schema.String.check(Schema.isPattern(/^[a-z2-7]{26}$/)).pipe(
  Schema.brand("MessageId")
)
export type MessageId = typeof MessageId.Type

/**
 * - `protected`: signed; broker services verify and sign once more.
 * - `private`: signed and sealed to broker services, which open, verify and seal to each recipient.
 * - `end_to_end`: signed and sealed to the recipient's own key; broker services verify the outside and forward.
 */
export const SecureLevel = Schema.Literals(["protected", "private", "end_to_end"])
export type SecureLevel = typeof SecureLevel.Type

export const MessageLimits = {
  /** The body, as canonical JSON. Senders keep to it; receivers judge the whole message. */
  bodyBytes: 64 * 1024,
  /** Objects and arrays that may stand in each other in a body: what it is wrapped in must be JSON that can be read, too. */
  bodyDepth: 16,
  /** A {@link Message} with the largest body, a hundred of the longest names and the longest subject. */
  messageBytes: 72 * 1024,
  /** Anything on the wire: a message sealed and in base64, twice wrapped. */
  wireBytes: 256 * 1024,
  recipients: 100,
  lifetimeMs: 30 * 86_400_000,
  /** How far ahead a sender's clock may be of that of broker services, or a document for broker services be off either way. */
  futureMs: 60_000,
  /** How far ahead a sender's clock may be of its recipient's: both may be off, and broker services have judged it already. */
  receivedFutureMs: 10 * 60_000,
  /** Ids of one sender's device that broker services remember until they expire; beyond them it is refused. */
  seenPerSender: 100_000
} as const

export const Signature = Schema.String.check(Schema.isPattern(/^[A-Za-z0-9+/]{86}==$/))
/** A raw X25519 public key, base64 as an encoder writes it. */
export const AgreementKey = Schema.String.check(Schema.isPattern(/^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/))
/** No bits that an encoder would not have written: one box has one spelling. */
const Ciphertext = Schema.String.check(
  Schema.isMaxLength(MessageLimits.wireBytes),
  Schema.isPattern(/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$/)
)

const times = { issued_at_ms: TimestampMs, expires_at_ms: TimestampMs }

/** The sender's word. */
export const Message = Schema.Struct({
  type: Schema.Literal("postern/message/v1"),
  id: MessageId,
  level: SecureLevel,
  from: AgentName,
  /** Whom it is for. One alone where it is sealed end to end. */
  to: Schema.Array(AgentName).check(
    Schema.isMinLength(1),
    Schema.isMaxLength(MessageLimits.recipients),
    Schema.isUnique()
  ),
  ...times,
  /** What it is about, for whoever sorts messages; empty where nobody does. */
  subject: labelUpTo(128),
  body: Schema.Json,
  /** The key it is signed with. That it is the sender's is told by broker services and the signed directory. */
  signing_key: SigningKey,
  signature: Signature
})
export type Message = typeof Message.Type

/** A document for one recipient's key alone: HPKE over its canonical JSON (`crypto/Messages` says what is bound). */
export const Sealed = Schema.Struct({
  type: Schema.Literal("postern/sealed/v1"),
  id: MessageId,
  level: Schema.Literals(["private", "end_to_end"]),
  from: AgentName,
  to: AgentName,
  ...times,
  /** The raw X25519 key it is sealed to, base64: who rotates keys keeps the old one until all that names it has expired. */
  recipient_key: AgreementKey,
  /** The encapsulated key, base64. */
  enc: AgreementKey,
  ciphertext: Ciphertext,
  signing_key: SigningKey,
  signature: Signature
})
export type Sealed = typeof Sealed.Type

/** Broker services' word that they have verified what is in it, for one recipient. */
export const Delivery = Schema.Struct({
  type: Schema.Literal("postern/delivery/v1"),
  to: AgentName,
  content: Schema.Union([Message, Sealed]),
  delivered_at_ms: TimestampMs,
  signing_key: SigningKey,
  signature: Signature
})
export type Delivery = typeof Delivery.Type

/** Anybody's: neither signed nor sealed. Its sender is a claim. */
export const PublicMessage = Schema.Struct({
  type: Schema.Literal("postern/public/v1"),
  id: MessageId,
  claimed_from: AgentName,
  issued_at_ms: TimestampMs,
  subject: labelUpTo(128),
  body: Schema.Json
})
export type PublicMessage = typeof PublicMessage.Type

/** Why a message is refused. Each is counted, and shown to operators. */
export const MessageRefusal = Schema.Literals([
  "too_large",
  "malformed",
  "unknown_sender",
  "bad_signature",
  "wrong_inbox",
  "wrong_level",
  "wrong_sender",
  "wrong_recipient",
  "unknown_recipient",
  "not_permitted",
  "not_for_this_key",
  "not_opened",
  "expired",
  "from_the_future",
  "lives_too_long",
  "replayed",
  "overloaded",
  /** A connection that could not prove whose it is, or claimed a name that is another's. */
  "bad_credentials"
])
export type MessageRefusal = typeof MessageRefusal.Type
