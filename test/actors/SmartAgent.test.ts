/** An agent under a virtual clock, at a broker that the test plays. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Layer, Redacted } from "effect"
import { TestClock } from "effect/testing"
import { SmartAgentKey } from "../../src/actors/ClientKeys.ts"
import { smartAgent } from "../../src/actors/SmartAgent.ts"
import { AgentTrustCell } from "../../src/adapters/AgentTrustCell.ts"
import { NodeAgentCrypto } from "../../src/adapters/mqtt/NodeAgentCrypto.ts"
import { NativeCrypto, NativeCryptoEngine } from "../../src/adapters/NativeCrypto.ts"
import { type NodeKeyRing, NodeKeys } from "../../src/adapters/NodeKeys.ts"
import { SystemEntropy } from "../../src/adapters/SystemEntropy.ts"
import { openDatabase } from "../../src/adapters/sqlite/Database.ts"
import { hostInProcess } from "../../src/adapters/sqlite/InProcessDatabase.ts"
import { agentDatabase } from "../../src/adapters/sqlite/messages/AgentDatabase.ts"
import { makeAgentStore } from "../../src/adapters/sqlite/SqliteAgentStore.ts"
import { toWire } from "../../src/crypto/Messages.ts"
import { signJson } from "../../src/crypto/SignedJson.ts"
import { ActorSystem, ChildSpec, Supervisor } from "../../src/kernel/index.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import { AgentStore, AgentStoreError } from "../../src/ports/AgentStore.ts"
import { type AgentStanding, AgentTrust } from "../../src/ports/AgentTrust.ts"
import { DeviceClock } from "../../src/ports/DeviceClock.ts"
import { BusError, type BusLink, type BusOptions, MessageBus } from "../../src/ports/MessageBus.ts"
import type { HandshakeAnswer, SessionId } from "../../src/schemas/Agents.ts"
import type { Name } from "../../src/schemas/Ids.ts"
import type { MessageId } from "../../src/schemas/Message.ts"
import { device, deviceKeys, otherDeviceKeys, server, serverKeys } from "./support/Parties.ts"

const minute = 60_000

/** A broker without a network: it takes everything, and remembers it. */
class PlayedBroker {
  finds = 0
  /** Why there is none, if there is none. */
  away: BusError | null = null
  connection: BusOptions | null = null
  left = 0
  readonly published: Array<readonly [topic: string, document: Readonly<Record<string, unknown>>]> = []
  private ended = Deferred.makeUnsafe<string>()

  /** The connection breaks. */
  cut(): void {
    Deferred.doneUnsafe(this.ended, Effect.succeed("it was cut"))
  }

  of(topic: string) {
    return this.published.filter(([to]) => to === topic).map(([, document]) => document)
  }

  private readonly link: BusLink = {
    publish: (topic, payload) =>
      Effect.sync(() => {
        const text = new TextDecoder().decode(payload)
        this.published.push([topic, text === "" ? {} : JSON.parse(text)])
      }),
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

const standing: AgentStanding = {
  name: "pi" as Name,
  device,
  server,
  services: new Set([serverKeys.signingKey])
}
const handshakes = "fleet/broker-services/handshake"
const statuses = "fleet/broker-services/status"

const Store = Layer.effect(
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

const start = (broker: PlayedBroker, store = Store) =>
  Effect.gen(function* () {
    const keys = turnable()
    const services = yield* Layer.build(
      Layer.mergeAll(
        broker.layer,
        AgentTrustCell,
        store,
        Layer.succeed(DeviceClock, {
          nowMs: Clock.currentTimeMillis,
          proven: Effect.succeed(true),
          accept: () => Effect.succeed(0)
        }),
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

const stateOf = (agent: Effect.Success<ReturnType<typeof start>>) =>
  Effect.map(agent.ref.ask("Standing"), ({ state }) => state)

describe("an agent", () => {
  it.effect("asks for no broker before there is trust, and comes at once when there is", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* start(broker)
      yield* TestClock.adjust(60 * minute)
      assert.strictEqual(broker.finds, 0)
      assert.strictEqual(yield* stateOf(agent), "no_trust")
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.of(handshakes).length === 1, "the handshake")
      assert.deepInclude(broker.of(handshakes)[0], { agent: "pi", device, visible: true })
      assert.strictEqual(yield* stateOf(agent), "connected")
    })
  )

  it.effect("asks a server without messaging rarely, and a root that changes makes it ask anew", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      broker.away = new BusError({ code: "none", reason: "the server has no messaging" })
      const agent = yield* start(broker)
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.finds === 1, "the first question")
      for (let passed = 0; passed < 360; passed++) yield* TestClock.adjust(minute)
      assert.isAbove(broker.finds, 20)
      assert.isBelow(broker.finds, 50)
      assert.deepInclude(yield* agent.ref.ask("Standing"), { state: "no_messaging", lacking_ms: 0 })
      broker.away = null
      agent.trust.set({ ...standing, services: new Set([serverKeys.signingKey, deviceKeys.signingKey]) })
      yield* TestKit.until(() => broker.of(handshakes).length === 1, "the handshake")
    })
  )

  it.effect("tells a key that was changed at once, in the same session", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* start(broker)
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.of(handshakes).length === 1, "the handshake")
      agent.turn()
      yield* agent.ref.tell("Rotated")
      yield* TestKit.until(() => broker.of(handshakes).length === 2, "the second one")
      const [before, after] = broker.of(handshakes)
      assert.deepStrictEqual(
        [before?.["agreement"], after?.["agreement"]],
        [
          { key: deviceKeys.agreementKey, version: 1 },
          { key: otherDeviceKeys.agreementKey, version: 2 }
        ]
      )
      assert.strictEqual(after?.["session"], before?.["session"])
      assert.strictEqual(broker.finds, 1)
    })
  )

  it.effect("says goodbye when it is trusted no more, and comes under its new name when that changed", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* start(broker)
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.of(handshakes).length === 1, "the handshake")
      agent.trust.set({ ...standing, name: "pi-attic" as Name })
      yield* TestKit.until(() => broker.of(handshakes).length === 2, "the handshake of the new name")
      assert.deepInclude(broker.of(statuses).at(-1), { agent: "pi", status: "DG" })
      assert.strictEqual(broker.connection?.name, "pi-attic")
      agent.trust.set(null)
      yield* TestKit.until(() => broker.left === 2, "its leaving")
      assert.deepInclude(broker.of(statuses).at(-1), { agent: "pi-attic", status: "DG" })
      yield* TestClock.adjust(60 * minute)
      assert.strictEqual(yield* stateOf(agent), "no_trust")
      assert.strictEqual(broker.finds, 2)
    })
  )

  it.effect("says goodbye when its program ends", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* start(broker)
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.of(handshakes).length === 1, "the handshake")
      yield* TestKit.stop(agent.system)
      assert.deepInclude(broker.of(statuses).at(-1), { agent: "pi", status: "DG" })
      assert.strictEqual(broker.left, 1)
    })
  )

  it.effect("says for how long it has lacked a session, and waits longer each time", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      broker.away = new BusError({ code: "unreachable", reason: "nobody listens there" })
      const agent = yield* start(broker)
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.finds === 1, "the first attempt")
      assert.strictEqual((yield* agent.ref.ask("Standing")).lacking_ms, 0)
      for (let passed = 0; passed < 60; passed++) yield* TestClock.adjust(minute)
      assert.deepInclude(yield* agent.ref.ask("Standing"), {
        state: "offline",
        detail: "nobody listens there",
        lacking_ms: 60 * minute
      })
      assert.isBelow(broker.finds, 120)
      broker.away = null
      for (let passed = 0; broker.of(handshakes).length === 0 && passed < 2; passed++)
        yield* TestClock.adjust(minute)
      assert.isAbove(broker.of(handshakes).length, 0)
    })
  )

  it.effect("does not come again at once to a broker that cuts it off again and again", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* start(broker)
      agent.trust.set(standing)
      for (let passed = 0; passed < 600; passed++) {
        broker.cut()
        yield* TestClock.adjust(1_000)
      }
      // Once a minute in the end; after each one to two seconds it would be hundreds of times.
      assert.isBelow(broker.finds, 30)
      assert.isAbove(broker.finds, 8)
    })
  )

  it.effect("sends at once what comes while it looks for what waits", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const looked = yield* Deferred.make<void>()
      const goOn = yield* Deferred.make<void>()
      const agent = yield* start(
        broker,
        Layer.effect(
          AgentStore,
          Effect.map(Effect.service(AgentStore), (store) => ({
            ...store,
            // What was found when it looked; told late.
            queued: (maximum: number) =>
              Effect.tap(store.queued(maximum), () =>
                Effect.andThen(Deferred.succeed(looked, undefined), Deferred.await(goOn))
              )
          }))
        ).pipe(Layer.provide(Store))
      )
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.of(handshakes).length === 1, "the handshake")
      const { nonce, session } = broker.of(handshakes)[0] as { nonce: MessageId; session: SessionId }
      const services = { seed: Redacted.value(serverKeys.signingSeed), signingKey: serverKeys.signingKey }
      const answer = signJson<HandshakeAnswer>(NativeCrypto, services, {
        type: "postern/handshake-answer/v1",
        agent: standing.name,
        session,
        nonce,
        verdict: "known",
        detail: "",
        agreement: { key: serverKeys.agreementKey, version: 1 },
        issued_at_ms: 0
      })
      const payload = toWire(answer)
      yield* (broker.connection as BusOptions).received({
        topic: "fleet/pi/handshake",
        payload,
        retained: false
      })
      yield* Deferred.await(looked)
      const letter = { level: "public", to: ["bob" as Name], subject: "", body: 1, lifetimeMs: null } as const
      yield* agent.ref.ask("Send", letter)
      yield* Deferred.succeed(goOn, undefined)
      yield* TestKit.until(() => broker.of("fleet/bob/public").length === 1, "the message")
    })
  )

  it.effect("acknowledges no message that it could not keep", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      let trouble = new AgentStoreError({ code: "failed", reason: "the disk is full" })
      const agent = yield* start(
        broker,
        Layer.effect(
          AgentStore,
          Effect.map(Effect.service(AgentStore), (store) => ({
            ...store,
            take: () => Effect.suspend(() => Effect.fail(trouble))
          }))
        ).pipe(Layer.provide(Store))
      )
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.of(handshakes).length === 1, "the handshake")
      const came = (text: string) =>
        (broker.connection as BusOptions).received({
          topic: "fleet/pi/public",
          payload: new TextEncoder().encode(text),
          retained: false
        })
      const message = {
        type: "postern/public/v1",
        id: "a".repeat(26),
        claimed_from: "bob",
        issued_at_ms: 0,
        subject: "",
        body: 1
      }
      const error = yield* Effect.flip(came(JSON.stringify(message)))
      assert.include(JSON.stringify(error), "the disk is full")
      // What is refused is dealt with, and counted; so is what anybody may send, where there is no more room for it.
      yield* came("no message at all")
      trouble = new AgentStoreError({ code: "full", reason: "as many messages wait as may wait" })
      yield* came(JSON.stringify(message))
      assert.deepInclude((yield* agent.ref.ask("Report")).refused, { malformed: 1, overloaded: 1 })
    })
  )
})
