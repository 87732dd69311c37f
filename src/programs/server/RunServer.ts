/** Runs the server: state folder, identity, stores, tree; until it is told to stop or cannot go on. */
import { Clock, Deferred, Effect, Layer } from "effect"
import { FileBlobStore } from "../../adapters/blobs/FileBlobStore.ts"
import { FileIdentity } from "../../adapters/FileIdentity.ts"
import { FleetTrustCell } from "../../adapters/FleetTrustCell.ts"
import { requireFreePort } from "../../adapters/http/Listening.ts"
import { NativeCryptoEngine } from "../../adapters/NativeCrypto.ts"
import { logFromCallback, logOptions, programLog } from "../../adapters/ProgramLog.ts"
import { lockState } from "../../adapters/StateLock.ts"
import { SystemdNotify } from "../../adapters/SystemdNotify.ts"
import { SystemEntropy } from "../../adapters/SystemEntropy.ts"
import { SqliteFleetStore } from "../../adapters/sqlite/SqliteFleetStore.ts"
import type { ActorSystem } from "../../kernel/index.ts"
import { FleetTrust } from "../../ports/FleetTrust.ts"
import { Identity } from "../../ports/Identity.ts"
import type { OnionHosts } from "../../ports/OnionServices.ts"
import { ServiceManager } from "../../ports/ServiceManager.ts"
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
import { OnionDoors, OnionServicesOf, onionReach } from "./OnionReach.ts"
import { makeServerMetrics } from "./ServerMetrics.ts"
import { tracing } from "./Tracing.ts"

export const CryptoServices = Layer.mergeAll(NativeCryptoEngine, SystemEntropy)

/** Keys in the state folder, made on the first start. */
export const ServerIdentityFiles = (folder: string) =>
  FileIdentity({ stateFolder: folder, kind: "server" }).pipe(Layer.provideMerge(CryptoServices))

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
  ).pipe(Layer.provideMerge(ServerIdentityFiles(config.state_folder)))
}

/** Says where the server is, and the id that operators compare before they trust it. */
const announce = (id: string, origin: string, onion: OnionHosts | null) =>
  Effect.gen(function* () {
    const trust = yield* FleetTrust
    yield* Effect.logInfo(`${software} listens on ${origin} as ${id}`)
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

/** The tree, until it ends. Interrupting stops it in order. */
const served = (config: ServerConfig, doors: OnionDoors) =>
  Effect.gen(function* () {
    const startedAtMs = yield* Clock.currentTimeMillis
    const trust = yield* FleetTrust
    const { id } = yield* Identity
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
          Effect.provideService(announce(id, origin, onion?.hosts ?? null), FleetTrust, trust),
          manager.ready
        )
      })
    const closedOnion = onion?.closed ?? null
    const status = Effect.flatMap(running, (system) => onionStatus({ closedOnion }, system))
    const doorOptions = (inspect: DoorOptions["inspect"]): DoorOptions => ({
      config,
      startedAtMs,
      inspect,
      closedOnion,
      figures: metrics.requests,
      metrics: metrics.scrape({
        system: running,
        actors,
        startedAtMs,
        pollSleepMs,
        onion: status
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
          onion: status
        }),
        httpDoor({ ...doorOptions(inspect), onion: onion?.hosts ?? null, listening })
      ],
      {
        spans: config.otlp_endpoint !== null,
        onion: (inspect) => onion?.children(doorOptions(inspect)) ?? null
      }
    )
    yield* Deferred.succeed(started, system)
    yield* Effect.addFinalizer(() => manager.stopping)
    yield* Effect.forkScoped(Effect.forever(Effect.delay(manager.alive, signOfLifeMs)))
    yield* untilTerminated("server", system)
  }).pipe(Effect.scoped)

/** Runs the server on its state folder, which no other program may use meanwhile. */
export const runServer = (config: ServerConfig, entry: URL) =>
  Effect.gen(function* () {
    yield* lockState(config.state_folder)
    yield* requireFreePort(config.host, config.port)
    const doors = new OnionDoors()
    const services = OnionServicesOf(config, doors).pipe(
      Layer.provideMerge(ServerServices(config, entry)),
      Layer.merge(SystemdNotify(process.env))
    )
    yield* Effect.provide(served(config, doors), services)
  }).pipe(Effect.scoped, Effect.provide([programLog(logOptions(config)), tracing(config.otlp_endpoint)]))
