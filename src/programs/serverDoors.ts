/** The server's gateways, each an actor that opens its port or socket in its own life, and the start of the whole. */
import { Deferred, Effect, Option } from "effect"
import {
  ControlGatewayKey,
  DeviceKey,
  HttpGatewayKey,
  JobWatchKey,
  RecorderKey,
  RegistrarKey,
  RetentionKey,
  RolloutKey,
  RolloutsKey
} from "../actors/ServerKeys.ts"
import { controlGateway } from "../adapters/ControlGateway.ts"
import { makeDeviceApi } from "../adapters/http/DeviceApi.ts"
import { type Addresses, httpGateway } from "../adapters/http/HttpGateway.ts"
import { makeManagementApi } from "../adapters/http/ManagementService.ts"
import type { RequestFigures } from "../adapters/http/RequestFigures.ts"
import type { ServerActors } from "../adapters/http/ServerActors.ts"
import { ActorSystem, type AnySpec, ChildSpec, type SystemInspection } from "../kernel/index.ts"
import { Limits } from "../schemas/Limits.ts"
import type { ServerConfig } from "../schemas/ServerConfig.ts"
import { serverTree } from "./serverTree.ts"

/** The references that the APIs are handed. */
export const serverActors = (addresses: Addresses): ServerActors => ({
  registrar: addresses.ref(RegistrarKey),
  jobWatch: addresses.ref(JobWatchKey),
  recorder: addresses.ref(RecorderKey),
  retention: addresses.ref(RetentionKey),
  device: (id) => addresses.refOf(DeviceKey, id),
  rollouts: addresses.ref(RolloutsKey),
  rollout: (id) => addresses.refOf(RolloutKey, id)
})

export interface HttpDoorOptions {
  readonly config: ServerConfig
  readonly startedAtMs: number
  /** The running tree, once it runs. */
  readonly inspect: Effect.Effect<SystemInspection>
  /** Where requests are counted, and all figures for Prometheus. */
  readonly figures: RequestFigures
  readonly metrics: Effect.Effect<string>
  /** Told each time the port is open. */
  readonly listening: (origin: string) => Effect.Effect<void>
}

/** Both APIs on one HTTP port. */
export const httpDoor = (options: HttpDoorOptions) => {
  const { config, figures, inspect, listening, metrics, startedAtMs } = options
  let origin: string | null = null
  const addresses = () => (config.addresses.length > 0 || origin === null ? config.addresses : [origin])
  const pollSleepMs = config.poll_sleep_ms
  return ChildSpec.make({
    key: HttpGatewayKey,
    shutdownMs: Limits.drainMs + 500,
    behaviour: httpGateway({
      at: { host: config.host, port: config.port },
      maximumRequests: config.maximum_requests,
      figures,
      spans: config.otlp_endpoint !== null,
      apis: (context, stopping) => {
        const actors = serverActors(context)
        return Effect.all({
          device: makeDeviceApi({ actors, addresses, stopping }),
          management: makeManagementApi({
            actors,
            inspect,
            startedAtMs,
            pollSleepMs,
            stopping,
            requestsPerMinute: config.requests_per_minute,
            metrics
          })
        })
      },
      listening: (bound) =>
        Effect.suspend(() => {
          origin = bound
          return listening(bound)
        })
    })
  })
}

/** How long whoever asks at the control socket waits for a round; it goes on afterwards. */
const sweepWaitMs = 4_000

/** Runs a round of retention, and tells what it dropped; null when it takes longer. */
const sweep = (actors: Effect.Effect<ServerActors>) =>
  Effect.flatMap(actors, ({ retention }) => retention.ask("Sweep")).pipe(
    Effect.flatMap(({ answer }) => Effect.timeoutOption(Deferred.await(answer), sweepWaitMs)),
    Effect.map(Option.getOrNull),
    Effect.orDie
  )

/** The control socket in the state folder, for `postern ps` and `postern server sweep` on this machine. */
export const controlDoor = (options: {
  readonly stateFolder: string
  readonly inspect: Effect.Effect<SystemInspection>
  readonly actors: Effect.Effect<ServerActors>
  /** Where the program listens; null before it does. */
  readonly origin: Effect.Effect<string | null>
}) =>
  ChildSpec.make({
    key: ControlGatewayKey,
    shutdownMs: 1_000,
    behaviour: controlGateway({
      stateFolder: options.stateFolder,
      handlers: {
        inspect: options.inspect,
        sweep: sweep(options.actors),
        doctor: Effect.map(options.origin, (origin) => ({ origin }))
      }
    })
  })

/** Starts a tree; its gateways may want to look at the whole of it. */
export const startServer = <const Gateways extends ReadonlyArray<AnySpec>>(
  config: Pick<ServerConfig, "poll_sleep_ms" | "maximum_devices" | "retention">,
  gateways: (inspect: Effect.Effect<SystemInspection>) => Gateways,
  /** Whether each message handled is a span of a trace. */
  spans = false
) =>
  Effect.gen(function* () {
    const started = yield* Deferred.make<ActorSystem>()
    const inspect = Effect.flatMap(Deferred.await(started), (system) => system.inspect(100))
    const system = yield* ActorSystem.make({
      name: "server",
      root: serverTree(config, gateways(inspect)),
      spans
    })
    yield* Deferred.succeed(started, system)
    return system
  })
