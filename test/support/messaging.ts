/** Broker services and agents in one process, over a real broker. */
import { createHash } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { connect, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Clock, Context, Effect, Layer, Redacted, Schema } from "effect"
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
import { LocalRelayCrypto, type RelayIdentity } from "../../src/adapters/mqtt/LocalRelayCrypto.ts"
import { type MqttBusOptions, mqttBus } from "../../src/adapters/mqtt/MqttBus.ts"
import { MqttUpgrades } from "../../src/adapters/mqtt/MqttUpgrades.ts"
import { NodeAgentCrypto } from "../../src/adapters/mqtt/NodeAgentCrypto.ts"
import { NativeCrypto, NativeCryptoEngine } from "../../src/adapters/NativeCrypto.ts"
import { type NodeKeyRing, NodeKeys, nodeKeyRingFrom } from "../../src/adapters/NodeKeys.ts"
import { SystemEntropy } from "../../src/adapters/SystemEntropy.ts"
import type { DatabaseHost } from "../../src/adapters/sqlite/Database.ts"
import { openInProcess } from "../../src/adapters/sqlite/InProcessDatabase.ts"
import { agentDatabase } from "../../src/adapters/sqlite/messages/AgentDatabase.ts"
import { messagesDatabase } from "../../src/adapters/sqlite/messages/MessagesDatabase.ts"
import type { MosquittoMethods } from "../../src/adapters/sqlite/messages/MosquittoRows.ts"
import type { MqttMethods } from "../../src/adapters/sqlite/messages/MqttRows.ts"
import type { RelayMethods } from "../../src/adapters/sqlite/messages/RelayRows.ts"
import { makeAgentStore } from "../../src/adapters/sqlite/SqliteAgentStore.ts"
import { MessageStoreOver } from "../../src/adapters/sqlite/SqliteMessageStore.ts"
import { ActorSystem, type AnySpec, ChildSpec, Supervisor } from "../../src/kernel/index.ts"
import { AgentBook } from "../../src/ports/AgentBook.ts"
import { AgentStore, type WaitingMessage } from "../../src/ports/AgentStore.ts"
import { AgentTrust } from "../../src/ports/AgentTrust.ts"
import type { CryptoEngine } from "../../src/ports/CryptoEngine.ts"
import { DeviceClock } from "../../src/ports/DeviceClock.ts"
import type { Entropy } from "../../src/ports/Entropy.ts"
import { type DeviceRow, FleetStore } from "../../src/ports/FleetStore.ts"
import { Identity } from "../../src/ports/Identity.ts"
import { MessageBroker } from "../../src/ports/MessageBroker.ts"
import { MessageBus } from "../../src/ports/MessageBus.ts"
import { MessagePolicy } from "../../src/ports/MessagePolicy.ts"
import { MessageStore } from "../../src/ports/MessageStore.ts"
import type { RelayCrypto } from "../../src/ports/RelayCrypto.ts"
import type { Presence } from "../../src/schemas/Agents.ts"
import type { DeviceId, Name, ServerId } from "../../src/schemas/Ids.ts"
import type { MessageRefusal, SecureLevel } from "../../src/schemas/Message.ts"
import type { AgentReport } from "../../src/schemas/protocols/SmartAgent.ts"

const engine = NativeCrypto
/** Keys that are the same in every process of a test. */
export const ringOf = (kind: "device" | "server", who: string): NodeKeyRing =>
  nodeKeyRingFrom(engine, kind, createHash("sha512").update(`${kind} ${who}`).digest())

export const serverKeys = ringOf("server", "server")

/** A ring with a further key to be sealed to; what was sealed to the older ones opens all the same. */
export const rotated = (ring: NodeKeyRing): NodeKeyRing => {
  const version = ring.encryption.version + 1
  const next = ringOf(ring.kind as "device" | "server", `${ring.id} ${version}`)
  return {
    ...ring,
    agreementKey: next.agreementKey,
    agreements: new Map([...ring.agreements, ...next.agreements]),
    encryption: { ...next.encryption, version }
  }
}

/** Broker services' keys, which are apart from the server's and can be followed by others. */
export class ServicesKeys {
  ring: NodeKeyRing
  constructor(who = "services") {
    this.ring = ringOf("server", who)
  }
  /** As the port's implementation takes them: always the newest. */
  relay(): RelayIdentity {
    const current = () => this.ring
    return {
      signer: { seed: Redacted.value(this.ring.signingSeed), signingKey: this.ring.signingKey },
      get agreements() {
        return current().agreements
      },
      get agreement() {
        return { key: current().agreementKey, version: current().encryption.version }
      }
    }
  }
}
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
  readonly rings = new Map<string, NodeKeyRing>()

  /** `who` it is: the same name may be claimed by another. */
  add(name: string, status: DeviceRow["status"] = "accepted", who = name): void {
    const ring = ringOf("device", who)
    this.rings.set(name, ring)
    const row = { device: ring.id, status, name, request: { signing_key: ring.signingKey } }
    this.rows.set(name, row as unknown as DeviceRow)
  }

  ring(name: string): NodeKeyRing {
    const ring = this.rings.get(name)
    if (ring === undefined) throw new Error(`no device is named ${name}`)
    return ring
  }

  /** What operators decide about a device. */
  decide(name: string, status: DeviceRow["status"]): DeviceId {
    const row = this.rows.get(name) as DeviceRow
    this.rows.set(name, { ...row, status })
    return row.device
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

export interface ServicesOptions {
  readonly topicRoot?: string
  readonly port?: number
  readonly intervalMs?: number
  readonly queuePackets?: number
  readonly permits?: MessagePolicy["Service"]["permits"]
  readonly keys?: ServicesKeys
  /** Where messages are kept; a database in this thread without. */
  readonly database?: DatabaseHost<MqttMethods & MosquittoMethods & RelayMethods>
  /** A further actor in their tree. */
  readonly saboteur?: AnySpec<never>
  /** Who does their cryptography; this thread without. */
  readonly relay?: Layer.Layer<RelayCrypto, never, CryptoEngine | Entropy>
  /** Another broker than the embedded one. */
  readonly broker?: (parts: BrokerParts) => MessageBroker["Service"]["open"]
}

/** What a broker is made of. */
export interface BrokerParts {
  readonly fleet: Fleet
  readonly topicRoot: string
  readonly database: DatabaseHost<MqttMethods & MosquittoMethods>
  readonly book: AgentBook["Service"]
}

/** Broker services with an embedded broker, as a running system. */
export const startServices = (fleet: Fleet, path: string, options: ServicesOptions = {}) =>
  Effect.gen(function* () {
    const { intervalMs = 60_000, permits = () => true, topicRoot = "mf2c" } = options
    const database = options.database ?? (yield* openInProcess(messagesDatabase, join(path, "messages.db")))
    const embedded = () =>
      embeddedBroker({
        listen: { host: "127.0.0.1", port: options.port ?? 0 },
        upgrades: new MqttUpgrades(),
        topicRoot,
        maximumConnections: 2_000,
        queuePackets: options.queuePackets ?? 10_000,
        database
      })
    const { broker = embedded } = options
    const Broker = Layer.effect(
      MessageBroker,
      Effect.map(AgentBook, (book) => ({ open: broker({ fleet, topicRoot, database, book }) }))
    )
    const services = yield* Layer.build(
      Layer.mergeAll(
        Broker.pipe(Layer.provideMerge(AgentBookCell)),
        MessageStoreOver(database),
        Layer.succeed(FleetStore, fleet.store),
        Layer.succeed(Identity, { id: serverKeys.id } as unknown as Identity["Service"]),
        Layer.succeed(MessagePolicy, { permits }),
        options.relay ?? LocalRelayCrypto((options.keys ?? new ServicesKeys()).relay())
      ).pipe(Layer.provideMerge(Chance))
    )
    const system = yield* Effect.gen(function* () {
      const authenticate = yield* makeAgentDoor
      return yield* ActorSystem.make({
        root: Supervisor.spec({
          id: "messaging",
          strategy: "one-for-one",
          children: [
            ChildSpec.make({ key: DirectoryKey, behaviour: directory({ topicRoot, intervalMs }) }),
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
            ChildSpec.make({ key: BrokerKeeperKey, behaviour: brokerKeeper({ topicRoot, authenticate }) }),
            ...(options.saboteur === undefined ? [] : [options.saboteur])
          ]
        })
      })
    }).pipe(Effect.provideContext(services))
    const [address] = yield* system.ref(BrokerKeeperKey).ask("Addresses")
    return {
      system,
      address: new URL(address as string),
      store: Context.get(services, MessageStore),
      book: Context.get(services, AgentBook)
    }
  })

export interface AgentOptions {
  readonly topicRoot?: string
  readonly visible?: boolean
  readonly edgeDevices?: ReadonlyArray<string>
  readonly keepaliveSeconds?: number
  readonly answerMs?: number
  readonly roomMs?: number
  /** How it finds another broker than the embedded one. */
  readonly find?: MqttBusOptions["find"]
  /** Keeps its messages in memory: a thousand databases on one disk wait for each other. */
  readonly inMemory?: boolean
  /** Told of each connection that is begun. */
  readonly dialled?: (socket: Socket) => void
}

/** The ring that a fleet has for a name at the moment. */
const following = (fleet: Fleet, name: string): NodeKeyRing => ({
  ...fleet.ring(name),
  get encryption() {
    return fleet.ring(name).encryption
  },
  get agreements() {
    return fleet.ring(name).agreements
  },
  get agreementKey() {
    return fleet.ring(name).agreementKey
  }
})

/** An agent as a running system. */
export const startAgent = (
  fleet: Fleet,
  name: string,
  address: URL,
  path: string,
  options: AgentOptions = {}
) =>
  Effect.gen(function* () {
    const {
      dialled,
      edgeDevices = [],
      find,
      inMemory = false,
      topicRoot = "mf2c",
      visible = true,
      ...timings
    } = options
    const ring = following(fleet, name)
    const store = makeAgentStore(
      yield* openInProcess(agentDatabase, inMemory ? ":memory:" : join(path, `${name}.db`))
    )
    const standing = {
      name: name as Name,
      device: ring.id as DeviceId,
      server: serverKeys.id as ServerId,
      services: new Set<string>([new ServicesKeys().ring.signingKey])
    }
    const dial = Effect.callback<Socket, { readonly message: string }>((resume) => {
      const socket = connect({ host: address.hostname, port: Number(address.port) })
      dialled?.(socket)
      socket.once("connect", () => resume(Effect.succeed(socket)))
      socket.on("error", ({ message }) => resume(Effect.fail({ message })))
      socket.once("close", () => resume(Effect.fail({ message: "the connection was closed" })))
      return Effect.sync(() => void socket.destroy())
    })
    const services = yield* Layer.build(
      Layer.mergeAll(
        Layer.succeed(
          MessageBus,
          mqttBus({
            ...timings,
            find: find ?? Effect.succeed({ topicRoot, password: null, brokers: [{ mqtt: 4, dial }] })
          })
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
            behaviour: smartAgent({ visible, edgeDevices })
          })
        ]
      })
    }).pipe(Effect.provideContext(services))
    return { ref: system.ref(SmartAgentKey), store, system }
  })

/** Runs a test with a folder of its own. */
export const withFolder = <A, E, R>(test: (path: string) => Effect.Effect<A, E, R>) =>
  Effect.scoped(Effect.flatMap(folder, test))

export type Services = Effect.Success<ReturnType<typeof startServices>>
export type Agent = Effect.Success<ReturnType<typeof startAgent>>

class WaitedInVain extends Schema.TaggedError<WaitedInVain>()("WaitedInVain", { what: Schema.String }) {
  override get message(): string {
    return `waited in vain for ${this.what}`
  }
}

/** Looks until something is there, for a minute. */
export const until = <A, E, R>(what: string, look: Effect.Effect<A | undefined, E, R>) =>
  Effect.gen(function* () {
    for (let waitedMs = 0; ; waitedMs += 20) {
      const found = yield* look
      if (found !== undefined) return found
      if (waitedMs > 60_000) return yield* new WaitedInVain({ what })
      yield* Effect.sleep(20)
    }
  })

const orUndefined = <A>(is: boolean, value: A): A | undefined => (is ? value : undefined)

/** Waits until an agent says to be in a state. */
export const inState = (agent: Agent, state: AgentReport["state"]) =>
  until(
    `the state ${state}`,
    Effect.map(agent.ref.ask("Report", undefined, { timeoutMs: 60_000 }), (report) =>
      orUndefined(report.state === state, report)
    )
  )

/** Waits until an agent's list names exactly these. */
export const seesPeers = (agent: Agent, names: ReadonlyArray<string>) =>
  until(
    `the list ${names.join(", ")}`,
    Effect.map(agent.ref.ask("Peers", undefined, { timeoutMs: 60_000 }), (peers) => {
      const seen = peers.map((each) => String(each.agent)).sort()
      return orUndefined(seen.join() === [...names].sort().join(), peers)
    })
  )

/** Waits for so many messages that the application has not dealt with. */
export const inboxOf = (agent: Agent, count: number) =>
  until(
    `${count} messages`,
    Effect.map(agent.store.waiting(0, 10_000), (waiting) => orUndefined(waiting.length >= count, waiting))
  )

export const send = (
  agent: Agent,
  level: SecureLevel | "public",
  to: ReadonlyArray<string>,
  body: unknown,
  { lifetimeMs = null, timeoutMs = 60_000 }: { lifetimeMs?: number | null; timeoutMs?: number } = {}
) =>
  agent.ref.ask(
    "Send",
    { level, to: to as never, subject: "", body: body as never, lifetimeMs },
    { timeoutMs }
  )

export const bodies = (waiting: ReadonlyArray<WaitingMessage>): ReadonlyArray<unknown> =>
  waiting.map(({ received }) => received.message.body)

/** Waits until broker services have an agent down as present or gone; as one of several, where it may be either. */
export const inStatus = (services: Services, name: string, ...statuses: ReadonlyArray<Presence>) =>
  until(
    `the status ${statuses.join(" or ")} of ${name}`,
    Effect.sync(() => {
      const row = services.book.get(name as Name)
      return orUndefined(row !== undefined && statuses.includes(row.status), row)
    })
  )

/** How often something of an agent was refused for a reason; null: of who is none. */
export const refusedOf = (services: Services, agent: string | null, code: MessageRefusal) =>
  Effect.map(
    services.store.refusals(1_000),
    (rows) => rows.find((row) => row.agent === agent && row.code === code)?.count ?? 0
  )
