/** Broker services and agents in one process, over a real broker. */
import { mkdtempSync, rmSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Clock, Effect, Layer, Redacted } from "effect"
import { makeAgentDoor } from "../../src/actors/AgentDoor.ts"
import { brokerKeeper } from "../../src/actors/BrokerKeeper.ts"
import { SmartAgentKey } from "../../src/actors/ClientKeys.ts"
import { directory } from "../../src/actors/Directory.ts"
import { reEncryptor } from "../../src/actors/ReEncryptor.ts"
import { BrokerKeeperKey, DirectoryKey, ReEncryptorKey } from "../../src/actors/ServerKeys.ts"
import { smartAgent } from "../../src/actors/SmartAgent.ts"
import { AgentBookCell } from "../../src/adapters/AgentBookCell.ts"
import { AgentTrustCell } from "../../src/adapters/AgentTrustCell.ts"
import { embeddedBroker } from "../../src/adapters/mqtt/EmbeddedBroker.ts"
import { LocalRelayCrypto } from "../../src/adapters/mqtt/LocalRelayCrypto.ts"
import { mqttBus } from "../../src/adapters/mqtt/MqttBus.ts"
import { MqttUpgrades } from "../../src/adapters/mqtt/MqttUpgrades.ts"
import { NodeAgentCrypto } from "../../src/adapters/mqtt/NodeAgentCrypto.ts"
import { NativeCrypto, NativeCryptoEngine } from "../../src/adapters/NativeCrypto.ts"
import { NodeKeys, nodeKeyRingFrom } from "../../src/adapters/NodeKeys.ts"
import { SystemEntropy } from "../../src/adapters/SystemEntropy.ts"
import { openInProcess } from "../../src/adapters/sqlite/InProcessDatabase.ts"
import { agentDatabase } from "../../src/adapters/sqlite/messages/AgentDatabase.ts"
import { messagesDatabase } from "../../src/adapters/sqlite/messages/MessagesDatabase.ts"
import { makeAgentStore } from "../../src/adapters/sqlite/SqliteAgentStore.ts"
import { MessageStoreOver } from "../../src/adapters/sqlite/SqliteMessageStore.ts"
import { ActorSystem, ChildSpec, Supervisor } from "../../src/kernel/index.ts"
import { AgentStore } from "../../src/ports/AgentStore.ts"
import { AgentTrust } from "../../src/ports/AgentTrust.ts"
import { DeviceClock } from "../../src/ports/DeviceClock.ts"
import { type DeviceRow, FleetStore } from "../../src/ports/FleetStore.ts"
import { Identity } from "../../src/ports/Identity.ts"
import { MessageBroker } from "../../src/ports/MessageBroker.ts"
import { MessageBus } from "../../src/ports/MessageBus.ts"
import { MessagePolicy } from "../../src/ports/MessagePolicy.ts"
import type { DeviceId, Name, ServerId } from "../../src/schemas/Ids.ts"

const topicRoot = "mf2c"
const filled = (seed: number) => new Uint8Array(64).fill(seed)
const engine = NativeCrypto
const serverKeys = nodeKeyRingFrom(engine, "server", filled(200))
/** Broker services' keys, which are apart from the server's. */
const servicesKeys = nodeKeyRingFrom(engine, "server", filled(201))
const Chance = Layer.merge(NativeCryptoEngine, SystemEntropy)

/** Agents whose clocks are right. */
const SystemDeviceClock = Layer.succeed(DeviceClock, {
  nowMs: Clock.currentTimeMillis,
  proven: Effect.succeed(true),
  accept: () => Effect.succeed(0)
})

/** Devices that operators have accepted, by name. */
export class Fleet {
  readonly rows = new Map<string, DeviceRow>()
  readonly rings = new Map<string, ReturnType<typeof nodeKeyRingFrom>>()

  add(name: string, status: DeviceRow["status"] = "accepted"): void {
    const ring = nodeKeyRingFrom(engine, "device", filled(this.rings.size + 1))
    this.rings.set(name, ring)
    const row = { device: ring.id, status, name, request: { signing_key: ring.signingKey } }
    this.rows.set(name, row as unknown as DeviceRow)
  }

  readonly store = {
    deviceNamed: (name: string) => {
      const row = this.rows.get(name)
      return Effect.succeed(row?.status === "accepted" ? row : null)
    },
    device: (device: DeviceId) =>
      Effect.sync(() => [...this.rows.values()].find((row) => row.device === device) ?? null)
  } as unknown as FleetStore["Service"]
}

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "postern-messaging-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

/** Broker services with an embedded broker, as a running system. */
export const startServices = (fleet: Fleet, path: string) =>
  Effect.gen(function* () {
    const database = yield* openInProcess(messagesDatabase, join(path, "messages.db"))
    const open = embeddedBroker({
      listen: { host: "127.0.0.1", port: 0 },
      upgrades: new MqttUpgrades(),
      topicRoot,
      maximumConnections: 2_000,
      queuePackets: 10_000,
      database
    })
    const services = yield* Layer.build(
      Layer.mergeAll(
        Layer.succeed(MessageBroker, { open }),
        MessageStoreOver(database),
        AgentBookCell,
        Layer.succeed(FleetStore, fleet.store),
        Layer.succeed(Identity, { id: serverKeys.id } as unknown as Identity["Service"]),
        Layer.succeed(MessagePolicy, { permits: () => true }),
        LocalRelayCrypto({
          signer: { seed: Redacted.value(servicesKeys.signingSeed), signingKey: servicesKeys.signingKey },
          agreements: servicesKeys.agreements,
          agreement: { key: servicesKeys.agreementKey, version: 1 }
        })
      ).pipe(Layer.provideMerge(Chance))
    )
    const system = yield* Effect.gen(function* () {
      const authenticate = yield* makeAgentDoor
      return yield* ActorSystem.make({
        root: Supervisor.spec({
          id: "messaging",
          strategy: "one-for-one",
          children: [
            ChildSpec.make({ key: DirectoryKey, behaviour: directory({ topicRoot, intervalMs: 60_000 }) }),
            Supervisor.dynamic({
              key: ReEncryptorKey,
              maximum: 2_000,
              child: (id) =>
                ChildSpec.make({
                  id,
                  mailbox: { capacity: 64, overflow: "wait" },
                  behaviour: reEncryptor(id as Name)
                })
            }),
            ChildSpec.make({ key: BrokerKeeperKey, behaviour: brokerKeeper({ topicRoot, authenticate }) })
          ]
        })
      })
    }).pipe(Effect.provideContext(services))
    const [address] = yield* system.ref(BrokerKeeperKey).ask("Addresses")
    return { system, address: new URL(address as string) }
  })

/** An agent as a running system. */
export const startAgent = (fleet: Fleet, name: string, address: URL, path: string) =>
  Effect.gen(function* () {
    const ring = fleet.rings.get(name) as NonNullable<ReturnType<Fleet["rings"]["get"]>>
    const store = makeAgentStore(yield* openInProcess(agentDatabase, join(path, `${name}.db`)))
    const standing = {
      name: name as Name,
      device: ring.id as DeviceId,
      server: serverKeys.id as ServerId,
      services: new Set<string>([servicesKeys.signingKey])
    }
    const dial = Effect.sync(() => connect({ host: address.hostname, port: Number(address.port) }))
    const services = yield* Layer.build(
      Layer.mergeAll(
        Layer.succeed(
          MessageBus,
          mqttBus({ find: Effect.succeed({ topicRoot, password: null, brokers: [{ mqtt: 4, dial }] }) })
        ),
        Layer.succeed(AgentStore, store),
        Layer.effectDiscard(Effect.map(AgentTrust, (trust) => trust.set(standing))).pipe(
          Layer.provideMerge(AgentTrustCell)
        ),
        SystemDeviceClock,
        NodeAgentCrypto.pipe(Layer.provide(Layer.succeed(NodeKeys, ring)))
      ).pipe(Layer.provideMerge(Chance))
    )
    const system = yield* ActorSystem.make({
      root: Supervisor.spec({
        id: "agent",
        strategy: "one-for-one",
        children: [
          ChildSpec.make({
            key: SmartAgentKey,
            behaviour: smartAgent({ visible: true, edgeDevices: [] })
          })
        ]
      })
    }).pipe(Effect.provideContext(services))
    return { ref: system.ref(SmartAgentKey), store, system }
  })

/** Runs a test with a folder of its own. */
export const withFolder = <A, E, R>(test: (path: string) => Effect.Effect<A, E, R>) =>
  Effect.scoped(Effect.flatMap(folder, test))
