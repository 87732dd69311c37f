/** At which of the server's doors MQTT over WebSocket is spoken. */
import { request } from "node:http"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Layer, type Metric, Schema } from "effect"
import type { ServerMessaging } from "../../../src/adapters/http/DeviceApi.ts"
import { RequestFigures } from "../../../src/adapters/http/RequestFigures.ts"
import { MqttUpgrades } from "../../../src/adapters/mqtt/MqttUpgrades.ts"
import type { OnionHosts } from "../../../src/ports/OnionServices.ts"
import { type DoorOptions, httpDoor, onionDoor, startServer } from "../../../src/programs/serverDoors.ts"
import { mqttPath } from "../../../src/schemas/MessagingOffer.ts"
import { ServerConfig } from "../../../src/schemas/ServerConfig.ts"
import { makeDisk, servicesOver, config as treeConfig } from "../../support/fleet.ts"
import { server, signAs } from "../../support/operators.ts"

const services = ["device", "enrol", "management"] as const
const hosts = Object.fromEntries(services.map((name) => [name, `${name}.onion`])) as unknown as OnionHosts

/** Takes what it is handed, and says so. */
const taking = (): { readonly messaging: ServerMessaging; readonly upgrades: MqttUpgrades } => {
  const upgrades = new MqttUpgrades()
  upgrades.open((_request, socket) => void socket.end("HTTP/1.1 101 Switching Protocols\r\n\r\n"))
  const word = { type: "postern/broker-services/v1", server: server.id, signing_key: server.signingKey }
  const messaging: ServerMessaging = {
    services: signAs(server, "broker_services", word).envelope,
    offer: () => Effect.never,
    upgrade: { path: mqttPath, maximum: 10, take: upgrades.hand }
  }
  return { messaging, upgrades }
}

/** All doors of a server on free ports: where each is. */
const openAll = Effect.fnUntraced(function* (messaging: ServerMessaging | null) {
  const built = yield* Layer.build(servicesOver(yield* makeDisk))
  const config = yield* Schema.decodeEffect(ServerConfig)({
    state_folder: "/nowhere",
    port: 0,
    onion: { enabled: true, management: true }
  })
  const places = {
    main: yield* Deferred.make<string>(),
    device: yield* Deferred.make<string>(),
    enrol: yield* Deferred.make<string>(),
    management: yield* Deferred.make<string>()
  }
  const told = (name: keyof typeof places) => (address: string) =>
    Effect.asVoid(Deferred.succeed(places[name], address))
  const startedAtMs = yield* Clock.currentTimeMillis
  const options = (inspect: DoorOptions["inspect"]): DoorOptions => ({
    config,
    startedAtMs,
    inspect,
    figures: new RequestFigures(new Map() as Metric.MetricRegistry),
    metrics: Effect.succeed(""),
    closedOnion: null,
    messaging
  })
  const at = { host: "127.0.0.1", port: 0 }
  yield* startServer(
    treeConfig,
    (inspect) => [httpDoor({ ...options(inspect), onion: hosts, listening: told("main") })],
    {
      onion: (inspect) =>
        services.map((service) =>
          onionDoor(options(inspect), { service, at, hosts, listening: told(service) })
        )
    }
  ).pipe(Effect.provideContext(built))
  return yield* Effect.all({
    main: Deferred.await(places.main),
    device: Deferred.await(places.device),
    enrol: Deferred.await(places.enrol),
    management: Deferred.await(places.management)
  })
})

/** How a door answers a WebSocket's handshake at the place for MQTT. */
const askFor = (origin: string) =>
  Effect.callback<number, Error>((resume) => {
    const headers = {
      connection: "Upgrade",
      upgrade: "websocket",
      "sec-websocket-version": "13",
      "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="
    }
    const asked = request(`${origin}${mqttPath}`, { headers, agent: false })
    asked.on("response", (response) => {
      response.resume()
      resume(Effect.succeed(response.statusCode ?? 0))
    })
    asked.on("upgrade", (_response, socket) => {
      socket.destroy()
      resume(Effect.succeed(101))
    })
    asked.on("error", (error) => resume(Effect.fail(error)))
    asked.end()
    return Effect.sync(() => asked.destroy())
  })

describe("MQTT over WebSocket", () => {
  it.effect("is spoken at the main door and at the onion's door for devices, never at the others", () =>
    Effect.gen(function* () {
      const doors = yield* openAll(taking().messaging)
      const answers = yield* Effect.all({
        main: askFor(doors.main),
        device: askFor(doors.device),
        enrol: askFor(doors.enrol),
        management: askFor(doors.management)
      })
      assert.deepStrictEqual(answers, { main: 101, device: 101, enrol: 404, management: 404 })
    })
  )

  it.effect("is spoken nowhere where the server carries no messages", () =>
    Effect.gen(function* () {
      const doors = yield* openAll(null)
      const answers = yield* Effect.forEach(Object.values(doors), askFor)
      assert.deepStrictEqual(answers, [404, 404, 404, 404])
    })
  )
})
