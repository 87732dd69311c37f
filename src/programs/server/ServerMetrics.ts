/**
 * The server's figures for Prometheus: the kernel's, the port's, the stores' and the process's. Most are plain numbers
 * until somebody scrapes. No series is named after a device: there may be any number of those.
 */
import { monitorEventLoopDelay } from "node:perf_hooks"
import { Clock, Context, Effect, Metric } from "effect"
import { PrometheusMetrics } from "effect/observability"
import { seenWithinMs } from "../../adapters/http/ManagementViews.ts"
import { RequestFigures } from "../../adapters/http/RequestFigures.ts"
import type { ServerActors } from "../../adapters/http/ServerActors.ts"
import { StoreFigures } from "../../adapters/sqlite/SqliteFleetStore.ts"
import type { ActorSystem } from "../../kernel/index.ts"
import { FleetStore } from "../../ports/FleetStore.ts"
import { FleetTrust } from "../../ports/FleetTrust.ts"
import type { MessagingStatus } from "../../schemas/MessagingViews.ts"
import type { OnionStatus } from "../../schemas/OnionStatus.ts"
import { software } from "../../schemas/Version.ts"

type Attributes = Readonly<Record<string, string>>

/** The gauges that are set at each scrape. */
const gauges = {
  info: Metric.gauge("postern_info", { description: "Always 1; the software's version" }),
  started: Metric.gauge("postern_started_seconds", {
    description: "When the server started, in Unix seconds"
  }),
  devices: Metric.gauge("postern_devices", { description: "Devices by status" }),
  online: Metric.gauge("postern_devices_online", { description: "Accepted devices heard lately" }),
  jobs: Metric.gauge("postern_jobs", { description: "Jobs by state" }),
  rootExpires: Metric.gauge("postern_root_expires_seconds", {
    description: "When the trust root expires, in Unix seconds"
  }),
  storage: Metric.gauge("postern_storage_bytes", { description: "What is kept, as of the last look" }),
  free: Metric.gauge("postern_storage_free_bytes", {
    description: "Room left on the disk, as of the last look"
  }),
  inWork: Metric.gauge("postern_http_requests_in_work", {
    description: "Requests in work, held polls included"
  }),
  bodies: Metric.gauge("postern_http_bodies_bytes", { description: "Bodies of the requests in work" }),
  storeWaiting: Metric.gauge("postern_store_waiting", {
    description: "Calls to a database not answered yet"
  }),
  memory: Metric.gauge("postern_process_memory_bytes", { description: "Memory of the process" }),
  torProgress: Metric.gauge("postern_tor_bootstrap_percent", {
    description: "How far tor is on its way into its network; 100 when circuits can be built"
  }),
  onionPublished: Metric.gauge("postern_onion_published", {
    description: "1 where directories have the onion service's descriptor"
  }),
  onionIntroductions: Metric.gauge("postern_onion_introduction_points", {
    description: "Introduction points of the onion service"
  }),
  onionCircuits: Metric.gauge("postern_onion_circuits", {
    description: "Circuits of clients to the onion service"
  }),
  onionKeys: Metric.gauge("postern_onion_keys", {
    description: "Keys that may reach the onion service, without the one nobody owns"
  }),
  onionUploads: Metric.gauge("postern_onion_uploads", {
    description: "Uploads of the descriptor since tor was started, by outcome"
  }),
  agents: Metric.gauge("postern_agents", {
    description: "Agents by status: C is connected, DG left, DU is gone without a word"
  }),
  brokerOpen: Metric.gauge("postern_mqtt_broker_open", { description: "1 where the MQTT broker runs" }),
  brokerConnections: Metric.gauge("postern_mqtt_connections", {
    description: "Connections to the MQTT broker"
  }),
  messagesWaiting: Metric.gauge("postern_messages_waiting", {
    description: "Messages for agents that are away: in their sessions, or without one"
  }),
  delay: Metric.gauge("postern_event_loop_delay_seconds", {
    description: "How late the event loop was since the last scrape: 99th percentile"
  })
}

/** Counters of which somebody else knows the present value. */
const counters = {
  storeCalls: Metric.counter("postern_store_calls_total", {
    incremental: true,
    description: "Calls to a database"
  }),
  storeBatches: Metric.counter("postern_store_batches_total", {
    incremental: true,
    description: "Transactions they were put into"
  }),
  storeRefused: Metric.counter("postern_store_refused_total", {
    incremental: true,
    description: "Calls refused: too many waited"
  }),
  messagesRefused: Metric.counter("postern_messages_refused_total", {
    incremental: true,
    description: "Messages refused, by reason"
  }),
  cpu: Metric.counter("postern_process_cpu_seconds_total", {
    incremental: true,
    description: "CPU time of the process"
  })
}

/** What a running server is asked for its figures. */
export interface FigureSources {
  readonly system: Effect.Effect<ActorSystem>
  readonly actors: Effect.Effect<ServerActors>
  readonly startedAtMs: number
  readonly pollSleepMs: number
  /** How the onion services are; null where there are none. */
  readonly onion: Effect.Effect<OnionStatus | null>
  /** How messages between devices are carried; null where they are not, or that cannot be told. */
  readonly messaging: Effect.Effect<MessagingStatus | null>
}

type Setter = (gauge: Metric.Gauge<number>, value: number, attributes?: Attributes) => void
type Raiser = (counter: Metric.Counter<number>, value: number, attributes?: Attributes) => void

const setProcess = (set: Setter, raise: Raiser, delays: ReturnType<typeof monitorEventLoopDelay>): void => {
  const memory = process.memoryUsage()
  set(gauges.memory, memory.rss, { kind: "resident" })
  set(gauges.memory, memory.heapUsed, { kind: "heap" })
  set(gauges.memory, memory.external, { kind: "external" })
  const { system, user } = process.cpuUsage()
  raise(counters.cpu, (user + system) / 1e6)
  set(gauges.delay, Number.isFinite(delays.percentile(99)) ? delays.percentile(99) / 1e9 : 0)
  delays.reset()
}

/** What the stores say; a store that fails leaves its gauges as they were. */
const setStores = (set: Setter, sources: FigureSources) =>
  Effect.gen(function* () {
    const store = yield* FleetStore
    const nowMs = yield* Clock.currentTimeMillis
    const { devices, jobs } = yield* store.counts
    for (const [status, count] of Object.entries(devices)) set(gauges.devices, count, { status })
    for (const [state, count] of Object.entries(jobs)) set(gauges.jobs, count, { state })
    set(gauges.online, yield* store.heardSince(nowMs - seenWithinMs(sources.pollSleepMs)))
    const storage = yield* (yield* sources.actors).retention.ask("Storage")
    if (storage === null) return
    set(gauges.storage, storage.database_bytes, { kind: "database" })
    set(gauges.storage, storage.payload_bytes, { kind: "payloads" })
    set(gauges.storage, storage.artifact_bytes, { kind: "artifacts" })
    set(gauges.storage, storage.output_bytes, { kind: "output" })
    if (storage.free_bytes !== null) set(gauges.free, storage.free_bytes)
  }).pipe(Effect.catch((error) => Effect.logWarning(`some figures are missing: ${error._tag}`)))

const setOnion = (set: Setter, status: OnionStatus | null): void => {
  if (status === null) return
  set(gauges.torProgress, status.tor.progress)
  for (const each of status.services) {
    const { service } = each
    set(gauges.onionPublished, each.descriptor === "published" ? 1 : 0, { service })
    set(gauges.onionIntroductions, each.introduction_points ?? 0, { service })
    set(gauges.onionCircuits, each.circuits ?? 0, { service })
    set(gauges.onionUploads, each.uploads, { service, outcome: "confirmed" })
    set(gauges.onionUploads, each.failures, { service, outcome: "failed" })
    if (each.authorised !== null) set(gauges.onionKeys, each.authorised, { service })
  }
}

const setMessaging = (set: Setter, raise: Raiser, status: MessagingStatus | null): void => {
  if (status === null) return
  for (const [name, count] of Object.entries(status.agents)) set(gauges.agents, count, { status: name })
  set(gauges.brokerOpen, status.broker.state === "open" ? 1 : 0)
  set(gauges.brokerConnections, status.broker.connected ?? 0)
  set(gauges.messagesWaiting, status.queued, { place: "session" })
  set(gauges.messagesWaiting, status.undelivered, { place: "store" })
  for (const [code, count] of Object.entries(status.refusals))
    raise(counters.messagesRefused, count, { code })
}

const setDatabases = (set: Setter, raise: Raiser) =>
  Effect.gen(function* () {
    for (const { batches, calls, database, refused, waiting } of yield* yield* StoreFigures) {
      set(gauges.storeWaiting, waiting, { database })
      raise(counters.storeCalls, calls, { database })
      raise(counters.storeBatches, batches, { database })
      raise(counters.storeRefused, refused, { database })
    }
  })

/** The figures of one server, in a registry of its own. */
export const makeServerMetrics = Effect.gen(function* () {
  const registry: Metric.MetricRegistry = new Map()
  const context = Context.make(Metric.MetricRegistry, registry) as Context.Context<never>
  const services = yield* Effect.context<FleetStore | FleetTrust | StoreFigures>()
  const requests = new RequestFigures(registry)
  const delays = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const histogram = monitorEventLoopDelay({ resolution: 50 })
      histogram.enable()
      return histogram
    }),
    (histogram) => Effect.sync(() => histogram.disable())
  )
  const set: Setter = (gauge, value, attributes) =>
    (attributes === undefined ? gauge : Metric.withAttributes(gauge, attributes)).updateUnsafe(value, context)
  const raised = new Map<string, number>()
  const raise: Raiser = (counter, value, attributes = {}) => {
    const key = `${counter.id} ${Object.values(attributes).join(" ")}`
    Metric.withAttributes(counter, attributes).updateUnsafe(value - (raised.get(key) ?? 0), context)
    raised.set(key, value)
  }

  const scrape = (sources: FigureSources): Effect.Effect<string> =>
    Effect.gen(function* () {
      set(gauges.info, 1, { software })
      set(gauges.started, sources.startedAtMs / 1_000)
      const root = (yield* FleetTrust).current()?.root
      if (root !== undefined) set(gauges.rootExpires, root.expires_at_ms / 1_000)
      const { bodyBytes, inWork } = requests.now()
      set(gauges.inWork, inWork)
      set(gauges.bodies, bodyBytes)
      setProcess(set, raise, delays)
      yield* setDatabases(set, raise)
      yield* setStores(set, sources)
      setOnion(set, yield* sources.onion)
      setMessaging(set, raise, yield* sources.messaging)
      const system = yield* sources.system
      yield* Effect.provideService(system.publishMetrics, Metric.MetricRegistry, registry)
      return PrometheusMetrics.formatUnsafe(context)
    }).pipe(Effect.provideContext(services))
  return { requests, scrape }
})
