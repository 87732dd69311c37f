/** An agent's way to an embedded broker that takes everybody. */
import { connect } from "node:net"
import { join } from "node:path"
import { Effect } from "effect"
import { embeddedBroker } from "../../../src/adapters/mqtt/EmbeddedBroker.ts"
import { mqttBus } from "../../../src/adapters/mqtt/MqttBus.ts"
import { MqttUpgrades } from "../../../src/adapters/mqtt/MqttUpgrades.ts"
import { openInProcess } from "../../../src/adapters/sqlite/InProcessDatabase.ts"
import { messagesDatabase } from "../../../src/adapters/sqlite/messages/MessagesDatabase.ts"
import { temporaryFolder } from "../support/folders.ts"

export interface LocalBusOptions {
  /** What broker services do with each publication, before it is acknowledged. Default nothing. */
  readonly received?: Effect.Effect<void>
  /** How often an agent that has left something looks whether there is room. Default: as ever. */
  readonly roomMs?: number
}

/** It ends with the scope. */
export const localBus = Effect.fnUntraced(function* ({ received = Effect.void, roomMs }: LocalBusOptions) {
  const broker = yield* embeddedBroker({
    listen: { host: "127.0.0.1", port: 0 },
    upgrades: new MqttUpgrades(),
    topicRoot: "fleet",
    maximumConnections: 5,
    queuePackets: 100,
    database: yield* openInProcess(messagesDatabase, join(yield* temporaryFolder, "messages.db"))
  })({
    authenticate: () => Effect.succeed("agent"),
    received: () => received,
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
    ...(roomMs === undefined ? {} : { roomMs })
  })
})

/** What an agent connects with, beside what it does with that which comes. */
export const asPi = {
  name: "pi",
  password: Effect.succeed(new TextEncoder().encode("proof")),
  will: { topic: "fleet/broker-services/status", payload: new Uint8Array(1) }
}
