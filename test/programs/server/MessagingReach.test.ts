import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Layer, Schema } from "effect"
import { TestClock } from "effect/testing"
import { BrokerKeeperKey, DirectoryKey, RegistrarKey } from "../../../src/actors/ServerKeys.ts"
import { AgentBookCell } from "../../../src/adapters/AgentBookCell.ts"
import { ConfiguredMessagePolicy } from "../../../src/adapters/ConfiguredMessagePolicy.ts"
import { LocalRelayCrypto } from "../../../src/adapters/mqtt/LocalRelayCrypto.ts"
import { NativeCryptoEngine } from "../../../src/adapters/NativeCrypto.ts"
import { nodeKeyRingFrom } from "../../../src/adapters/NodeKeys.ts"
import { relayIdentityOf } from "../../../src/adapters/relay/ThreadedRelayCrypto.ts"
import { SystemEntropy } from "../../../src/adapters/SystemEntropy.ts"
import { openInProcess } from "../../../src/adapters/sqlite/InProcessDatabase.ts"
import { messagesDatabase } from "../../../src/adapters/sqlite/messages/MessagesDatabase.ts"
import { MessageStoreOver } from "../../../src/adapters/sqlite/SqliteMessageStore.ts"
import type { ActorSystem, Inspection } from "../../../src/kernel/index.ts"
import { BrokerError, MessageBroker, type OpenBroker } from "../../../src/ports/MessageBroker.ts"
import { listenPlace, messagingChildren } from "../../../src/programs/server/MessagingReach.ts"
import { startServer } from "../../../src/programs/serverDoors.ts"
import type { Name } from "../../../src/schemas/Ids.ts"
import { openRules } from "../../../src/schemas/MessageRules.ts"
import { ListenPlace, MessagingConfig } from "../../../src/schemas/MessagingConfig.ts"
import { config, makeDisk, servicesOver } from "../../support/fleet.ts"
import { engine, trust } from "../../support/operators.ts"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "postern-messaging-tree-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

/** A broker that can be opened or not, and be lost, as the test says. */
class Weather {
  fair = true
  opened = 0
  lose: (reason: string) => void = () => undefined

  readonly layer = Layer.succeed(MessageBroker, {
    open: () =>
      Effect.gen({ self: this }, function* () {
        if (!this.fair) return yield* new BrokerError({ reason: "its port is taken" })
        this.opened++
        const ended = yield* Deferred.make<string>()
        this.lose = (reason) => Deferred.doneUnsafe(ended, Effect.succeed(reason))
        const open: OpenBroker = {
          addresses: [`mqtt://127.0.0.1:${this.opened}`],
          publish: () => Effect.succeed(false),
          passwordFor: () => Effect.succeed(null),
          expel: () => Effect.void,
          connected: Effect.succeed([]),
          ended: Deferred.await(ended)
        }
        return open
      })
  })
}

/** A server with messaging over such a broker. */
const start = Effect.fnUntraced(function* (weather: Weather) {
  const database = yield* openInProcess(messagesDatabase, join(yield* folder, "messages.db"))
  const services = yield* Layer.build(
    Layer.mergeAll(
      servicesOver(yield* makeDisk),
      weather.layer,
      MessageStoreOver(database),
      AgentBookCell,
      ConfiguredMessagePolicy(openRules),
      LocalRelayCrypto(
        relayIdentityOf(nodeKeyRingFrom(engine, "broker-services", new Uint8Array(64).fill(9)))
      ).pipe(Layer.provide(Layer.merge(NativeCryptoEngine, SystemEntropy)))
    )
  )
  return yield* Effect.gen(function* () {
    const messaging = yield* Schema.decodeEffect(MessagingConfig)({})
    const children = yield* messagingChildren({ ...config, messaging })
    return yield* startServer(config, () => [], { messaging: children })
  }).pipe(Effect.provideContext(services))
})

const nodeAt = (system: ActorSystem, path: string): Effect.Effect<Inspection | undefined> =>
  Effect.map(system.inspect(), ({ root }) =>
    path
      .split("/")
      .reduce<Inspection | undefined>((node, id) => node?.children.find((child) => child.id === id), root)
  )

/** Whether everything but messages goes on. */
const others = (system: ActorSystem) =>
  system.ref(RegistrarKey).ask("PublishRoot", { envelope: trust.envelope, actor: "alice" })

describe("messaging in the server's tree", () => {
  it.effect("takes nothing down where its broker cannot be opened, and comes when it can", () =>
    Effect.gen(function* () {
      const weather = new Weather()
      weather.fair = false
      const system = yield* start(weather)
      yield* TestClock.adjust("10 minutes")
      yield* others(system)
      const keeper = yield* nodeAt(system, "messaging/broker-keeper")
      assert.strictEqual(keeper?.state, "degraded")
      assert.include(keeper?.last_failure?.reason ?? "", "its port is taken")
      assert.strictEqual((yield* nodeAt(system, "messaging/directory"))?.restarts, 0)
      assert.strictEqual((yield* nodeAt(system, "vital"))?.restarts, 0)
      assert.isNull(yield* system.ref(DirectoryKey).ask("Agent", { agent: "alice" as Name }))
      weather.fair = true
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* system.ref(BrokerKeeperKey).ask("Addresses"), ["mqtt://127.0.0.1:1"])
    })
  )

  it.effect("opens its broker again when that is lost, however often", () =>
    Effect.gen(function* () {
      const weather = new Weather()
      const system = yield* start(weather)
      for (let time = 1; time <= 12; time++) {
        assert.strictEqual(weather.opened, time)
        weather.lose("it fell over")
        yield* TestClock.adjust("1 minute")
      }
      yield* others(system)
      assert.strictEqual((yield* nodeAt(system, "messaging"))?.restarts, 0)
      assert.strictEqual((yield* nodeAt(system, "messaging/directory"))?.restarts, 0)
    })
  )

  it.effect("is not there at all where it is not wanted", () =>
    Effect.gen(function* () {
      const services = yield* Layer.build(servicesOver(yield* makeDisk))
      const system = yield* Effect.provideContext(
        startServer(config, () => []),
        services
      )
      assert.isUndefined(yield* nodeAt(system, "messaging"))
      assert.isDefined(yield* nodeAt(system, "vital"))
    })
  )
})

describe("where the broker listens", () => {
  it("is a host and a port, of IPv6 in brackets", () => {
    const taken = ["127.0.0.1:1883", "[::]:0", "mqtt.example:65535"]
    assert.deepStrictEqual(
      taken.map((text) => listenPlace(text)),
      [
        { host: "127.0.0.1", port: 1883 },
        { host: "::", port: 0 },
        { host: "mqtt.example", port: 65535 }
      ]
    )
    const isPlace = Schema.is(ListenPlace)
    assert.deepStrictEqual(
      taken.filter((text) => !isPlace(text)),
      []
    )
    const refused = [
      "1883",
      ":1883",
      "host:",
      "host:65536",
      "host:01",
      "::1:1883",
      "mqtt://host:1883",
      "a b:1"
    ]
    assert.deepStrictEqual(refused.filter(isPlace), [])
  })
})
