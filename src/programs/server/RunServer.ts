/** Runs the server: state folder, identity, stores, tree; until it is told to stop or cannot go on. */
import { Clock, Effect, Layer, Logger, Schema } from "effect"
import { FleetTrust } from "../../actors/FleetTrust.ts"
import { FileBlobStore } from "../../adapters/blobs/FileBlobStore.ts"
import { FileIdentity } from "../../adapters/FileIdentity.ts"
import { errorText, requirePrivateFolder } from "../../adapters/files/AtomicFile.ts"
import { NativeCryptoEngine } from "../../adapters/NativeCrypto.ts"
import { SqliteFleetStore } from "../../adapters/sqlite/SqliteFleetStore.ts"
import { SystemEntropy } from "../../adapters/SystemEntropy.ts"
import type { ServerConfig } from "../../schemas/ServerConfig.ts"
import { software } from "../../schemas/Version.ts"
import { httpDoor, startServer } from "../serverTree.ts"

/** The state folder cannot be used. */
export class StateFolderError extends Schema.TaggedError<StateFolderError>()("StateFolderError", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `the state folder ${this.path} cannot be used: ${this.reason}`
  }
}

/** The tree gave up; the process must end and be started again. */
export class ServerGaveUp extends Schema.TaggedError<ServerGaveUp>()("ServerGaveUp", { reason: Schema.String }) {
  override get message(): string {
    return `the server gave up: ${this.reason}`
  }
}

/** Makes the state folder (0700) or checks that it is private. */
export const prepareState = (path: string): Effect.Effect<void, StateFolderError> =>
  Effect.try({
    try: () => requirePrivateFolder(path),
    catch: (error) => new StateFolderError({ path, reason: errorText(error) })
  })

/** Structured lines on stderr. */
export const LogToStderr = Logger.layer([Logger.withConsoleError(Logger.formatLogFmt)])

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
    onTrouble: (reason) => Effect.runFork(Effect.provide(Effect.logError(reason), LogToStderr))
  })
  return Layer.mergeAll(store, FileBlobStore(config.state_folder), FleetTrust.layer).pipe(
    Layer.provideMerge(ServerIdentityFiles(config.state_folder))
  )
}

const announce = (origin: string) =>
  Effect.gen(function* () {
    const trust = yield* FleetTrust
    yield* Effect.logInfo(`${software} listens on ${origin}`)
    if (trust.current() === null) {
      yield* Effect.logInfo(
        `there is no trust root yet. Make a token (server.js token create NAME --role admin), log in with it, then: postern keys init --server ${origin}`
      )
    }
  })

/** Starts the server and waits; stopped in order when the fiber is interrupted. */
export const runServer = (config: ServerConfig, entry: URL) =>
  Effect.gen(function* () {
    yield* prepareState(config.state_folder)
    const served = Effect.gen(function* () {
      const startedAtMs = yield* Clock.currentTimeMillis
      const trust = yield* FleetTrust
      const listening = (origin: string) => Effect.provideService(announce(origin), FleetTrust, trust)
      const system = yield* startServer(config, (inspect) => [httpDoor({ config, startedAtMs, inspect, listening })])
      const end = yield* system.terminated
      if (end._tag === "GaveUp") return yield* new ServerGaveUp({ reason: end.reason })
      if (end._tag === "TooManyFencedLives") {
        return yield* new ServerGaveUp({ reason: `${end.count} lives hang and cannot be stopped` })
      }
    })
    yield* Effect.scoped(Effect.provide(Effect.scoped(served), ServerServices(config, entry)))
  }).pipe(Effect.provide(LogToStderr))
