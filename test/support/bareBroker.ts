/** A broker of either kind without broker services behind it, and plain MQTT clients. */
import { join } from "node:path"
import { Effect, type Scope } from "effect"
import mqtt, { type MqttClient } from "mqtt"
import { embeddedBroker } from "../../src/adapters/mqtt/EmbeddedBroker.ts"
import { MqttUpgrades } from "../../src/adapters/mqtt/MqttUpgrades.ts"
import { openInProcess } from "../../src/adapters/sqlite/InProcessDatabase.ts"
import { messagesDatabase } from "../../src/adapters/sqlite/messages/MessagesDatabase.ts"
import type { AgentBook } from "../../src/ports/AgentBook.ts"
import type { BrokerHandlers, OpenBroker, Publication } from "../../src/ports/MessageBroker.ts"
import type { DeviceId, Name } from "../../src/schemas/Ids.ts"
import { Fleet, until } from "./messaging.ts"
import { type RealMosquitto, realMosquitto } from "./mosquitto.ts"
import type { Part } from "./requires.ts"

export const root = "mf2c"

/** What a broker has told. */
export class Told {
  readonly received: Array<Publication> = []
  readonly refused: Array<string> = []
  readonly presence: Array<string> = []
  readonly handlers: BrokerHandlers = {
    authenticate: (_name, password) =>
      Effect.succeed(new TextDecoder().decode(password) === "agent" ? "agent" : null),
    received: (publication) => Effect.sync(() => void this.received.push(publication)),
    presence: (name, connected) => Effect.sync(() => void this.presence.push(`${name} ${connected}`)),
    refused: (name, reason) => Effect.sync(() => void this.refused.push(`${name} ${reason}`))
  }
}

export interface BareBroker {
  readonly broker: OpenBroker
  readonly told: Told
  readonly fleet: Fleet
  readonly mosquitto: RealMosquitto | null
  /** An agent's client, with the password it must come with. `heard` is told what comes, from the first packet on. */
  readonly client: (name: string, heard?: Heard) => Effect.Effect<MqttClient, unknown, Scope.Scope>
}

export type Heard = (topic: string, text: string) => void

export interface BareOptions {
  /** How much a session's queue holds. */
  readonly queuePackets?: number
}

export interface BareKind {
  readonly name: string
  readonly parts: ReadonlyArray<Part>
  readonly open: (path: string, options?: BareOptions) => Effect.Effect<BareBroker, unknown, Scope.Scope>
}

/** Ends with the scope. */
export const clientOf = (address: string, options: mqtt.IClientOptions, heard: Heard = () => undefined) =>
  Effect.acquireRelease(
    Effect.tryPromise(
      () =>
        new Promise<MqttClient>((done, fail) => {
          const client = mqtt.connect(address, { reconnectPeriod: 0, ...options })
          client.on("message", (topic, payload) => heard(topic, payload.toString()))
          client.on("error", fail)
          client.once("close", () => fail(new Error("the connection was closed")))
          client.once("connect", () => done(client))
        })
    ),
    (client) => Effect.promise(() => client.endAsync(true))
  )

const emptyBook: AgentBook["Service"] = {
  get: () => undefined,
  all: () => [],
  set: () => undefined,
  delete: () => undefined
}

const openDatabase = (path: string) => openInProcess(messagesDatabase, join(path, "messages.db"))

const sessionOf = (mqtt: 4 | 5): mqtt.IClientOptions => ({
  clean: false,
  protocolVersion: mqtt,
  ...(mqtt === 5 ? { properties: { sessionExpiryInterval: 3_600 } } : {})
})

const embedded: BareKind = {
  name: "the embedded broker",
  parts: [],
  open: (path, { queuePackets = 1_000 } = {}) =>
    Effect.gen(function* () {
      const told = new Told()
      const broker = yield* embeddedBroker({
        listen: { host: "127.0.0.1", port: 0 },
        upgrades: new MqttUpgrades(),
        topicRoot: root,
        maximumConnections: 50,
        queuePackets,
        database: yield* openDatabase(path)
      })(told.handlers)
      return {
        broker,
        told,
        fleet: new Fleet(),
        mosquitto: null,
        client: (name, heard) =>
          clientOf(
            broker.addresses[0] as string,
            { ...sessionOf(4), clientId: name, username: name, password: "agent" },
            heard
          )
      } satisfies BareBroker
    })
}

const overMosquitto = (version: 4 | 5): BareKind => ({
  name: `Mosquitto, MQTT ${version === 4 ? "3.1.1" : "5"}`,
  parts: ["mosquitto"],
  open: (path, options = {}) =>
    Effect.gen(function* () {
      const told = new Told()
      const fleet = new Fleet()
      const mosquitto = yield* realMosquitto(path, options)
      const database = yield* openDatabase(path)
      const parts = { fleet, topicRoot: root, database, book: emptyBook }
      const broker = yield* mosquitto.broker(parts)(told.handlers)
      const passwordOf = (name: string) => {
        if (!fleet.rings.has(name)) fleet.add(name)
        return broker.passwordFor(name as Name, fleet.ring(name).id as DeviceId)
      }
      yield* until(
        "Mosquitto's services",
        Effect.orElseSucceed(passwordOf("nobody"), () => undefined)
      )
      return {
        broker,
        told,
        fleet,
        mosquitto,
        client: (name, heard) =>
          Effect.flatMap(passwordOf(name), (password) =>
            clientOf(
              mosquitto.address,
              { ...sessionOf(version), clientId: name, username: name, password: password as string },
              heard
            )
          )
      } satisfies BareBroker
    })
})

export const bareKinds: ReadonlyArray<BareKind> = [embedded, overMosquitto(4), overMosquitto(5)]
