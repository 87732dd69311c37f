/** An agent's publications at a broker that takes long to acknowledge, or never does. */
import { mkdtempSync, rmSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Result } from "effect"
import { TestClock } from "effect/testing"
import { embeddedBroker } from "../../../src/adapters/mqtt/EmbeddedBroker.ts"
import { mqttBus } from "../../../src/adapters/mqtt/MqttBus.ts"
import { MqttUpgrades } from "../../../src/adapters/mqtt/MqttUpgrades.ts"
import { openInProcess } from "../../../src/adapters/sqlite/InProcessDatabase.ts"
import { messagesDatabase } from "../../../src/adapters/sqlite/messages/MessagesDatabase.ts"

/** A link to a broker whose services think about each publication for as long as the test wants. */
const slowLink = Effect.gen(function* () {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "postern-slow-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  )
  const asked = yield* Deferred.make<void>()
  const done = yield* Deferred.make<void>()
  const broker = yield* embeddedBroker({
    listen: { host: "127.0.0.1", port: 0 },
    upgrades: new MqttUpgrades(),
    topicRoot: "fleet",
    maximumConnections: 5,
    queuePackets: 100,
    database: yield* openInProcess(messagesDatabase, join(folder, "messages.db"))
  })({
    authenticate: () => Effect.succeed("agent"),
    received: () => Effect.andThen(Deferred.succeed(asked, undefined), Deferred.await(done)),
    presence: () => Effect.void,
    refused: () => Effect.void
  })
  yield* Effect.addFinalizer(() => Deferred.succeed(done, undefined))
  const { hostname, port } = new URL(broker.addresses[0] as string)
  const dial = Effect.acquireRelease(
    Effect.sync(() => connect(Number(port), hostname).on("error", () => undefined)),
    (socket) => Effect.sync(() => void socket.destroy())
  )
  const bus = mqttBus({
    find: Effect.succeed({ topicRoot: "fleet", password: null, brokers: [{ mqtt: 4, dial }] })
  })
  const link = yield* Effect.flatMap(bus.find, ({ connect: come }) =>
    come({
      name: "pi",
      password: new TextEncoder().encode("proof"),
      will: { topic: "fleet/broker-services/status", payload: new Uint8Array(1) },
      hasRoom: Effect.succeed(true),
      received: () => Effect.void
    })
  )
  const publication = yield* Effect.forkChild(
    Effect.result(link.publish("fleet/broker-services/protected", new Uint8Array(8)))
  )
  yield* Deferred.await(asked)
  // For so long broker services try to make a message safe.
  yield* TestClock.adjust(60_000)
  assert.isUndefined(publication.pollUnsafe(), "it was given up before broker services did")
  return { done, link, publication }
})

describe("a publication", () => {
  it.effect("has as long as broker services give themselves", () =>
    Effect.gen(function* () {
      const { done, publication } = yield* slowLink
      yield* Deferred.succeed(done, undefined)
      assert.isTrue(Result.isSuccess(yield* Fiber.join(publication)))
    })
  )

  it.effect("that is never acknowledged ends the connection, on which it must not be sent again", () =>
    Effect.gen(function* () {
      const { link, publication } = yield* slowLink
      yield* TestClock.adjust(30_000)
      const given = yield* Fiber.join(publication)
      assert.isTrue(Result.isFailure(given) && given.failure.code === "unreachable")
      assert.include(yield* link.ended, "was not acknowledged")
    })
  )
})
