/** The brokers that messaging is tested over. */
import { Effect, type Scope } from "effect"
import {
  type Agent,
  type AgentOptions,
  type Fleet,
  type Services,
  type ServicesOptions,
  startAgent,
  startServices,
  until
} from "./messaging.ts"
import { type RealMosquitto, realMosquitto } from "./mosquitto.ts"
import type { Part } from "./requires.ts"

/** Broker services over one broker, in a folder, and agents that reach them. */
export interface Messaging {
  readonly services: Services
  readonly agent: (name: string, options?: AgentOptions) => ReturnType<typeof startAgent>
  /** One that has no right to the name, and tries. */
  readonly impostor: (own: Fleet, name: string) => ReturnType<typeof startAgent>
  /** The password of an agent; null where its proof is the password. */
  readonly passwordOf: (name: string) => Effect.Effect<string | null>
  /** Null where the broker is the server's own. */
  readonly mosquitto: RealMosquitto | null
}

export interface BrokerKind {
  readonly name: string
  readonly parts: ReadonlyArray<Part>
  /** Whether one who is not accepted can come at all. */
  readonly takesStrangers: boolean
  readonly open: (
    fleet: Fleet,
    path: string,
    options?: ServicesOptions
  ) => Effect.Effect<Messaging, unknown, Scope.Scope>
}

export const embedded: BrokerKind = {
  name: "the embedded broker",
  parts: [],
  takesStrangers: true,
  open: (fleet, path, options) =>
    Effect.map(startServices(fleet, path, options), (services): Messaging => {
      const { address } = services
      return {
        services,
        agent: (name, more) => startAgent(fleet, name, address, path, more),
        impostor: (own, name) => startAgent(own, name, address, path),
        passwordOf: () => Effect.succeed(null),
        mosquitto: null
      }
    })
}

const overMosquitto = (name: string, mqtt: 4 | 5, tls: boolean): BrokerKind => ({
  name,
  parts: tls ? ["mosquitto", "openssl"] : ["mosquitto"],
  takesStrangers: false,
  open: (fleet, path, options = {}) =>
    Effect.gen(function* () {
      const { topicRoot = "mf2c" } = options
      const mosquitto = yield* realMosquitto(path, {
        tls,
        topicRoot,
        queuePackets: options.queuePackets ?? 10_000
      })
      const services = yield* startServices(fleet, path, {
        ...options,
        broker: (parts) => mosquitto.broker(parts)
      })
      const { address } = services
      const start = (of: Fleet, name: string, find: AgentOptions["find"], more: AgentOptions = {}) =>
        startAgent(of, name, address, path, { topicRoot, ...more, ...(find === undefined ? {} : { find }) })
      return {
        services,
        agent: (name, more) => start(fleet, name, mosquitto.find(services, fleet, name, mqtt), more),
        impostor: (own, name) =>
          start(
            own,
            name,
            Effect.succeed({ topicRoot, password: "guessed", brokers: [{ mqtt, dial: mosquitto.dial() }] })
          ),
        passwordOf: (name) =>
          until(
            `the password of ${name}`,
            Effect.match(mosquitto.find(services, fleet, name, mqtt), {
              onFailure: () => undefined,
              onSuccess: ({ password }) => password ?? undefined
            })
          ).pipe(Effect.orElseSucceed(() => null)),
        mosquitto
      }
    })
})

export const mosquitto3 = overMosquitto("Mosquitto, MQTT 3.1.1", 4, false)
export const mosquitto5 = overMosquitto("Mosquitto, MQTT 5 and TLS", 5, true)

export const brokerKinds: ReadonlyArray<BrokerKind> = [embedded, mosquitto3, mosquitto5]

export type { Agent }
