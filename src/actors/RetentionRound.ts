/**
 * One round of retention. Rows are marked before files go, so that a crash between the two leaves a file without a row,
 * which the next round finds; never a row that promises a file.
 */
import { Clock, Effect } from "effect"
import { type BlobName, BlobStore, type StoredBlob } from "../ports/BlobStore.ts"
import { RetentionStore } from "../ports/RetentionStore.ts"
import type { Digest, OrderId } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import type { StorageView } from "../schemas/ManagementViews.ts"
import type { Dropped } from "../schemas/protocols/Retention.ts"
import type { RetentionConfig } from "../schemas/ServerConfig.ts"

const dayMs = 24 * 3_600_000
/** Jobs whose results go in one step; each may have a large file. */
const jobsPerStep = 16

export const nothingDropped: Dropped = {
  results: 0,
  artifacts: 0,
  payloads: 0,
  jobs: 0,
  receipts: 0,
  audit: 0,
  expired: 0,
  enrolments: 0
}

/** Repeats a step until it finds nothing more; gives how much it found. What fails is logged and left for the next round. */
const untilNone = <E extends { readonly reason: string }, R>(
  what: string,
  step: Effect.Effect<number, E, R>
): Effect.Effect<number, never, R> =>
  Effect.gen(function* () {
    let total = 0
    for (;;) {
      const count = yield* step
      total += count
      if (count === 0) return total
    }
  }).pipe(
    Effect.catch((error) => Effect.as(Effect.logWarning(`${what} are not dropped: ${error.reason}`), 0))
  )

const slices = <A>(items: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<A>> =>
  Array.from({ length: Math.ceil(items.length / Limits.pruneRows) }, (_, index) =>
    items.slice(index * Limits.pruneRows, (index + 1) * Limits.pruneRows)
  )

const removeBlobs = (names: ReadonlyArray<BlobName>, unchangedSinceMs?: number) =>
  Effect.flatMap(BlobStore, (blobs) =>
    Effect.forEach(names, (name) => blobs.remove(name, unchangedSinceMs), { discard: true })
  )

const artifactsOf = (orders: ReadonlyArray<OrderId>): ReadonlyArray<BlobName> =>
  orders.map((order) => ({ kind: "artifacts", order }))

/** Results that are too old, then the oldest of what is too much. */
const dropResults = (rules: RetentionConfig, nowMs: number) =>
  Effect.gen(function* () {
    const store = yield* RetentionStore
    const mark = (beforeMs: number, why: "age" | "size", maximum: number) =>
      Effect.gen(function* () {
        const dropped = yield* store.pruneResults({ beforeMs, nowMs, why, maximum })
        yield* removeBlobs(artifactsOf(dropped.map(({ order }) => order)))
        return dropped
      })
    const chunks = untilNone("chunks of output", store.pruneOutput(Limits.pruneRows))
    const aged = yield* untilNone(
      "old results",
      Effect.map(mark(nowMs - rules.results_days * dayMs, "age", jobsPerStep), (dropped) => dropped.length)
    )
    yield* chunks
    let surplusBytes: number | null = null
    const surplus = yield* untilNone(
      "surplus results",
      Effect.gen(function* () {
        if (surplusBytes === null) {
          const { artifactBytes, outputBytes } = yield* store.amounts
          surplusBytes = artifactBytes + outputBytes - rules.results_bytes
        }
        if (surplusBytes <= 0) return 0
        const dropped = yield* mark(nowMs, "size", 1)
        for (const { bytes } of dropped) surplusBytes -= bytes
        return dropped.length
      })
    )
    yield* chunks
    return aged + surplus
  })

/** Rows of the registry that are too old, or too many. */
const dropRows = (rules: RetentionConfig, nowMs: number) =>
  Effect.gen(function* () {
    const store = yield* RetentionStore
    const before = (days: number) => nowMs - days * dayMs
    const rows = Limits.pruneRows
    return {
      jobs: yield* untilNone("old jobs", store.pruneJobs(before(rules.jobs_days), nowMs, rows)),
      receipts: yield* untilNone(
        "old receipts",
        store.pruneReceipts(before(rules.receipts_days), nowMs, rows)
      ),
      audit: yield* untilNone(
        "old lines of the audit log",
        store.pruneAudit(before(rules.audit_days), rules.audit_entries, rows)
      ),
      expired: yield* untilNone(
        "expired invitations and tokens",
        store.pruneExpired(before(Limits.expiredDays), before(rules.receipts_days), rows)
      ),
      enrolments: yield* untilNone(
        "enrolments that nobody decided about",
        store.pruneEnrolments(before(rules.enrolments_days), rows)
      )
    }
  })

/** Files that no row speaks for: payloads whose jobs have ended, and what a crash left behind. */
const dropFiles = (rules: RetentionConfig, nowMs: number) =>
  Effect.gen(function* () {
    const store = yield* RetentionStore
    const blobs = yield* BlobStore
    const payloads = yield* blobs.list("payload")
    const artifacts = yield* blobs.list("artifacts")
    // Uploads that are not yet spoken for; a file that was just touched belongs to somebody.
    const unchangedSinceMs = nowMs - Limits.unsubmittedPayloadMs
    let payloadCount = 0
    for (const slice of slices(payloads.filter(({ changedAtMs }) => changedAtMs <= unchangedSinceMs))) {
      const digests = slice.map(({ name }) => (name as { readonly digest: Digest }).digest)
      const unused = yield* store.unusedPayloads(digests, nowMs - rules.payload_days * dayMs)
      yield* removeBlobs(
        unused.map((digest) => ({ kind: "payload", digest })),
        unchangedSinceMs
      )
      payloadCount += unused.length
    }
    let artifactCount = 0
    for (const slice of slices(artifacts)) {
      const orders = slice.map(({ name }) => (name as { readonly order: OrderId }).order)
      const stray = yield* store.strayArtifacts(orders)
      yield* removeBlobs(artifactsOf(stray))
      artifactCount += stray.length
    }
    return { payloads: payloadCount, artifacts: artifactCount }
  }).pipe(
    Effect.catch((error) =>
      Effect.as(Effect.logWarning(`files are not cleared away: ${error.reason}`), {
        payloads: 0,
        artifacts: 0
      })
    )
  )

const sizeOf = (files: ReadonlyArray<StoredBlob>): number =>
  files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)

/** How much there is now; null when it could not be found out. */
const measure = Effect.gen(function* () {
  const blobs = yield* BlobStore
  const payloads = yield* blobs.list("payload")
  const artifacts = yield* blobs.list("artifacts")
  const amounts = yield* (yield* RetentionStore).amounts
  const view: StorageView = {
    measured_at_ms: yield* Clock.currentTimeMillis,
    database_bytes: amounts.databaseBytes,
    payload_files: payloads.length,
    payload_bytes: sizeOf(payloads),
    artifact_files: artifacts.length,
    artifact_bytes: sizeOf(artifacts),
    output_bytes: amounts.outputBytes,
    jobs: amounts.jobs,
    receipts: amounts.receipts,
    audit_entries: amounts.auditEntries,
    free_bytes: yield* blobs.freeBytes
  }
  return view
}).pipe(
  Effect.catch((error) =>
    Effect.as(Effect.logWarning(`what is kept could not be measured: ${error.reason}`), null)
  )
)

/** Drops what the rules say, and measures what is left. Never fails: what does not go now goes later. */
export const retentionRound = (rules: RetentionConfig) =>
  Effect.gen(function* () {
    const nowMs = yield* Clock.currentTimeMillis
    const results = yield* dropResults(rules, nowMs)
    const rows = yield* dropRows(rules, nowMs)
    const files = yield* dropFiles(rules, nowMs)
    const dropped: Dropped = { results, ...rows, ...files }
    const words = Object.entries(dropped).flatMap(([what, count]) => (count > 0 ? [`${count} ${what}`] : []))
    if (words.length > 0) yield* Effect.logInfo(`dropped by retention: ${words.join(", ")}`)
    return { dropped, storage: yield* measure }
  })
