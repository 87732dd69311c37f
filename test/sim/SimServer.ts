/** The real server in this process: its tree and device API over databases in memory. It can be killed and started again. */
import { Clock, Effect, Exit, Layer, Schema, Scope } from "effect"
import { DeviceKey, RegistrarKey } from "../../src/actors/ServerKeys.ts"
import { IdentityOfNodeKeys } from "../../src/adapters/FileIdentity.ts"
import { FleetTrustCell } from "../../src/adapters/FleetTrustCell.ts"
import { makeDeviceApi } from "../../src/adapters/http/DeviceApi.ts"
import type { ApiHandler } from "../../src/adapters/http/Exchange.ts"
import { NodeKeys } from "../../src/adapters/NodeKeys.ts"
import { openDatabase } from "../../src/adapters/sqlite/Database.ts"
import { SqliteFleetStoreOver } from "../../src/adapters/sqlite/SqliteFleetStore.ts"
import { ActorSystem, type TraceEvent } from "../../src/kernel/index.ts"
import { BlobStore } from "../../src/ports/BlobStore.ts"
import { CryptoEngine } from "../../src/ports/CryptoEngine.ts"
import { FleetStore } from "../../src/ports/FleetStore.ts"
import { serverActors } from "../../src/programs/serverDoors.ts"
import { serverTree } from "../../src/programs/serverTree.ts"
import type { DeviceId } from "../../src/schemas/Ids.ts"
import { RetentionConfig } from "../../src/schemas/ServerConfig.ts"
import { engine, serverKeys } from "../actors/support/Parties.ts"
import { SeededEntropy } from "../crypto/SeededEntropy.ts"
import { type BlobMemory, MemoryBlobStore } from "../support/MemoryBlobStore.ts"

const config = {
  poll_sleep_ms: 10_000,
  maximum_devices: 10,
  retention: Schema.decodeSync(RetentionConfig)({})
}

/** One life of the server's program. */
interface Life {
  readonly scope: Scope.Closeable
  readonly system: ActorSystem
  readonly handler: ApiHandler
  readonly store: FleetStore["Service"]
  readonly blobs: BlobStore["Service"]
}

/** A server's machine: databases and blobs survive, everything else is a life's. */
export class SimServer {
  readonly fleet = openDatabase(":memory:")
  readonly series = openDatabase(":memory:")
  readonly blobs: BlobMemory = new Map()
  readonly origin: string
  private readonly trace: (event: TraceEvent) => void
  private readonly clock: Clock.Clock
  life: Life | undefined = undefined

  constructor(origin: string, clock: Clock.Clock, trace: (event: TraceEvent) => void) {
    this.origin = origin
    this.clock = clock
    this.trace = trace
  }

  readonly start = Effect.suspend(() => {
    const services = Layer.mergeAll(
      SqliteFleetStoreOver(
        { fleet: this.fleet, series: this.series },
        { maximumDevices: config.maximum_devices }
      ),
      MemoryBlobStore(this.blobs),
      FleetTrustCell,
      IdentityOfNodeKeys
    ).pipe(
      Layer.provideMerge(
        Layer.mergeAll(
          Layer.succeed(CryptoEngine, engine),
          Layer.succeed(NodeKeys, serverKeys),
          SeededEntropy("test", "server")
        )
      )
    )
    return Effect.gen({ self: this }, function* () {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(services, scope)
      this.life = yield* Effect.gen({ self: this }, function* () {
        const system = yield* ActorSystem.make({ root: serverTree(config, []), trace: this.trace })
        const api = { actors: serverActors(system), addresses: () => [this.origin], stopping: Effect.never }
        const handler = yield* makeDeviceApi(api)
        const inTime: ApiHandler = (request) =>
          Effect.provideService(handler(request), Clock.Clock, this.clock)
        return { scope, system, handler: inTime, store: yield* FleetStore, blobs: yield* BlobStore }
      }).pipe(Effect.provideContext(context), Effect.provideService(Scope.Scope, scope))
    }).pipe(Effect.provideService(Clock.Clock, this.clock))
  })

  /** The program is gone; its machine stays. */
  readonly kill = Effect.suspend(() => {
    const { life } = this
    this.life = undefined
    return life === undefined
      ? Effect.void
      : Effect.asVoid(Effect.forkDetach(Effect.andThen(life.system.stop, Scope.close(life.scope, Exit.void))))
  })

  get registrar() {
    return this.life?.system.ref(RegistrarKey)
  }

  device(id: DeviceId) {
    return this.life?.system.refOf(DeviceKey, id)
  }

  close(): void {
    this.fleet.close()
    this.series.close()
  }
}
