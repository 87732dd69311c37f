/** An agent under a virtual clock, and the broker that a test plays for it. */
import { Clock, Deferred, Effect, Layer, Redacted } from "effect"
import { SmartAgentKey } from "../../../src/actors/ClientKeys.ts"
import { smartAgent } from "../../../src/actors/SmartAgent.ts"
import { AgentTrustCell } from "../../../src/adapters/AgentTrustCell.ts"
import { NodeAgentCrypto } from "../../../src/adapters/mqtt/NodeAgentCrypto.ts"
import { NativeCrypto, NativeCryptoEngine } from "../../../src/adapters/NativeCrypto.ts"
import { type NodeKeyRing, NodeKeys } from "../../../src/adapters/NodeKeys.ts"
import { SystemEntropy } from "../../../src/adapters/SystemEntropy.ts"
import { openDatabase } from "../../../src/adapters/sqlite/Database.ts"
import { hostInProcess } from "../../../src/adapters/sqlite/InProcessDatabase.ts"
import { agentDatabase } from "../../../src/adapters/sqlite/messages/AgentDatabase.ts"
import { makeAgentStore } from "../../../src/adapters/sqlite/SqliteAgentStore.ts"
import { toWire } from "../../../src/crypto/Messages.ts"
import { type SignedJson, signJson } from "../../../src/crypto/SignedJson.ts"
import { ActorSystem, ChildSpec, Supervisor } from "../../../src/kernel/index.ts"
import { TestKit } from "../../../src/kernel/testing/TestKit.ts"
import { AgentStore } from "../../../src/ports/AgentStore.ts"
import { type AgentStanding, AgentTrust } from "../../../src/ports/AgentTrust.ts"
import { DeviceClock } from "../../../src/ports/DeviceClock.ts"
import { type BusError, type BusLink, type BusOptions, MessageBus } from "../../../src/ports/MessageBus.ts"
import type { Directory, Handshake, HandshakeAnswer } from "../../../src/schemas/Agents.ts"
import type { Name } from "../../../src/schemas/Ids.ts"
import { device, deviceKeys, otherDeviceKeys, server, serverKeys } from "./Parties.ts"

export const minute = 60_000

/** A broker without a network: it takes everything, and remembers it. */
export class PlayedBroker {
  finds = 0
  /** Why there is none, if there is none. */
  away: BusError | null = null
  connection: BusOptions | null = null
  left = 0
  readonly published: Array<readonly [topic: string, document: Readonly<Record<string, unknown>>]> = []
  /** How it acknowledges what was published. */
  acknowledge: (topic: string) => Effect.Effect<void, BusError> = () => Effect.void
  private ended = Deferred.makeUnsafe<string>()

  /** The connection breaks. */
  cut(): void {
    Deferred.doneUnsafe(this.ended, Effect.succeed("it was cut"))
  }

  /** Brings something to the agent, and waits until it has been taken. */
  bring(topic: string, payload: Uint8Array) {
    return Effect.suspend(() => (this.connection as BusOptions).received({ topic, payload, retained: false }))
  }

  /** The handshakes that broker services got, in order. */
  get shaken(): ReadonlyArray<Handshake> {
    return this.of(handshakes) as unknown as ReadonlyArray<Handshake>
  }

  of(topic: string) {
    return this.published.filter(([to]) => to === topic).map(([, document]) => document)
  }

  private readonly link: BusLink = {
    publish: (topic, payload) =>
      Effect.sync(() => {
        const text = new TextDecoder().decode(payload)
        this.published.push([topic, text === "" ? {} : JSON.parse(text)])
      }).pipe(Effect.andThen(Effect.suspend(() => this.acknowledge(topic)))),
    subscribe: () => Effect.succeed([]),
    leave: Effect.sync(() => void this.left++),
    ended: Effect.suspend(() => Deferred.await(this.ended))
  }

  readonly layer = Layer.succeed(MessageBus, {
    find: Effect.suspend(() => {
      this.finds++
      if (this.away !== null) return Effect.fail(this.away)
      return Effect.succeed({
        topicRoot: "fleet",
        connect: (options: BusOptions) =>
          Effect.sync(() => {
            this.connection = options
            this.ended = Deferred.makeUnsafe<string>()
            return this.link
          })
      })
    })
  })
}

export const standing: AgentStanding = {
  name: "pi" as Name,
  device,
  server,
  services: new Set([serverKeys.signingKey])
}
export const handshakes = "fleet/broker-services/handshake"
export const statuses = "fleet/broker-services/status"

export const Store = Layer.effect(
  AgentStore,
  Effect.gen(function* () {
    const database = yield* Effect.acquireRelease(
      Effect.sync(() => openDatabase(":memory:")),
      (open) => Effect.sync(() => open.close())
    )
    return makeAgentStore(yield* hostInProcess(agentDatabase, database))
  })
)

/** The device's keys, the one for messages of which may be another tomorrow. */
const turnable = () => {
  let encryption = deviceKeys
  const ring: NodeKeyRing = {
    ...deviceKeys,
    get encryption() {
      return { ...encryption.encryption, version: encryption === deviceKeys ? 1 : 2 }
    },
    get agreementKey() {
      return encryption.agreementKey
    }
  }
  const turn = (): void => {
    encryption = otherDeviceKeys
  }
  return { ring, turn }
}

/** A clock that a server has put right. */
const rightClock: DeviceClock["Service"] = {
  nowMs: Clock.currentTimeMillis,
  proven: Effect.succeed(true),
  accept: () => Effect.succeed(0)
}

export const start = (broker: PlayedBroker, store = Store, clock = rightClock) =>
  Effect.gen(function* () {
    const keys = turnable()
    const services = yield* Layer.build(
      Layer.mergeAll(
        broker.layer,
        AgentTrustCell,
        store,
        Layer.succeed(DeviceClock, clock),
        NodeAgentCrypto.pipe(Layer.provide(Layer.succeed(NodeKeys, keys.ring)))
      ).pipe(Layer.provideMerge(Layer.merge(NativeCryptoEngine, SystemEntropy)))
    )
    const trust = yield* Effect.provideContext(Effect.service(AgentTrust), services)
    const system = yield* ActorSystem.make({
      root: Supervisor.spec({
        id: "test",
        strategy: "one-for-one",
        children: [
          ChildSpec.make({ key: SmartAgentKey, behaviour: smartAgent({ visible: true, edgeDevices: [] }) })
        ]
      })
    }).pipe(Effect.provideContext(services))
    const ref = system.ref(SmartAgentKey)
    return { ref, system, trust, turn: keys.turn }
  })

export const stateOf = (agent: Effect.Success<ReturnType<typeof start>>) =>
  Effect.map(agent.ref.ask("Standing"), ({ state }) => state)

/** A document of broker services. */
export const byServices = <A extends SignedJson>(document: Omit<A, "signature" | "signing_key">) =>
  toWire(
    signJson<A>(
      NativeCrypto,
      { seed: Redacted.value(serverKeys.signingSeed), signingKey: serverKeys.signingKey },
      document
    )
  )

/** The agent becomes known to broker services, by its handshake of this number. */
export const letIn = (agent: Effect.Success<ReturnType<typeof start>>, broker: PlayedBroker, handshake = 1) =>
  Effect.gen(function* () {
    if (handshake === 1) agent.trust.set(standing)
    yield* TestKit.until(() => broker.shaken.length >= handshake, "the handshake")
    yield* answer(broker, broker.shaken.at(-1) as Handshake, "known")
  })

/** The signed list of those who are visible, each with a key that can be sealed to. */
export const list = (broker: PlayedBroker, version: number, names: ReadonlyArray<string>) =>
  Effect.flatMap(Clock.currentTimeMillis, (nowMs) =>
    broker.bring(
      "fleet/broker-services/discovery",
      byServices<Directory>({
        type: "postern/directory/v1",
        version,
        part: 1,
        parts: 1,
        agents: names.map((agent) => ({
          agent: agent as Name,
          device,
          signing_key: otherDeviceKeys.signingKey,
          agreement: { key: otherDeviceKeys.agreementKey, version: 1 },
          status: "C",
          edge_devices: []
        })),
        issued_at_ms: nowMs,
        expires_at_ms: nowMs + 15 * minute
      })
    )
  )

/** Answers a handshake as broker services would. */
export const answer = (
  broker: PlayedBroker,
  { nonce, session }: Pick<Handshake, "nonce" | "session">,
  verdict: HandshakeAnswer["verdict"],
  detail = ""
) =>
  broker.bring(
    "fleet/pi/handshake",
    byServices<HandshakeAnswer>({
      type: "postern/handshake-answer/v1",
      agent: standing.name,
      session,
      nonce,
      verdict,
      detail,
      agreement: { key: serverKeys.agreementKey, version: 1 },
      issued_at_ms: 0
    })
  )
