/** A Mosquitto in the place of the server's own broker, as the settings name it. */
import { readFileSync } from "node:fs"
import { Effect, Layer } from "effect"
import { errorText, readPrivateFile } from "../../adapters/files/AtomicFile.ts"
import type { MessagingOfferOf } from "../../adapters/http/DeviceEndpoints.ts"
import { refuse } from "../../adapters/http/DeviceRefusal.ts"
import { MessagesHost } from "../../adapters/sqlite/SqliteMessageStore.ts"
import { AgentBook } from "../../ports/AgentBook.ts"
import { Entropy } from "../../ports/Entropy.ts"
import { FleetStore } from "../../ports/FleetStore.ts"
import { BrokerError, MessageBroker } from "../../ports/MessageBroker.ts"
import type { Name } from "../../schemas/Ids.ts"
import type { MosquittoConfig } from "../../schemas/MosquittoConfig.ts"
import { brokerAnswer } from "../../schemas/protocols/BrokerKeeper.ts"
import type { ServerConfig } from "../../schemas/ServerConfig.ts"

const passwordFileBytes = 4_096
/** As much as an offer may carry. */
const caBytes = 64 * 1024
const passwordTimeoutMs = 20_000

const advice = "postern broker mosquitto-config makes these files and settings"

const fail = (reason: string) => new BrokerError({ reason })

const required = (value: string | null, key: keyof MosquittoConfig) =>
  value === null
    ? Effect.fail(
        fail(`messaging.broker is "mosquitto", and messaging.mosquitto.${key} is not set: ${advice}`)
      )
    : Effect.succeed(value)

const reading = (path: string, key: keyof MosquittoConfig, read: () => Uint8Array | undefined) =>
  Effect.try({
    try: read,
    catch: (error) => fail(`messaging.mosquitto.${key}: ${errorText(error)}`)
  }).pipe(
    Effect.flatMap((bytes) =>
      bytes === undefined
        ? Effect.fail(fail(`messaging.mosquitto.${key}: there is no file ${path}: ${advice}`))
        : Effect.succeed(new TextDecoder().decode(bytes))
    )
  )

/** The certificates that agents are told to trust; null where they trust those of their own system. */
const certificatesOf = ({ ca_file: path }: MosquittoConfig) =>
  path === null
    ? Effect.succeed(null)
    : Effect.filterOrFail(
        reading(path, "ca_file", () => readFileSync(path)),
        (text) => text.length <= caBytes && text.includes("-----BEGIN CERTIFICATE-----"),
        () =>
          fail(
            `messaging.mosquitto.ca_file: ${path} holds no certificates in PEM, or more than ${caBytes} bytes`
          )
      )

/** Mosquitto's client, loaded only here: nobody else needs its code. */
export const MosquittoBrokerOf = ({ messaging }: Pick<ServerConfig, "messaging">) =>
  Layer.effect(
    MessageBroker,
    Effect.gen(function* () {
      const settings = messaging.mosquitto
      const address = yield* required(settings.address, "address")
      const passwordFile = yield* required(settings.password_file, "password_file")
      const password = yield* reading(passwordFile, "password_file", () =>
        readPrivateFile(passwordFile, passwordFileBytes)
      )
      const ca = yield* certificatesOf(settings)
      const database = yield* MessagesHost
      const book = yield* AgentBook
      const fleet = yield* FleetStore
      const entropy = yield* Entropy
      const { mosquittoBroker } = yield* Effect.promise(
        () => import("../../adapters/mosquitto/MosquittoBroker.ts")
      )
      return {
        open: mosquittoBroker({
          address,
          agentsAddress: settings.agents_address ?? address,
          ca,
          user: settings.user,
          password: password.trimEnd(),
          topicRoot: messaging.topic_root,
          database,
          book,
          entropy: entropy.bytes,
          isAgent: (agent, device) =>
            Effect.map(fleet.deviceNamed(agent as Name), (row) => row?.device === device)
        })
      }
    })
  )

/** How accepted devices reach it: with a password of their own. */
export const mosquittoOffer = ({ messaging }: Pick<ServerConfig, "messaging">) =>
  Effect.gen(function* () {
    const fleet = yield* FleetStore
    const settings = messaging.mosquitto
    const ca = yield* certificatesOf(settings)
    const url = settings.agents_address ?? (yield* required(settings.address, "address"))
    const offer: MessagingOfferOf = (device, actors) =>
      Effect.gen(function* () {
        const row = yield* fleet.device(device)
        if (row === null || row.name === null)
          return yield* refuse("no_messaging", "the device has no name yet")
        const password = yield* brokerAnswer(
          actors.brokerKeeper.ask("Password", { agent: row.name as Name, device }),
          passwordTimeoutMs
        )
        return {
          type: "postern/messaging-offer/v1" as const,
          topic_root: messaging.topic_root,
          brokers: [{ url, mqtt: settings.mqtt, ca }],
          password
        }
      }).pipe(
        Effect.catchIf(
          (error) => error._tag !== "DeviceRefusal",
          (error) =>
            Effect.andThen(
              Effect.logWarning(`no password for ${device} at Mosquitto: ${error.message}`),
              Effect.fail(refuse("overloaded", "the MQTT broker does not answer: try again later"))
            )
        )
      )
    return offer
  })
