/**
 * Fetching a payload: attempt after attempt, each going on where the last one stopped, over a way of its own. What came
 * stays on disk, and the whole is judged only when it is there. As long as bytes come, it is gone on with at once; when
 * none come, whoever called decides when to try again.
 */
import { Clock, Deferred, Effect, Result, Schema } from "effect"
import { PackageStore } from "../ports/PackageStore.ts"
import { type LinkError, ServerLink } from "../ports/ServerLink.ts"
import type { WorkOrder } from "../schemas/WorkOrder.ts"
import { monotonicMs } from "./Alarm.ts"
import { type Delays, delayAfter } from "./Delays.ts"

/** The bounds of a download, as it is taken up once. */
export interface DownloadBounds {
  /** For all attempts together; then others get their turn. */
  readonly timeoutMs: number
  /** Bytes per second over a window. */
  readonly minimumRate: number
}

/** It took too long, or too little came; it is to be tried again later. */
export class TooSlow extends Schema.TaggedError<TooSlow>()("TooSlow", {
  detail: Schema.String
}) {}

/** The connection ended before the payload did. */
export class CutShort extends Schema.TaggedError<CutShort>()("CutShort", {
  doneBytes: Schema.Finite
}) {}

/** Over which time the rate is measured. */
export const rateWindowMs = 30_000

/** Until the first byte: a circuit may take minutes to stand, and the link has limits of its own. */
const firstByteMs = 180_000

/** A larger payload takes a way of its own, so that polls and cancels do not stand behind it. */
export const ownWayBytes = 1024 * 1024

/** So many attempts in a row may come to nothing before it is put off: the first may have met a bad circuit. */
const barrenAttempts = 2
/** Between attempts, so that a line that breaks at once costs little; an attempt worth its cost begins the row anew. */
const attemptDelays: Delays = { firstMs: 500, factor: 2, maximumMs: 30_000 }
const worthwhileBytes = 64 * 1024

/** Fails when the first byte is late, and when too little was added within a window after it; never succeeds. */
const watchRate = (flows: Deferred.Deferred<void>, doneBytes: () => number, minimumRate: number) =>
  Effect.gen(function* () {
    yield* Effect.timeoutOrElse(Deferred.await(flows), {
      duration: firstByteMs,
      orElse: () => Effect.fail(new TooSlow({ detail: `nothing came within ${firstByteMs / 1_000} s` }))
    })
    let before = doneBytes()
    return yield* Effect.forever(
      Effect.sleep(rateWindowMs).pipe(
        Effect.andThen(
          Effect.suspend(() => {
            const came = doneBytes() - before
            before = doneBytes()
            return came < (minimumRate * rateWindowMs) / 1_000
              ? Effect.fail(new TooSlow({ detail: `${came} bytes came within ${rateWindowMs / 1_000} s` }))
              : Effect.void
          })
        )
      )
    )
  })

/** One attempt: from what is on disk to the end of the payload, or of the connection. */
const attempt = Effect.fnUntraced(function* (
  order: WorkOrder,
  minimumRate: number,
  circuit: string | undefined,
  onProgress: (doneBytes: number) => Effect.Effect<void>
) {
  const store = yield* PackageStore
  const link = yield* ServerLink
  let doneBytes = yield* store.downloaded(order.id)
  if (doneBytes >= order.payload.size_bytes) return
  const part = link.payload(order.payload.digest, doneBytes, circuit === undefined ? {} : { circuit })
  const flows = Deferred.makeUnsafe<void>()
  const transfer = store.download(order, doneBytes, part, (bytes) => {
    doneBytes = bytes
    Deferred.doneUnsafe(flows, Effect.void)
    return onProgress(bytes)
  })
  yield* Effect.raceFirst(
    transfer,
    watchRate(flows, () => doneBytes, minimumRate)
  )
  const onDisk = yield* store.downloaded(order.id)
  if (onDisk < order.payload.size_bytes) return yield* new CutShort({ doneBytes: onDisk })
})

/** Whether another attempt may do better at once: the line failed, not the payload and not the disk. */
const isOfTheLine = (error: { readonly _tag: string }): error is LinkError | TooSlow | CutShort =>
  error._tag === "ServerUnreachable" || error._tag === "TooSlow" || error._tag === "CutShort"

/**
 * Fetches what is missing of an order's payload. `onProgress` hears the bytes on disk. Each attempt but the first of a
 * small payload names a circuit of its own: through Tor it takes a fresh one, elsewhere the name says nothing.
 */
export const download = (
  order: WorkOrder,
  bounds: DownloadBounds,
  onProgress: (doneBytes: number) => Effect.Effect<void>
) =>
  Effect.gen(function* () {
    const store = yield* PackageStore
    const begunAt = yield* Clock.currentTimeMillis
    const endAt = (yield* monotonicMs) + bounds.timeoutMs
    let failures = 0
    let barren = 0
    for (let number = 1; ; number++) {
      const before = yield* store.downloaded(order.id)
      const own = number > 1 || order.payload.size_bytes - before > ownWayBytes
      const circuit = own ? `payload-${order.id}-${begunAt}-${number}` : undefined
      const outcome = yield* Effect.result(attempt(order, bounds.minimumRate, circuit, onProgress))
      if (Result.isSuccess(outcome)) return
      if (!isOfTheLine(outcome.failure)) return yield* outcome.failure
      const came = (yield* store.downloaded(order.id)) - before
      barren = came > 0 && outcome.failure._tag !== "TooSlow" ? 0 : barren + 1
      failures = came >= worthwhileBytes ? 1 : failures + 1
      const pauseMs = yield* delayAfter(attemptDelays, failures)
      if (barren >= barrenAttempts || (yield* monotonicMs) + pauseMs >= endAt) return yield* outcome.failure
      yield* Effect.logDebug(`the download goes on in a moment: ${came} bytes came`).pipe(
        Effect.annotateLogs({ order: order.id, attempt: number })
      )
      yield* Effect.sleep(pauseMs)
    }
  }).pipe(
    Effect.timeoutOrElse({
      duration: bounds.timeoutMs,
      orElse: () =>
        Effect.fail(new TooSlow({ detail: `it was not done within ${bounds.timeoutMs / 1_000} s` }))
    })
  )
