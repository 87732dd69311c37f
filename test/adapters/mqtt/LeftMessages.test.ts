/** What an agent has no room for, and leaves with the broker. */
import { mkdtempSync, rmSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect } from "effect"
import { embeddedBroker } from "../../../src/adapters/mqtt/EmbeddedBroker.ts"
import { mqttBus } from "../../../src/adapters/mqtt/MqttBus.ts"
import { MqttUpgrades } from "../../../src/adapters/mqtt/MqttUpgrades.ts"
import { openInProcess } from "../../../src/adapters/sqlite/InProcessDatabase.ts"
import { messagesDatabase } from "../../../src/adapters/sqlite/messages/MessagesDatabase.ts"

/** A broker that lets everybody come and write, and the agents' way to it. */
const busOf = Effect.gen(function* () {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "postern-left-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  )
  const broker = yield* embeddedBroker({
    listen: { host: "127.0.0.1", port: 0 },
    upgrades: new MqttUpgrades(),
    topicRoot: "fleet",
    maximumConnections: 5,
    queuePackets: 100,
    database: yield* openInProcess(messagesDatabase, join(folder, "messages.db"))
  })({
    authenticate: () => Effect.succeed("agent"),
    received: () => Effect.void,
    presence: () => Effect.void,
    refused: () => Effect.void
  })
  const { hostname, port } = new URL(broker.addresses[0] as string)
  const dial = Effect.acquireRelease(
    Effect.sync(() => connect(Number(port), hostname).on("error", () => undefined)),
    (socket) => Effect.sync(() => void socket.destroy())
  )
  return mqttBus({
    find: Effect.succeed({ topicRoot: "fleet", password: null, brokers: [{ mqtt: 4, dial }] }),
    roomMs: 10
  })
})

describe("a message that an agent has no room for", () => {
  it.live("ends the connection when there is room, and not because it could be dealt with otherwise", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { connect: come } = yield* (yield* busOf).find
        const inbox = "fleet/pi/public"
        const rest = yield* Deferred.make<void>()
        const came: Array<string> = []
        let isSent = false
        let asked = 0
        const options = {
          name: "pi",
          password: new TextEncoder().encode("proof"),
          will: { topic: "fleet/broker-services/status", payload: new Uint8Array(1) }
        }
        const ended = yield* Effect.scoped(
          Effect.gen(function* () {
            const link = yield* come({
              ...options,
              received: ({ payload }) =>
                Effect.suspend(() => {
                  came.push(new TextDecoder().decode(payload))
                  // Once it is refused for want of room; as one that has expired meanwhile, it never is again.
                  return came.length === 1
                    ? Effect.fail({ message: "there is no room", isFull: true })
                    : Effect.void
                }),
              hasRoom: Effect.sync(() => isSent && came.length === 2 && ++asked === 5)
            })
            yield* link.subscribe(["fleet/pi/#"])
            for (const body of ["left", "taken"]) yield* link.publish(inbox, new TextEncoder().encode(body))
            isSent = true
            return yield* link.ended
          })
        )
        assert.strictEqual(asked, 5)
        assert.include(ended, "asked for again")
        assert.deepStrictEqual(came, ["left", "taken"])
        yield* come({
          ...options,
          received: ({ payload }) =>
            Effect.suspend(() => {
              came.push(new TextDecoder().decode(payload))
              return Effect.asVoid(Deferred.succeed(rest, undefined))
            }),
          hasRoom: Effect.succeed(true)
        })
        yield* Deferred.await(rest)
        assert.deepStrictEqual(came, ["left", "taken", "left"])
      })
    )
  )
})
