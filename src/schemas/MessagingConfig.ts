/** The server's settings for messages between devices: the MQTT broker and broker services. */
import { Schema } from "effect"
import { intBetween } from "./Ids.ts"
import { Limits } from "./Limits.ts"
import { MessageRules, openRules, ruleLimits } from "./MessageRules.ts"
import { MosquittoConfig } from "./MosquittoConfig.ts"
import { setting, settingTable, unsetSetting } from "./Setting.ts"
import { TopicRoot } from "./Topics.ts"

/** `host:port`; IPv6 addresses stand in brackets. */
export const ListenPlace = Schema.String.check(
  Schema.isPattern(/^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(?:0|[1-9][0-9]{0,4})$/),
  Schema.makeFilter((text) => Number(text.slice(text.lastIndexOf(":") + 1)) <= 65_535)
)

export const MessagingConfig = settingTable(
  {
    enabled: setting(Schema.Boolean, true, {
      description:
        "Whether devices may send each other messages through this server, as agents at an MQTT broker. Without it nothing of it is loaded."
    }),
    broker: setting(Schema.Literals(["embedded", "mosquitto"]), "embedded", {
      description: "The MQTT broker: the server's own, or a Mosquitto beside it."
    }),
    listen: unsetSetting(ListenPlace, {
      description:
        "Where the server's own broker takes MQTT over plain TCP too. Devices do not need it: they reach the broker at the server's own addresses, by WebSocket.",
      form: "a host and a port, such as 127.0.0.1:1883",
      example: "127.0.0.1:1883"
    }),
    topic_root: setting(TopicRoot, "mf2c", {
      description: "What the topics of agents begin with.",
      form: "up to four levels of letters, digits, _ and -, with / between them"
    }),
    maximum_connections: setting(intBetween(1, 1_000_000), 10_000, {
      description:
        "How many agents the server's own broker serves at once. Above it, others are turned away (CONNACK 3) until there is room."
    }),
    queue_packets: setting(intBetween(100, 1_000_000), 10_000, {
      description:
        "How many messages the server's own broker keeps for an agent that is away, at most 64 MiB of them. Above it the oldest are dropped, public ones before others, and the log says how many."
    }),
    discovery_interval_ms: setting(intBetween(1_000, 86_400_000), 60_000, {
      description:
        "How often the list of agents that may be seen is published where nothing has changed; changes are published soon."
    }),
    policy: setting(MessageRules, openRules, {
      description:
        "Which agents may write to which through broker services, as a list of rules: a message is passed on where one of them permits it. `from` and `to` are names, or one `*` for any letters in them, or lists of such; `levels` are the levels it is about, all where it is left out. Without any rule nobody may write to anybody. Public messages do not go through broker services, and no rule is about them.",
      form: `a list of at most ${ruleLimits.rules} rules such as \`{ from = "sensor-*", to = ["hub", "cloud"], levels = ["private"] }\`, with names of devices, at most one \`*\` in each, and levels among protected, private and end_to_end`
    }),
    threads: unsetSetting(intBetween(1, Limits.messagingThreads), {
      description:
        "How many threads verify, open and seal messages. Default: one less than there are processors, and at least one.",
      example: 2
    }),
    mosquitto: MosquittoConfig
  },
  { description: "Messages between devices, as agents at an MQTT broker." }
)
export type MessagingConfig = typeof MessagingConfig.Type
