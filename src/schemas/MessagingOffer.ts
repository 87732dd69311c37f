/**
 * Where and how a device reaches the MQTT broker as an agent: what the server answers at `GET /messaging` of the device
 * API. Asked before each connection, since any of it may have changed.
 */
import { Schema } from "effect"
import { deviceApiPath } from "./DeviceApi.ts"
import { TopicRoot } from "./Topics.ts"

/** Where MQTT over WebSocket is spoken on the server's own HTTP doors. */
export const mqttPath = `${deviceApiPath}/mqtt`

/** A broker of its own (`mqtts://host:port`), or {@link mqttPath} at whichever address of the server the device uses now. */
export const BrokerUrl = Schema.String.check(
  Schema.isMaxLength(300),
  Schema.isPattern(/^(?:\/api\/device\/v1\/mqtt|(?:mqtts?|wss?):\/\/[^\s/@?#]+(?:\/[^\s@?#]*)?)$/)
)

/** One way to the broker. */
export const OfferedBroker = Schema.Struct({
  url: BrokerUrl,
  /** The version of MQTT: 3.1.1 (4) or 5. */
  mqtt: Schema.Literals([4, 5]),
  /** Certificates (PEM) that its TLS must be vouched for by; null: those the device trusts anyway. */
  ca: Schema.NullOr(Schema.String.check(Schema.isMaxLength(64 * 1024)))
})
export type OfferedBroker = typeof OfferedBroker.Type

export const MessagingOffer = Schema.Struct({
  type: Schema.Literal("postern/messaging-offer/v1"),
  topic_root: TopicRoot,
  /** Best first. */
  brokers: Schema.Array(OfferedBroker).check(Schema.isMinLength(1), Schema.isMaxLength(8)),
  /** Null: a `ConnectProof`, made anew for each connection, is the password. */
  password: Schema.NullOr(Schema.String.check(Schema.isMinLength(1), Schema.isMaxLength(200)))
})
export type MessagingOffer = typeof MessagingOffer.Type
