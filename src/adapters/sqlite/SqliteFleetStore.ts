/**
 * The port `FleetStore` over two hosted databases: registry (`fleet`) and series. Which kind of host they stand in,
 * worker threads or the process itself, is the program's choice.
 */
import { join } from "node:path"
import { Context, Effect, Layer } from "effect"
import { AccessStore } from "../../ports/AccessStore.ts"
import { FleetStore, StoreError } from "../../ports/FleetStore.ts"
import type { HealthRetention } from "../../ports/HealthSeries.ts"
import { RetentionStore } from "../../ports/RetentionStore.ts"
import { RolloutStore } from "../../ports/RolloutStore.ts"
import type { DatabaseDefinition, DatabaseHost, DatabaseSync, Methods, SqliteError } from "./Database.ts"
import type { AccessMethods } from "./fleet/Access.ts"
import { fleetDatabase } from "./fleet/FleetDatabase.ts"
import type { FleetMethods } from "./fleet/FleetMethods.ts"
import type { RetentionMethods } from "./fleet/Retention.ts"
import type { RolloutMethods } from "./fleet/Rollouts.ts"
import { type SeriesMethods, seriesDatabase } from "./fleet/SeriesDatabase.ts"
import { hostInProcess, openInProcess } from "./InProcessDatabase.ts"
import { type DatabaseFigures, openInWorker } from "./WorkerDatabase.ts"

/** How busy the databases' threads are. */
export class StoreFigures extends Context.Service<
  StoreFigures,
  Effect.Effect<ReadonlyArray<DatabaseFigures>>
>()("postern/adapters/StoreFigures") {}

export interface FleetStoreOptions {
  /** Enrolments above this are answered `full`. */
  readonly maximumDevices: number
  /** Default: 120 reports, 90 days. */
  readonly health?: HealthRetention
}

const toStoreError = (error: SqliteError): StoreError =>
  new StoreError({ operation: error.operation, reason: `${error.code}: ${error.reason}` })

/** A method of the port from one of the database class. */
const through =
  <M extends Methods>(host: DatabaseHost<M>) =>
  <const K extends keyof M & string>(method: K) =>
  (...args: Parameters<M[K]>): Effect.Effect<ReturnType<M[K]>, StoreError> =>
    Effect.mapError(host.call(method, ...args), toStoreError)

/** The port over two hosts. */
export const makeFleetStore = (
  fleet: DatabaseHost<FleetMethods>,
  series: DatabaseHost<SeriesMethods>,
  options: FleetStoreOptions
): FleetStore["Service"] => {
  const ask = through(fleet)
  const enrol = ask("enrol")
  const addOutput = ask("addOutput")
  const addHealth = through(series)("addHealth")
  const keep = options.health ?? { reports: 120, days: 90 }
  return {
    roots: ask("roots"),
    addRoot: ask("addRoot"),
    addInvitation: ask("addInvitation"),
    invitationValid: ask("invitationValid"),
    enrolmentOpen: ask("enrolmentOpen"),
    enrol: (request, envelope, atMs) => enrol(request, envelope, atMs, options.maximumDevices),
    preauthorise: ask("preauthorise"),
    preauthorisation: ask("preauthorisation"),
    admitBeforehand: ask("admitBeforehand"),
    admit: ask("admit"),
    device: ask("device"),
    deviceNamed: ask("deviceNamed"),
    devices: ask("devices"),
    sawDevice: ask("sawDevice"),
    laggards: ask("laggards"),
    object: ask("object"),
    standing: ask("standing"),
    sequence: ask("sequence"),
    submit: ask("submit"),
    job: ask("job"),
    jobs: ask("jobs"),
    offer: ask("offer"),
    interventions: ask("interventions"),
    cancel: ask("cancel"),
    requestStop: ask("requestStop"),
    progress: ask("progress"),
    // A copy: a view into a socket's buffer would take the whole buffer along to the other thread.
    addOutput: (device, order, sequence, bytes) => addOutput(device, order, sequence, bytes.slice()),
    output: ask("output"),
    artifactsReceived: ask("artifactsReceived"),
    addReceipt: ask("addReceipt"),
    payloadUse: ask("payloadUse"),
    receipts: ask("receipts"),
    addHealth: (device, report, atMs) => addHealth(device, report, atMs, keep),
    health: through(series)("health"),
    series: through(series)("series"),
    tokenByHash: ask("tokenByHash"),
    tokens: Effect.suspend(() => ask("tokens")()),
    addToken: ask("addToken"),
    rotateToken: ask("rotateToken"),
    revokeToken: ask("revokeToken"),
    tokenUsed: ask("tokenUsed"),
    audit: ask("audit"),
    heardSince: ask("heardSince"),
    counts: Effect.suspend(() => ask("counts")())
  }
}

/** The port `RetentionStore` over the same registry. */
const makeRetentionStore = (fleet: DatabaseHost<RetentionMethods>): RetentionStore["Service"] => {
  const ask = through(fleet)
  return {
    unusedPayloads: ask("unusedPayloads"),
    strayArtifacts: ask("strayArtifacts"),
    pruneResults: ask("pruneResults"),
    pruneOutput: ask("pruneOutput"),
    pruneJobs: ask("pruneJobs"),
    pruneReceipts: ask("pruneReceipts"),
    pruneAudit: ask("pruneAudit"),
    pruneExpired: ask("pruneExpired"),
    pruneEnrolments: ask("pruneEnrolments"),
    prunedJob: ask("prunedJob"),
    receiptCut: ask("receiptCut"),
    amounts: Effect.suspend(() => ask("amounts")()),
    restored: Effect.suspend(() => ask("restored")()),
    noteRestored: ask("noteRestored")
  }
}

/** The port `RolloutStore` over the same registry. */
const makeRolloutStore = (fleet: DatabaseHost<RolloutMethods>): RolloutStore["Service"] => {
  const ask = through(fleet)
  return {
    addRollout: ask("addRollout"),
    rollout: ask("rollout"),
    rollouts: ask("rollouts"),
    rolloutsOf: ask("rolloutsOf"),
    rolloutTally: ask("rolloutTally"),
    rolloutMembers: ask("rolloutMembers"),
    rolloutControls: ask("rolloutControls"),
    plannedOrder: ask("plannedOrder"),
    moveRollout: ask("moveRollout"),
    controlRollout: ask("controlRollout")
  }
}

/** The port `AccessStore` over the same registry. */
const makeAccessStore = (fleet: DatabaseHost<AccessMethods>): AccessStore["Service"] => {
  const ask = through(fleet)
  return {
    access: Effect.suspend(() => ask("access")()),
    arrange: ask("arrange")
  }
}

/** The ports over two hosts. */
const allPorts = (
  fleet: DatabaseHost<FleetMethods & RetentionMethods & RolloutMethods & AccessMethods>,
  series: DatabaseHost<SeriesMethods>,
  options: FleetStoreOptions
) =>
  Context.make(FleetStore, makeFleetStore(fleet, series, options)).pipe(
    Context.add(RetentionStore, makeRetentionStore(fleet)),
    Context.add(RolloutStore, makeRolloutStore(fleet)),
    Context.add(AccessStore, makeAccessStore(fleet))
  )

const files = (folder: string) => ({ fleet: join(folder, "fleet.db"), series: join(folder, "series.db") })

/** Production: each database in a thread of its own, files in `folder`. */
export const SqliteFleetStore = (
  options: FleetStoreOptions & {
    readonly folder: string
    readonly entry: URL
    readonly onTrouble?: (reason: string) => void
  }
): Layer.Layer<FleetStore | RetentionStore | RolloutStore | AccessStore | StoreFigures, SqliteError> => {
  const { entry, folder, onTrouble } = options
  const host = <M extends Methods>(definition: DatabaseDefinition<M>, path: string) =>
    openInWorker(definition, { path, entry, ...(onTrouble === undefined ? {} : { onTrouble }) })
  return Layer.effectContext(
    Effect.gen(function* () {
      const paths = files(folder)
      const fleet = yield* host(fleetDatabase, paths.fleet)
      const series = yield* host(seriesDatabase, paths.series)
      const figures = Effect.sync(() => [fleet.figures(), series.figures()])
      return Context.add(allPorts(fleet, series, options), StoreFigures, figures)
    })
  )
}

/** The same files served by the calling thread: for short commands beside a running server. */
export const SqliteFleetStoreInProcess = (
  options: FleetStoreOptions & { readonly folder: string }
): Layer.Layer<FleetStore | RetentionStore | RolloutStore | AccessStore, SqliteError> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const paths = files(options.folder)
      const fleet = yield* openInProcess(fleetDatabase, paths.fleet)
      const series = yield* openInProcess(seriesDatabase, paths.series)
      return allPorts(fleet, series, options)
    })
  )

/** Simulation and tests: databases that the caller opened (`:memory:`) and keeps over simulated crashes. */
export const SqliteFleetStoreOver = (
  databases: { readonly fleet: DatabaseSync; readonly series: DatabaseSync },
  options: FleetStoreOptions
): Layer.Layer<FleetStore | RetentionStore | RolloutStore | AccessStore, SqliteError> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const fleet = yield* hostInProcess(fleetDatabase, databases.fleet)
      const series = yield* hostInProcess(seriesDatabase, databases.series)
      return allPorts(fleet, series, options)
    })
  )
