/** The server's settings for a Mosquitto in the place of its own MQTT broker. `postern broker mosquitto-config` makes both sides. */
import { Schema } from "effect"
import { setting, settingTable, unsetSetting } from "./Setting.ts"

/** `mqtts://host:port`, or `mqtt://` on the machine itself: passwords travel in the clear there. */
export const MosquittoAddress = Schema.String.check(
  Schema.isMaxLength(300),
  Schema.isPattern(
    /^(?:mqtts:\/\/(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)|mqtt:\/\/(?:127(?:\.[0-9]{1,3}){3}|localhost|\[::1\]))(?::[1-9][0-9]{0,4})?$/
  )
)

/** Where Mosquitto has the name and password of broker services from. */
export const MosquittoConfig = settingTable(
  {
    address: unsetSetting(MosquittoAddress, {
      description: "Where the server reaches Mosquitto. Without TLS only on this machine.",
      form: "an address as mqtts://HOST:PORT, or mqtt://127.0.0.1:PORT",
      example: "mqtts://broker.example:8883"
    }),
    agents_address: unsetSetting(MosquittoAddress, {
      description: "Where devices reach Mosquitto, if elsewhere than the server does. Default: `address`.",
      form: "an address as mqtts://HOST:PORT, or mqtt://127.0.0.1:PORT",
      example: "mqtts://broker.example:8883"
    }),
    ca_file: unsetSetting(Schema.NonEmptyString, {
      description:
        "Certificates (PEM) that Mosquitto's own must be vouched for by; devices are told them too. Default: those that this machine trusts.",
      form: "a file's path",
      example: "/etc/postern/mosquitto/ca.crt"
    }),
    user: setting(Schema.NonEmptyString.check(Schema.isMaxLength(64)), "broker-services", {
      description: "The user name of broker services at Mosquitto."
    }),
    password_file: unsetSetting(Schema.NonEmptyString, {
      description: "A file with their password there, readable for its owner alone.",
      form: "a file's path",
      example: "/etc/postern/mosquitto/broker-services.password"
    }),
    mqtt: setting(Schema.Literals([4, 5]), 5, {
      description: "Which MQTT devices speak with Mosquitto: 3.1.1 (4) or 5."
    })
  },
  {
    description:
      'The Mosquitto, where `messaging.broker` is "mosquitto". `postern broker mosquitto-config` makes its files and these settings.'
  }
)
export type MosquittoConfig = typeof MosquittoConfig.Type
