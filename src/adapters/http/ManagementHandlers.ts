/** The management API's handlers: roles, then one question to an actor or the store each. */
import { Clock, Effect, Result, Stream } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { encodeBase64 } from "../../crypto/Base64.ts"
import { concatBytes } from "../../crypto/Bytes.ts"
import { openUnverified } from "../../crypto/Documents.ts"
import type { SystemInspection } from "../../kernel/index.ts"
import { BlobStore } from "../../ports/BlobStore.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { FleetStore, type JobRow } from "../../ports/FleetStore.ts"
import { RetentionStore } from "../../ports/RetentionStore.ts"
import type { DsseEnvelope } from "../../schemas/Dsse.ts"
import type { DeviceId, Digest, InvitationId, OrderId } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import { Conflict, ManagementApi, NotFound, Refused } from "../../schemas/ManagementApi.ts"
import { Gone } from "../../schemas/ManagementErrors.ts"
import type { JobQuery } from "../../schemas/ManagementViews.ts"
import type { OnionStatus } from "../../schemas/OnionStatus.ts"
import { isFinal, WorkOrder } from "../../schemas/WorkOrder.ts"
import { callerName } from "./ManagementAccess.ts"
import { orStorageFull, orUnavailable } from "./ManagementFailures.ts"
import { deviceView, jobView, seenWithinMs } from "./ManagementViews.ts"
import { cursorAt, deviceBehind, jobBehind, pageSize } from "./Pages.ts"
import type { ServerActors } from "./ServerActors.ts"
import { makeJobWaiting } from "./Waiting.ts"

export interface ManagementOptions {
  readonly actors: ServerActors
  readonly inspect: Effect.Effect<SystemInspection>
  readonly startedAtMs: number
  readonly pollSleepMs: number
  /** Of one token. */
  readonly requestsPerMinute: number
  /** All figures in Prometheus' text format. */
  readonly metrics: Effect.Effect<string>
  /** How the onion services are; by default there are none. */
  readonly onion?: Effect.Effect<OnionStatus | null>
  /** Whether the server carries messages between devices, or should and does not; by default it does not. */
  readonly messaging?: "on" | "off" | "broken"
  /** Resolves when the API is about to stop: requests that wait are then answered with what there is. */
  readonly stopping: Effect.Effect<void>
}

/** A chunk stays below 110 KiB in base64. */
const chunksPerPage = 32
/** Points of a series where nobody says how many. */
const seriesPoints = 96

const atMost = (asked: number, maximum: number): number => Math.min(Math.max(1, asked), maximum)

/** What operators say of devices: the registrar judges it. */
const decisions = (registrar: ServerActors["registrar"]) => ({
  invite: Effect.fnUntraced(function* ({
    payload
  }: {
    readonly payload: { readonly id: InvitationId; readonly expires_at_ms: number }
  }) {
    const actor = yield* callerName
    yield* orUnavailable(registrar.ask("Invite", { ...payload, actor }))
    return { ok: true } as const
  }),
  preauthorise: Effect.fnUntraced(function* ({ payload }: { readonly payload: DsseEnvelope }) {
    const actor = yield* callerName
    yield* orUnavailable(registrar.ask("Preauthorise", { envelope: payload, actor }))
    return { ok: true } as const
  }),
  admit: Effect.fnUntraced(function* ({
    params,
    payload
  }: {
    readonly params: { readonly device: DeviceId }
    readonly payload: DsseEnvelope
  }) {
    const actor = yield* callerName
    const { device } = params
    yield* orUnavailable(registrar.ask("Admit", { device, envelope: payload, actor }))
    return { ok: true } as const
  })
})

export const DeviceHandlers = (options: ManagementOptions) =>
  HttpApiBuilder.group(ManagementApi, "devices", (handlers) =>
    Effect.gen(function* () {
      const store = yield* FleetStore
      const retention = yield* RetentionStore
      const registrar = options.actors.registrar
      const find = Effect.fnUntraced(function* (device: DeviceId) {
        const row = yield* orUnavailable(store.device(device))
        return row ?? (yield* new NotFound({ message: "no such device has enrolled" }))
      })
      return handlers.handleAll({
        ...decisions(registrar),
        list: Effect.fnUntraced(function* ({ query }) {
          const nowMs = yield* Clock.currentTimeMillis
          const heardMs = nowMs - seenWithinMs(options.pollSleepMs)
          const limit = pageSize(query.limit)
          const rows = yield* orUnavailable(
            store.devices({
              status: query.status,
              namePrefix: query.name_prefix,
              seenSinceMs: query.online === "true" ? heardMs : undefined,
              unseenSinceMs: query.online === "false" ? heardMs : undefined,
              after: yield* deviceBehind(query.after),
              limit: limit + 1
            })
          )
          const page = rows.slice(0, limit)
          return {
            devices: page.map((row) => deviceView(row, nowMs, options.pollSleepMs)),
            next: rows.length > limit ? cursorAt(page.at(-1), (row) => [row.enrolledAtMs, row.device]) : null
          }
        }),
        show: Effect.fnUntraced(function* ({ params }) {
          return deviceView(yield* find(params.device), yield* Clock.currentTimeMillis, options.pollSleepMs)
        }),
        sequence: Effect.fnUntraced(function* ({ params }) {
          yield* find(params.device)
          const { nextCounter, previous, rootVersion } = yield* orUnavailable(store.sequence(params.device))
          return { next_counter: nextCounter, previous, root_version: rootVersion }
        }),
        receipts: Effect.fnUntraced(function* ({ params, query }) {
          yield* find(params.device)
          const cut = yield* orUnavailable(retention.receiptCut(params.device))
          const restored = yield* orUnavailable(retention.restored)
          const rows = yield* orUnavailable(store.receipts(params.device, query.from, Limits.receiptsPerPage))
          return {
            receipts: rows.map(({ digest, envelope, number }) => ({ number, digest, envelope })),
            pruned_below: cut?.belowNumber ?? null,
            restored_at_ms: restored?.atMs ?? null
          }
        }),
        health: Effect.fnUntraced(function* ({ params, query }) {
          yield* find(params.device)
          const reports = yield* orUnavailable(
            store.health(params.device, atMost(query.limit, Limits.pageItems))
          )
          return { reports }
        }),
        series: Effect.fnUntraced(function* ({ params, query }) {
          yield* find(params.device)
          const nowMs = yield* Clock.currentTimeMillis
          const { from_ms: from, points = seriesPoints, until_ms: until = nowMs } = query
          const most = atMost(points, Limits.seriesPoints)
          const { samples, stepMs } = yield* orUnavailable(store.series(params.device, from, until, most))
          return { step_ms: stepMs, samples }
        })
      })
    })
  )

/** The ciphertext of payloads and artifacts. */
const makeTransfers = Effect.gen(function* () {
  const blobs = yield* BlobStore
  return {
    upload: Effect.fnUntraced(function* (digest: Digest, offset: number, total: number, block: Uint8Array) {
      const name = { kind: "payload", digest } as const
      const received = yield* blobs.write(name, offset, total, block).pipe(
        Effect.catchTag("BlobConflict", (error) =>
          // Ahead of us or behind: the answer says where to go on.
          error.receivedBytes !== offset && error.receivedBytes <= total
            ? Effect.succeed(error.receivedBytes)
            : Effect.fail(new Conflict({ code: "payload_conflict", message: error.reason }))
        ),
        orStorageFull,
        orUnavailable
      )
      return { received_bytes: received, complete: received === total }
    }),
    artifacts: Effect.fnUntraced(function* (order: OrderId, offset: number) {
      const blob = yield* blobs.read({ kind: "artifacts", order }, offset).pipe(
        Effect.catchTag("BlobMissing", () =>
          Effect.fail(new NotFound({ message: "the job has no complete artifacts" }))
        ),
        orUnavailable
      )
      if (offset >= blob.sizeBytes) return new Uint8Array(0)
      let lengthBytes = 0
      const parts = yield* blob.bytes.pipe(
        Stream.takeUntil((part) => {
          lengthBytes += part.length
          return lengthBytes >= Limits.blockBytes
        }),
        Stream.runCollect,
        orUnavailable
      )
      return concatBytes(...parts).subarray(0, Limits.blockBytes)
    })
  }
})

/** Fails where the job's output and artifacts were dropped. */
const requireResults = ({ resultsPruned }: JobRow): Effect.Effect<void, Gone> =>
  resultsPruned === null
    ? Effect.void
    : Effect.fail(
        new Gone({
          message: `the results of this job were dropped ${resultsPruned.why === "age" ? "for their age" : "to make room for newer ones"}`,
          pruned_at_ms: resultsPruned.atMs,
          why: resultsPruned.why
        })
      )

/** Hands an order to the actor of the device it is for, and gives its id. */
const makeSubmission = (actors: ServerActors) =>
  Effect.gen(function* () {
    const store = yield* FleetStore
    const engine = yield* CryptoEngine
    return Effect.fnUntraced(function* (envelope: DsseEnvelope, actor: string) {
      const opened = openUnverified(engine, "order", WorkOrder, envelope)
      if (Result.isFailure(opened)) return yield* new Refused({ message: opened.failure.message })
      const { device } = opened.success.document
      // Asked here, so that made-up ids do not start actors.
      if ((yield* orUnavailable(store.device(device))) === null) {
        return yield* new Conflict({ code: "unknown_device", message: "no such device has enrolled" })
      }
      return yield* orUnavailable(actors.device(device).ask("Submit", { envelope, actor }))
    })
  })

/** A page of jobs. */
const listJobs = Effect.fnUntraced(function* (store: FleetStore["Service"], query: JobQuery) {
  const limit = pageSize(query.limit)
  const filter = {
    device: query.device ?? null,
    open: query.open === "true",
    state: query.state,
    sinceMs: query.since_ms,
    untilMs: query.until_ms,
    after: yield* jobBehind(query.after),
    limit: limit + 1
  }
  const rows = yield* orUnavailable(store.jobs(filter))
  const page = rows.slice(0, limit)
  return {
    jobs: page.map(jobView),
    next: rows.length > limit ? cursorAt(page.at(-1), (row) => [row.submittedAtMs, row.id]) : null
  }
})

export const JobHandlers = (options: ManagementOptions) =>
  HttpApiBuilder.group(ManagementApi, "jobs", (handlers) =>
    Effect.gen(function* () {
      const store = yield* FleetStore
      const transfers = yield* makeTransfers
      const submit = yield* makeSubmission(options.actors)
      const waitFor = yield* makeJobWaiting(options.actors, options.stopping)
      const deviceOf = options.actors.device
      return handlers.handleAll({
        uploadPayload: Effect.fnUntraced(function* ({ params, payload, query }) {
          return yield* transfers.upload(params.digest, query.offset, query.total, payload)
        }),
        submit: Effect.fnUntraced(function* ({ payload: envelope }) {
          const id = yield* submit(envelope, yield* callerName)
          return yield* Effect.map(
            waitFor(id, 0, () => true),
            jobView
          ).pipe(
            Effect.catchTag(["NotFound", "Gone"], (error) =>
              Effect.fail(new Refused({ message: error.message }))
            )
          )
        }),
        list: ({ query }) => listJobs(store, query),
        show: ({ params, query }) =>
          Effect.map(
            waitFor(
              params.id,
              query.wait_ms ?? 0,
              (job) => job.version > (query.after ?? -1) || isFinal(job.state)
            ),
            jobView
          ),
        output: Effect.fnUntraced(function* ({ params, query }) {
          const { after, from } = query
          const isEnough = (job: JobRow) =>
            job.outputChunks > from || isFinal(job.state) || (after !== undefined && job.version > after)
          const job = yield* waitFor(params.id, query.wait_ms ?? 0, isEnough)
          yield* requireResults(job)
          const chunks = yield* orUnavailable(store.output(params.id, from, chunksPerPage))
          return {
            chunks: chunks.map(({ bytes, sequence }) => ({ sequence, data: encodeBase64(bytes) })),
            state: job.state,
            version: job.version,
            done_bytes: job.doneBytes,
            total_bytes: job.totalBytes,
            bytes_per_second: job.bytesPerSecond
          }
        }),
        artifacts: Effect.fnUntraced(function* ({ params, query }) {
          yield* requireResults(yield* waitFor(params.id, 0, () => true))
          return yield* transfers.artifacts(params.id, query.offset)
        }),
        cancel: Effect.fnUntraced(function* ({ params, payload }) {
          const actor = yield* callerName
          const job = yield* waitFor(params.id, 0, () => true)
          yield* orUnavailable(
            deviceOf(job.device).ask("Cancel", { order: params.id, envelope: payload, actor })
          )
          return { ok: true } as const
        }),
        stop: Effect.fnUntraced(function* ({ params }) {
          const actor = yield* callerName
          const job = yield* waitFor(params.id, 0, () => true)
          yield* orUnavailable(deviceOf(job.device).ask("Stop", { order: params.id, actor }))
          return { ok: true } as const
        })
      })
    })
  )
