/** Messages between devices, put together from the settings: the MQTT broker, broker services, and what the doors tell of them. */
import { Effect, Layer } from "effect"
import { makeAgentDoor } from "../../actors/AgentDoor.ts"
import { brokerKeeper } from "../../actors/BrokerKeeper.ts"
import { directory } from "../../actors/Directory.ts"
import { reEncryptor } from "../../actors/ReEncryptor.ts"
import { BrokerKeeperKey, DirectoryKey, ReEncryptorKey } from "../../actors/ServerKeys.ts"
import { AgentBookCell } from "../../adapters/AgentBookCell.ts"
import {
  BrokerServicesKeys,
  BrokerServicesKeysFile,
  brokerServicesWord
} from "../../adapters/BrokerServicesKeys.ts"
import { ConfiguredMessagePolicy } from "../../adapters/ConfiguredMessagePolicy.ts"
import type { ServerMessaging } from "../../adapters/http/DeviceApi.ts"
import type { MessagingOfferOf } from "../../adapters/http/DeviceEndpoints.ts"
import type { MqttUpgrades } from "../../adapters/mqtt/MqttUpgrades.ts"
import { logFromCallback, logOptions } from "../../adapters/ProgramLog.ts"
import { relayIdentityOf, ThreadedRelayCrypto } from "../../adapters/relay/ThreadedRelayCrypto.ts"
import { StoreFigures } from "../../adapters/sqlite/SqliteFleetStore.ts"
import { MessagesHost, SqliteMessageStore } from "../../adapters/sqlite/SqliteMessageStore.ts"
import { ChildSpec, Supervisor } from "../../kernel/index.ts"
import { MessageBroker } from "../../ports/MessageBroker.ts"
import { Limits } from "../../schemas/Limits.ts"
import { type MessagingOffer, mqttPath } from "../../schemas/MessagingOffer.ts"
import type { ServerConfig } from "../../schemas/ServerConfig.ts"
import type { AgentName } from "../../schemas/Topics.ts"
import { MosquittoBrokerOf, mosquittoOffer } from "./MosquittoReach.ts"

/** A handler is short; the broker says goodbye to its agents. */
const shutdownMs = 1_000
const brokerShutdownMs = 1_500
/** Who has sent nothing for so long needs no actor. */
const passivateAfterMs = 5 * 60_000
/** Messages of one agent that wait for their turn; their sender is not acknowledged meanwhile. */
const waitingMessages = 64

/** Host and port of `host:port`. */
export const listenPlace = (text: string): { readonly host: string; readonly port: number } => {
  const at = text.lastIndexOf(":")
  return { host: text.slice(0, at).replace(/^\[(.*)\]$/, "$1"), port: Number(text.slice(at + 1)) }
}

/** The server's own broker, loaded only here: nobody else needs its code. */
const EmbeddedBrokerOf = ({ messaging }: ServerConfig, upgrades: MqttUpgrades) =>
  Layer.effect(
    MessageBroker,
    Effect.gen(function* () {
      const database = yield* MessagesHost
      const { embeddedBroker } = yield* Effect.promise(() => import("../../adapters/mqtt/EmbeddedBroker.ts"))
      return {
        open: embeddedBroker({
          listen: messaging.listen === null ? null : listenPlace(messaging.listen),
          upgrades,
          topicRoot: messaging.topic_root,
          maximumConnections: messaging.maximum_connections,
          queuePackets: messaging.queue_packets,
          database
        })
      }
    })
  )

/** Broker services' cryptography, on threads started from `entry`. */
const RelayCryptoOf = (config: ServerConfig, entry: URL) =>
  Layer.unwrap(
    Effect.map(BrokerServicesKeys, ({ keys }) =>
      ThreadedRelayCrypto({
        keys: relayIdentityOf(keys),
        threads: config.messaging.threads,
        entry,
        onTrouble: logFromCallback(logOptions(config))
      })
    )
  )

/** The figures of all databases, this one's too. */
const FiguresWithMessages = Layer.effect(
  StoreFigures,
  Effect.gen(function* () {
    const others = yield* StoreFigures
    const messages = yield* MessagesHost
    return Effect.map(others, (figures) => [...figures, messages.figures()])
  })
)

/** All ports that messaging needs beside the server's own. */
export const MessagingServices = (config: ServerConfig, entry: URL, upgrades: MqttUpgrades) =>
  Layer.mergeAll(
    RelayCryptoOf(config, entry),
    (config.messaging.broker === "mosquitto"
      ? MosquittoBrokerOf(config)
      : EmbeddedBrokerOf(config, upgrades)
    ).pipe(Layer.provideMerge(AgentBookCell)),
    FiguresWithMessages,
    ConfiguredMessagePolicy(config.messaging.policy)
  ).pipe(
    Layer.provideMerge(
      Layer.merge(
        BrokerServicesKeysFile(config.state_folder),
        SqliteMessageStore({
          folder: config.state_folder,
          entry,
          onTrouble: logFromCallback(logOptions(config))
        })
      )
    )
  )

/** Everybody reaches the server's own broker at the doors, with a proof for a password. */
const ownOffer = ({ messaging }: Pick<ServerConfig, "messaging">): MessagingOfferOf => {
  const offer: MessagingOffer = {
    type: "postern/messaging-offer/v1",
    topic_root: messaging.topic_root,
    brokers: [{ url: mqttPath, mqtt: 4, ca: null }],
    password: null
  }
  return () => Effect.succeed(offer)
}

/** What the doors tell and hand over. */
export const doorMessaging = (config: Pick<ServerConfig, "messaging">, upgrades: MqttUpgrades) =>
  Effect.gen(function* () {
    const services = yield* brokerServicesWord
    if (config.messaging.broker === "mosquitto")
      return { services, offer: yield* mosquittoOffer(config), upgrade: null } satisfies ServerMessaging
    const upgrade = {
      path: mqttPath,
      maximum: config.messaging.maximum_connections + Limits.messagingStrangers,
      take: upgrades.hand
    }
    return { services, offer: ownOffer(config), upgrade } satisfies ServerMessaging
  })

/** The children of the tree, in start order. */
export const messagingChildren = ({
  maximum_devices: maximumDevices,
  messaging
}: Pick<ServerConfig, "maximum_devices" | "messaging">) =>
  Effect.map(makeAgentDoor, (authenticate) => {
    const { discovery_interval_ms: intervalMs, topic_root: topicRoot } = messaging
    return [
      ChildSpec.make({
        key: DirectoryKey,
        shutdownMs,
        mailbox: { capacity: 16_384 },
        behaviour: directory({ topicRoot, intervalMs })
      }),
      Supervisor.dynamic({
        key: ReEncryptorKey,
        maximum: maximumDevices,
        passivateAfterMs,
        child: (id) =>
          ChildSpec.make({
            id,
            shutdownMs,
            mailbox: { capacity: waitingMessages, overflow: "wait" },
            behaviour: reEncryptor(id as AgentName)
          })
      }),
      ChildSpec.make({
        key: BrokerKeeperKey,
        shutdownMs: brokerShutdownMs,
        mailbox: { capacity: 16_384 },
        behaviour: brokerKeeper({ topicRoot, authenticate })
      })
    ] as const
  })
