/** Runs the server: state folder, identity, stores, tree; until it is told to stop or cannot go on. */
import { Clock, Deferred, Effect, Layer } from "effect"
import { FileBlobStore } from "../../adapters/blobs/FileBlobStore.ts"
import { ChosenEngine, engineText } from "../../adapters/ChosenEngine.ts"
import { FileIdentity } from "../../adapters/FileIdentity.ts"
import { FleetTrustCell } from "../../adapters/FleetTrustCell.ts"
import type { ServerMessaging } from "../../adapters/http/DeviceApi.ts"
import { requireFreePort } from "../../adapters/http/Listening.ts"
import { messagingStatusOf } from "../../adapters/http/MessagingStatusOf.ts"
import type { ServerActors } from "../../adapters/http/ServerActors.ts"
import { MqttUpgrades } from "../../adapters/mqtt/MqttUpgrades.ts"
import { logFromCallback, logOptions, programLog } from "../../adapters/ProgramLog.ts"
import { lockState } from "../../adapters/StateLock.ts"
import { SystemdNotify } from "../../adapters/SystemdNotify.ts"
import { SystemEntropy } from "../../adapters/SystemEntropy.ts"
import { SqliteFleetStore } from "../../adapters/sqlite/SqliteFleetStore.ts"
import type { Engine } from "../../crypto/Engine.ts"
import type { ActorSystem, AnySpec } from "../../kernel/index.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { FleetTrust } from "../../ports/FleetTrust.ts"
import { Identity } from "../../ports/Identity.ts"
import type { OnionHosts } from "../../ports/OnionServices.ts"
import { ServiceManager } from "../../ports/ServiceManager.ts"
import type { EngineChoice } from "../../schemas/CryptoSettings.ts"
import type { ServerConfig } from "../../schemas/ServerConfig.ts"
import { software } from "../../schemas/Version.ts"
import { untilTerminated } from "../Service.ts"
import {
  controlDoor,
  type DoorOptions,
  httpDoor,
  onionStatus,
  serverActors,
  startServer
} from "../serverDoors.ts"
import { doorMessaging, listenPlace, MessagingServices, messagingChildren } from "./MessagingReach.ts"
import { OnionDoors, OnionServicesOf, onionReach } from "./OnionReach.ts"
import { makeServerMetrics } from "./ServerMetrics.ts"
import { tracing } from "./Tracing.ts"

/** Without a choice, what the environment says. */
export const cryptoServices = (choice?: EngineChoice) => Layer.merge(ChosenEngine(choice), SystemEntropy)

/** Keys in the state folder, made on the first start. */
export const ServerIdentityFiles = (folder: string, choice?: EngineChoice) =>
  FileIdentity({ stateFolder: folder, kind: "server" }).pipe(Layer.provideMerge(cryptoServices(choice)))

/** All ports of a server whose databases are served by threads started from `entry`. */
export const ServerServices = (config: ServerConfig, entry: URL) => {
  const store = SqliteFleetStore({
    folder: config.state_folder,
    entry,
    maximumDevices: config.maximum_devices,
    health: { reports: config.health_reports, days: config.health_days },
    onTrouble: logFromCallback(logOptions(config))
  })
  return Layer.mergeAll(
    store,
    FileBlobStore(config.state_folder, config.minimum_free_bytes),
    FleetTrustCell
  ).pipe(Layer.provideMerge(ServerIdentityFiles(config.state_folder, config.crypto_engine)))
}

/** Says where the server is, and the id that operators compare before they trust it. */
const announce = (id: string, origin: string, onion: OnionHosts | null, engine: Engine) =>
  Effect.gen(function* () {
    const trust = yield* FleetTrust
    yield* Effect.logInfo(`${software} listens on ${origin} as ${id}, with ${engineText(engine)}`)
    if (onion !== null)
      yield* Effect.logInfo(
        `over Tor devices reach it at http://${onion.device}; postern status shows when that is published`
      )
    if (trust.current() === null) {
      yield* Effect.logInfo(
        `there is no trust root yet. Make a token here (server.js token create NAME --role admin), then on the operator's machine: postern keys init --server ${origin}`
      )
    }
  })

/** Often enough for a watchdog of two minutes, by a fiber of the event loop that serves the requests. */
const signOfLifeMs = 30_000

/** How messages between devices are carried; null where broker services do not answer. */
const messagingWord = (actors: Effect.Effect<ServerActors>) =>
  Effect.map(Effect.context<CryptoEngine | FleetTrust>(), (services) =>
    Effect.flatMap(actors, messagingStatusOf).pipe(
      Effect.provideContext(services),
      Effect.orElseSucceed(() => null)
    )
  )

/** What carries messages between devices. */
interface Messaging<Children extends ReadonlyArray<AnySpec>> {
  readonly children: Children
  readonly door: ServerMessaging
}

/** The tree, until it ends. Interrupting stops it in order. */
const served = <const Children extends ReadonlyArray<AnySpec>>(
  config: ServerConfig,
  doors: OnionDoors,
  messaging: Messaging<Children> | null
) =>
  Effect.gen(function* () {
    const startedAtMs = yield* Clock.currentTimeMillis
    const trust = yield* FleetTrust
    const { id } = yield* Identity
    const engine = yield* CryptoEngine
    const metrics = yield* makeServerMetrics
    const started = yield* Deferred.make<ActorSystem>()
    const running = Deferred.await(started)
    const actors = Effect.map(running, serverActors)
    const pollSleepMs = config.poll_sleep_ms
    const manager = yield* ServiceManager
    const onion = yield* onionReach(config, doors)
    let bound: string | null = null
    const listening = (origin: string) =>
      Effect.suspend(() => {
        bound = origin
        return Effect.andThen(
          Effect.provideService(announce(id, origin, onion?.hosts ?? null, engine), FleetTrust, trust),
          manager.ready
        )
      })
    const closedOnion = onion?.closed ?? null
    const status = Effect.flatMap(running, (system) => onionStatus({ closedOnion }, system))
    const messages = messaging === null ? Effect.succeed(null) : yield* messagingWord(actors)
    const doorOptions = (inspect: DoorOptions["inspect"]): DoorOptions => ({
      config,
      startedAtMs,
      inspect,
      closedOnion,
      messaging: messaging?.door ?? null,
      figures: metrics.requests,
      metrics: metrics.scrape({
        system: running,
        actors,
        startedAtMs,
        pollSleepMs,
        onion: status,
        messaging: messages
      })
    })
    const system = yield* startServer(
      config,
      (inspect) => [
        controlDoor({
          stateFolder: config.state_folder,
          inspect,
          actors,
          origin: Effect.sync(() => bound),
          onion: status,
          messaging: messages
        }),
        httpDoor({ ...doorOptions(inspect), onion: onion?.hosts ?? null, listening })
      ],
      {
        spans: config.otlp_endpoint !== null,
        onion: (inspect) => onion?.children(doorOptions(inspect)) ?? null,
        messaging: messaging?.children ?? null
      }
    )
    yield* Deferred.succeed(started, system)
    yield* Effect.addFinalizer(() => manager.stopping)
    yield* Effect.forkScoped(Effect.forever(Effect.delay(manager.alive, signOfLifeMs)))
    yield* untilTerminated("server", system)
  }).pipe(Effect.scoped)

/**
 * The server with messages between devices. What they need may be broken, a database or a key file: then it says so, and runs
 * without them.
 */
const servedWithMessages = (config: ServerConfig, doors: OnionDoors, entry: URL) =>
  Effect.gen(function* () {
    const upgrades = new MqttUpgrades()
    const services = yield* Layer.build(MessagingServices(config, entry, upgrades)).pipe(
      Effect.catch((error) =>
        Effect.as(
          Effect.logError(
            `no messages are carried, and everything else goes on: ${error.message}. Mend it, or turn messaging.enabled off, and start the server again`
          ),
          null
        )
      )
    )
    if (services === null) return yield* served(config, doors, null)
    return yield* Effect.gen(function* () {
      const children = yield* messagingChildren(config)
      const door = yield* doorMessaging(config, upgrades)
      return yield* served(config, doors, { children, door })
    }).pipe(Effect.provideContext(services))
  })

/** Fails where a port that is wanted is another program's. */
const requirePorts = Effect.fnUntraced(function* ({ host, messaging, port }: ServerConfig) {
  yield* requireFreePort({ host, port }, "--port")
  if (!messaging.enabled || messaging.listen === null) return
  yield* requireFreePort(listenPlace(messaging.listen), "messaging.listen")
})

/** Runs the server on its state folder, which no other program may use meanwhile. */
export const runServer = (config: ServerConfig, entry: URL) =>
  Effect.gen(function* () {
    yield* lockState(config.state_folder)
    yield* requirePorts(config)
    const doors = new OnionDoors()
    const services = OnionServicesOf(config, doors).pipe(
      Layer.provideMerge(ServerServices(config, entry)),
      Layer.merge(SystemdNotify(process.env))
    )
    const program = config.messaging.enabled
      ? servedWithMessages(config, doors, entry)
      : served(config, doors, null)
    yield* Effect.provide(program, services)
  }).pipe(Effect.scoped, Effect.provide([programLog(logOptions(config)), tracing(config.otlp_endpoint)]))
