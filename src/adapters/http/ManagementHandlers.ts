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
import { FleetTrust } from "../../ports/FleetTrust.ts"
import { Identity } from "../../ports/Identity.ts"
import type { DsseEnvelope } from "../../schemas/Dsse.ts"
import type { DeviceId, Digest, OrderId, ServerId } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import { Conflict, ManagementApi, NotFound, Refused } from "../../schemas/ManagementApi.ts"
import { software } from "../../schemas/Version.ts"
import { isFinal, WorkOrder } from "../../schemas/WorkOrder.ts"
import { requireRole } from "./ManagementAccess.ts"
import { orUnavailable } from "./ManagementFailures.ts"
import { deviceView, jobView, laggardView } from "./ManagementViews.ts"
import type { ServerActors } from "./ServerActors.ts"
import { makeJobWaiting } from "./Waiting.ts"

export interface ManagementOptions {
  readonly actors: ServerActors
  readonly inspect: Effect.Effect<SystemInspection>
  readonly startedAtMs: number
  readonly pollSleepMs: number
  /** Resolves when the API is about to stop: requests that wait are then answered with what there is. */
  readonly stopping: Effect.Effect<void>
}

/** Receipts and chunks of one page; a receipt's envelope stays well below 16 KiB, a chunk below 110 in base64. */
const receiptsPerPage = 200
const chunksPerPage = 32

const atMost = (asked: number, maximum: number): number => Math.min(Math.max(1, asked), maximum)

export const ServerHandlers = (options: ManagementOptions) =>
  HttpApiBuilder.group(ManagementApi, "server", (handlers) =>
    Effect.gen(function* () {
      const store = yield* FleetStore
      const identity = yield* Identity
      const trust = yield* FleetTrust
      const registrar = options.actors.registrar
      return handlers.handleAll({
        status: Effect.fnUntraced(function* () {
          const counts = yield* orUnavailable(store.counts)
          const root = trust.current()?.root
          return {
            server: identity.id as ServerId,
            software,
            time_ms: yield* Clock.currentTimeMillis,
            started_at_ms: options.startedAtMs,
            root_version: root?.version ?? null,
            root_expires_at_ms: root?.expires_at_ms ?? null,
            ...counts
          }
        }),
        actors: () => options.inspect,
        roots: ({ query }) =>
          Effect.map(orUnavailable(store.roots(Math.max(1, query.from), 16)), (roots) => ({ roots })),
        publishRoot: Effect.fnUntraced(function* ({ payload }) {
          const actor = yield* requireRole("admin")
          yield* orUnavailable(registrar.ask("PublishRoot", { envelope: payload, actor }))
          return { ok: true } as const
        }),
        laggards: Effect.fnUntraced(function* ({ query }) {
          const version = trust.current()?.root.version ?? null
          if (version === null) return { root_version: null, count: 0, devices: [] }
          const limit = atMost(query.limit, Limits.pageItems)
          const { count, devices } = yield* orUnavailable(store.laggards(version, limit))
          return { root_version: version, count, devices: devices.map(laggardView) }
        }),
        audit: ({ query }) =>
          Effect.map(orUnavailable(store.audit(atMost(query.limit, Limits.pageItems))), (rows) => ({
            entries: rows.map(({ action, actor, atMs, subject }) => ({ at_ms: atMs, actor, action, subject }))
          }))
      })
    })
  )

export const DeviceHandlers = (options: ManagementOptions) =>
  HttpApiBuilder.group(ManagementApi, "devices", (handlers) =>
    Effect.gen(function* () {
      const store = yield* FleetStore
      const registrar = options.actors.registrar
      const find = Effect.fnUntraced(function* (device: DeviceId) {
        const row = yield* orUnavailable(store.device(device))
        return row ?? (yield* new NotFound({ message: "no such device has enrolled" }))
      })
      return handlers.handleAll({
        invite: Effect.fnUntraced(function* ({ payload }) {
          const actor = yield* requireRole("admin")
          yield* orUnavailable(registrar.ask("Invite", { ...payload, actor }))
          return { ok: true } as const
        }),
        list: Effect.fnUntraced(function* ({ query }) {
          const rows = yield* orUnavailable(store.devices({ status: query.status, limit: Limits.pageItems }))
          const nowMs = yield* Clock.currentTimeMillis
          return { devices: rows.map((row) => deviceView(row, nowMs, options.pollSleepMs)) }
        }),
        show: Effect.fnUntraced(function* ({ params }) {
          return deviceView(yield* find(params.device), yield* Clock.currentTimeMillis, options.pollSleepMs)
        }),
        admit: Effect.fnUntraced(function* ({ params, payload }) {
          const actor = yield* requireRole("operator")
          const { device } = params
          yield* orUnavailable(registrar.ask("Admit", { device, envelope: payload, actor }))
          return { ok: true } as const
        }),
        sequence: Effect.fnUntraced(function* ({ params }) {
          yield* find(params.device)
          const { nextCounter, previous, rootVersion } = yield* orUnavailable(store.sequence(params.device))
          return { next_counter: nextCounter, previous, root_version: rootVersion }
        }),
        receipts: Effect.fnUntraced(function* ({ params, query }) {
          yield* find(params.device)
          const rows = yield* orUnavailable(store.receipts(params.device, query.from, receiptsPerPage))
          return { receipts: rows.map(({ digest, envelope, number }) => ({ number, digest, envelope })) }
        }),
        health: Effect.fnUntraced(function* ({ params, query }) {
          yield* find(params.device)
          const reports = yield* orUnavailable(
            store.health(params.device, atMost(query.limit, Limits.pageItems))
          )
          return { reports }
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
          yield* requireRole("operator")
          return yield* transfers.upload(params.digest, query.offset, query.total, payload)
        }),
        submit: Effect.fnUntraced(function* ({ payload: envelope }) {
          const id = yield* submit(envelope, yield* requireRole("operator"))
          return yield* Effect.map(
            waitFor(id, 0, () => true),
            jobView
          ).pipe(Effect.catchTag("NotFound", (error) => Effect.fail(new Refused({ message: error.message }))))
        }),
        list: Effect.fnUntraced(function* ({ query }) {
          const filter = {
            device: query.device ?? null,
            open: query.open === "true",
            limit: Limits.pageItems
          }
          return { jobs: (yield* orUnavailable(store.jobs(filter))).map(jobView) }
        }),
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
          const { from } = query
          const isEnough = (job: JobRow) => job.outputChunks > from || isFinal(job.state)
          const job = yield* waitFor(params.id, query.wait_ms ?? 0, isEnough)
          const chunks = yield* orUnavailable(store.output(params.id, from, chunksPerPage))
          return {
            chunks: chunks.map(({ bytes, sequence }) => ({ sequence, data: encodeBase64(bytes) })),
            state: job.state,
            version: job.version
          }
        }),
        artifacts: Effect.fnUntraced(function* ({ params, query }) {
          yield* waitFor(params.id, 0, () => true)
          return yield* transfers.artifacts(params.id, query.offset)
        }),
        cancel: Effect.fnUntraced(function* ({ params, payload }) {
          const actor = yield* requireRole("operator")
          const job = yield* waitFor(params.id, 0, () => true)
          yield* orUnavailable(
            deviceOf(job.device).ask("Cancel", { order: params.id, envelope: payload, actor })
          )
          return { ok: true } as const
        }),
        stop: Effect.fnUntraced(function* ({ params }) {
          const actor = yield* requireRole("operator")
          const job = yield* waitFor(params.id, 0, () => true)
          yield* orUnavailable(deviceOf(job.device).ask("Stop", { order: params.id, actor }))
          return { ok: true } as const
        })
      })
    })
  )
