/** The port `MessageBus` at the broker that the device's server offers, or at one that the device's owner names. */
import { readFileSync } from "node:fs"
import { Effect } from "effect"
import { DeviceClock } from "../../ports/DeviceClock.ts"
import { BusError, type MessageBus } from "../../ports/MessageBus.ts"
import { type LinkError, ServerLink } from "../../ports/ServerLink.ts"
import type { AgentConfig } from "../../schemas/AgentConfig.ts"
import type { OfferedBroker } from "../../schemas/MessagingOffer.ts"
import { errorText } from "../files/AtomicFile.ts"
import type { Connections } from "../net/Connections.ts"
import { dialBroker } from "./BrokerDial.ts"
import { mqttBus } from "./MqttBus.ts"

export interface OfferedBusOptions {
  readonly connections: Connections
  readonly settings: Pick<AgentConfig, "broker" | "mqtt" | "ca_file">
}

/** What the server's refusal, or its silence, means for the agent. */
const busErrorOf = (error: LinkError): BusError => {
  if (error._tag !== "ServerRefused") return new BusError({ code: "unreachable", reason: error.message })
  const { code, message } = error
  if (code === "no_messaging" || code === "not_found")
    return new BusError({ code: "none", reason: `the server has no messaging: ${message}` })
  return new BusError({ code: "refused", reason: `the server tells of none (${code}): ${message}` })
}

const readCertificates = (path: string | null): Effect.Effect<string | null, BusError> =>
  path === null
    ? Effect.succeed(null)
    : Effect.try({
        try: () => readFileSync(path, "utf8"),
        catch: (error) =>
          new BusError({ code: "unreachable", reason: `agent.ca_file cannot be read: ${errorText(error)}` })
      })

/** Asks the server before each connection: any of it may have changed. */
export const offeredBus = ({ connections, settings }: OfferedBusOptions) =>
  Effect.gen(function* () {
    const link = yield* ServerLink
    const clock = yield* DeviceClock
    const own = Effect.fnUntraced(function* (url: string) {
      return [{ url, mqtt: settings.mqtt, ca: yield* readCertificates(settings.ca_file) }]
    })
    const find = Effect.gen(function* () {
      const { body, serverTimeMs } = yield* Effect.mapError(link.messaging, busErrorOf)
      yield* clock.accept(serverTimeMs)
      const brokers: ReadonlyArray<OfferedBroker> =
        settings.broker === null ? body.brokers : yield* own(settings.broker)
      return {
        topicRoot: body.topic_root,
        password: body.password,
        brokers: brokers.map((broker) => ({ mqtt: broker.mqtt, dial: dialBroker(connections, broker) }))
      }
    })
    return mqttBus({ find }) satisfies MessageBus["Service"]
  })
