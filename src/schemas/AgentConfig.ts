/** A device's settings for messages: whether it is an agent, and how. */
import { Schema } from "effect"
import { BrokerUrl } from "./MessagingOffer.ts"
import { setting, settingTable, unsetSetting } from "./Setting.ts"

/** No path at the server's own address: that is what is taken where nothing is named. */
const OwnBroker = BrokerUrl.check(
  Schema.isPattern(/^(?:mqtts?|wss?):\/\//),
  Schema.makeFilter((text) => URL.canParse(text) || "it is no URL")
)

export const AgentConfig = settingTable(
  {
    enabled: setting(Schema.Boolean, true, {
      description:
        "Whether the device sends and takes messages as an agent, where its server has messaging and its trust root names broker services. Until then nothing of it is loaded."
    }),
    visible: setting(Schema.Boolean, false, {
      description:
        "Whether broker services name the device, with the keys that others seal to, in the list that every agent reads. Messages reach it either way; end-to-end messages need that list."
    }),
    broker: unsetSetting(OwnBroker, {
      description:
        "The MQTT broker to take instead of the one that the server offers: the same broker under another address, as where a proxy or a port stands between.",
      form: "a URL with mqtt, mqtts, ws or wss",
      fallback: "the server's offer",
      example: "mqtts://broker.example:8883"
    }),
    mqtt: setting(Schema.Literals([4, 5]), 4, {
      description:
        "The version of MQTT that agent.broker is spoken to in: 4 is 3.1.1. The server's own speaks 3.1.1."
    }),
    ca_file: unsetSetting(Schema.String, {
      description: "The certificates (PEM) that must vouch for agent.broker.",
      form: "a file's path",
      fallback: "those that Node trusts",
      example: "/etc/postern/broker-ca.pem"
    })
  },
  { description: "Messages from and to this device, as an agent." }
)
export type AgentConfig = typeof AgentConfig.Type
