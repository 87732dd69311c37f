/** The server's gateways, each an actor that opens its port or socket in its own life, and the start of the whole. */
import { Deferred, Effect, Option } from "effect"
import {
  BrokerKeeperKey,
  ControlGatewayKey,
  DeviceDoorKey,
  DeviceKey,
  DirectoryKey,
  EnrolDoorKey,
  HttpGatewayKey,
  JobWatchKey,
  ManagementDoorKey,
  OnionKeeperKey,
  RecorderKey,
  RegistrarKey,
  RetentionKey,
  RolloutKey,
  RolloutsKey
} from "../actors/ServerKeys.ts"
import { controlGateway } from "../adapters/ControlGateway.ts"
import {
  makeDeviceApi,
  newcomersRoutes,
  openRoutes,
  type ServerMessaging
} from "../adapters/http/DeviceApi.ts"
import { maximumBodyBytes } from "../adapters/http/DeviceRoutes.ts"
import { type Addresses, httpGateway } from "../adapters/http/HttpGateway.ts"
import type { ListenAt } from "../adapters/http/Listening.ts"
import { makeManagementApi } from "../adapters/http/ManagementService.ts"
import type { RequestFigures } from "../adapters/http/RequestFigures.ts"
import type { ServerActors } from "../adapters/http/ServerActors.ts"
import { ActorSystem, type AnySpec, ChildSpec, type SystemInspection } from "../kernel/index.ts"
import type { OnionHosts } from "../ports/OnionServices.ts"
import { Limits } from "../schemas/Limits.ts"
import type { MessagingStatus } from "../schemas/MessagingViews.ts"
import type { OnionServiceName, OnionStatus } from "../schemas/OnionStatus.ts"
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
  directory: addresses.ref(DirectoryKey),
  brokerKeeper: addresses.ref(BrokerKeeperKey),
  rollout: (id) => addresses.refOf(RolloutKey, id)
})

/** What every door is made of. */
export interface DoorOptions {
  readonly config: ServerConfig
  readonly startedAtMs: number
  /** The running tree, once it runs. */
  readonly inspect: Effect.Effect<SystemInspection>
  /** Where requests are counted, and all figures for Prometheus. */
  readonly figures: RequestFigures
  readonly metrics: Effect.Effect<string>
  /** What is said of the onion services while tor does not run; null where there are none. */
  readonly closedOnion: OnionStatus | null
  /** Messages between devices; null where the server carries none. */
  readonly messaging: ServerMessaging | null
}

export interface HttpDoorOptions extends DoorOptions {
  /** The hosts of the onion services; null where there are none. */
  readonly onion: OnionHosts | null
  /** Told each time the port is open. */
  readonly listening: (origin: string) => Effect.Effect<void>
}

/** Where devices reach the server: as configured, then over Tor; without either, where it listens. */
export const identityAddresses = (
  config: Pick<ServerConfig, "addresses">,
  onion: OnionHosts | null,
  origin: string | null
): ReadonlyArray<string> => {
  const known = [...config.addresses, ...(onion === null ? [] : [`http://${onion.device}`])]
  return known.length > 0 || origin === null ? known : [origin]
}

/** Where newcomers reach it, where the onion address for devices is shut to them. */
export const enrolAddresses = (
  config: Pick<ServerConfig, "onion">,
  onion: OnionHosts | null
): ReadonlyArray<string> =>
  onion === null || config.onion.enrolment === "never" ? [] : [`http://${onion.enrol}`]

/** One door of the onion services: where it listens, and what it serves. */
export interface OnionDoor {
  readonly service: OnionServiceName
  readonly at: ListenAt
  readonly hosts: OnionHosts
  /** Told each time it is open. */
  readonly listening: (address: string) => Effect.Effect<void>
}

/** Strangers get a small share of the server. */
const strangersRequests = 256

/** Whoever manages the server may ask there who it is; a device has nothing to do there. */
const routesOf = { enrol: newcomersRoutes, device: undefined, management: openRoutes } as const

const onionApis = (
  options: DoorOptions,
  { hosts, service }: OnionDoor,
  context: Addresses,
  stopping: Effect.Effect<void>
) =>
  Effect.gen(function* () {
    const routes = routesOf[service]
    const device = yield* makeDeviceApi({
      actors: serverActors(context),
      addresses: () => identityAddresses(options.config, hosts, null),
      enrolAddresses: enrolAddresses(options.config, hosts),
      messaging: options.messaging,
      stopping,
      door: { hosts: { only: hosts[service] }, ...(routes === undefined ? {} : { routes }) }
    })
    if (service === "management")
      return { device, management: yield* managementApi(options, context, stopping) }
    const bodies = service === "enrol" ? { bodyBytes: maximumBodyBytes({ name: "enrolment" }) } : {}
    return { device, management: null, ...bodies }
  })

const doorKeys = { enrol: EnrolDoorKey, device: DeviceDoorKey, management: ManagementDoorKey } as const

/** A door that only tor leads to. */
export const onionDoor = (options: DoorOptions, door: OnionDoor) =>
  ChildSpec.make({
    key: doorKeys[door.service],
    shutdownMs: Limits.drainMs + 500,
    behaviour: httpGateway({
      at: door.at,
      maximumRequests:
        door.service === "device"
          ? options.config.maximum_requests
          : Math.min(strangersRequests, options.config.maximum_requests),
      figures: options.figures,
      spans: options.config.otlp_endpoint !== null,
      upgrade: door.service === "device" ? (options.messaging?.upgrade ?? undefined) : undefined,
      apis: (context, stopping) => onionApis(options, door, context, stopping),
      listening: door.listening
    })
  })

/** How the onion services are; while nobody can tell, what they are called. */
export const onionStatus = ({ closedOnion }: Pick<DoorOptions, "closedOnion">, addresses: Addresses) =>
  closedOnion === null
    ? Effect.succeed(null)
    : Effect.orElseSucceed(addresses.ref(OnionKeeperKey).ask("Status"), () => closedOnion)

/** The management API of one life. */
const managementApi = (options: DoorOptions, context: Addresses, stopping: Effect.Effect<void>) =>
  makeManagementApi({
    actors: serverActors(context),
    inspect: options.inspect,
    startedAtMs: options.startedAtMs,
    pollSleepMs: options.config.poll_sleep_ms,
    stopping,
    requestsPerMinute: options.config.requests_per_minute,
    metrics: options.metrics,
    onion: onionStatus(options, context),
    messaging: options.messaging !== null ? "on" : options.config.messaging.enabled ? "broken" : "off"
  })

/** Both APIs on one HTTP port. */
export const httpDoor = (options: HttpDoorOptions) => {
  const { config, figures, listening, onion } = options
  let origin: string | null = null
  const addresses = () => identityAddresses(config, onion, origin)
  return ChildSpec.make({
    key: HttpGatewayKey,
    shutdownMs: Limits.drainMs + 500,
    behaviour: httpGateway({
      at: { host: config.host, port: config.port },
      maximumRequests: config.maximum_requests,
      figures,
      spans: config.otlp_endpoint !== null,
      upgrade: options.messaging?.upgrade ?? undefined,
      apis: (context, stopping) =>
        Effect.all({
          device: makeDeviceApi({
            actors: serverActors(context),
            addresses,
            enrolAddresses: enrolAddresses(config, onion),
            messaging: options.messaging,
            stopping,
            door: { hosts: { but: new Set(Object.values(onion ?? {})) } }
          }),
          management: managementApi(options, context, stopping)
        }),
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
  /** How the onion services are; null where there are none. */
  readonly onion: Effect.Effect<OnionStatus | null>
  /** How messages between devices are carried; null where they are not. */
  readonly messaging: Effect.Effect<MessagingStatus | null>
}) =>
  ChildSpec.make({
    key: ControlGatewayKey,
    shutdownMs: 1_000,
    behaviour: controlGateway({
      stateFolder: options.stateFolder,
      handlers: {
        inspect: options.inspect,
        sweep: sweep(options.actors),
        doctor: Effect.all({ origin: options.origin, onion: options.onion, messaging: options.messaging })
      }
    })
  })

/** Starts a tree; its gateways may want to look at the whole of it. */
export const startServer = <
  const Gateways extends ReadonlyArray<AnySpec>,
  const Onion extends ReadonlyArray<AnySpec> = readonly [],
  const Messaging extends ReadonlyArray<AnySpec> = readonly []
>(
  config: Pick<ServerConfig, "poll_sleep_ms" | "maximum_devices" | "retention">,
  gateways: (inspect: Effect.Effect<SystemInspection>) => Gateways,
  more: {
    /** Whether each message handled is a span of a trace. */
    readonly spans?: boolean
    /** What reaches the server over Tor. */
    readonly onion?: (inspect: Effect.Effect<SystemInspection>) => Onion | null
    /** What carries messages between devices. */
    readonly messaging?: Messaging | null
  } = {}
) =>
  Effect.gen(function* () {
    const started = yield* Deferred.make<ActorSystem>()
    const inspect = Effect.flatMap(Deferred.await(started), (system) => system.inspect(100))
    const system = yield* ActorSystem.make({
      name: "server",
      root: serverTree(config, gateways(inspect), {
        onion: more.onion?.(inspect) ?? null,
        messaging: more.messaging ?? null
      }),
      spans: more.spans ?? false
    })
    yield* Deferred.succeed(started, system)
    return system
  })
