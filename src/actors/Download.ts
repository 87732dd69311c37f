/**
 * Fetching a payload: goes on where it stopped, gives up an attempt that is too slow. What came stays on disk, and the
 * whole is judged only when it is there.
 */
import { Effect, Schema } from "effect"
import { PackageStore } from "../ports/PackageStore.ts"
import { ServerLink } from "../ports/ServerLink.ts"
import type { WorkOrder } from "../schemas/WorkOrder.ts"

/** The bounds of one attempt. */
export interface DownloadBounds {
  /** For the whole attempt. */
  readonly timeoutMs: number
  /** Bytes per second over a window. */
  readonly minimumRate: number
}

/** The attempt took too long, or too little came; it is to be tried again later. */
export class TooSlow extends Schema.TaggedError<TooSlow>()("TooSlow", {
  detail: Schema.String
}) {}

/** The connection ended before the payload did. */
export class CutShort extends Schema.TaggedError<CutShort>()("CutShort", {
  doneBytes: Schema.Finite
}) {}

/** Over which time the rate is measured. */
export const rateWindowMs = 30_000

/** Fails when too little was added within a window; never succeeds. */
const watchRate = (doneBytes: () => number, minimumRate: number) =>
  Effect.suspend(() => {
    let before = doneBytes()
    return Effect.forever(
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

/** Fetches what is missing of an order's payload. `onProgress` hears the bytes on disk. */
export const download = (
  order: WorkOrder,
  bounds: DownloadBounds,
  onProgress: (doneBytes: number) => Effect.Effect<void>
) =>
  Effect.gen(function* () {
    const store = yield* PackageStore
    const link = yield* ServerLink
    const totalBytes = order.payload.size_bytes
    let doneBytes = yield* store.downloaded(order.id)
    if (doneBytes >= totalBytes) return
    const transfer = store.download(
      order,
      doneBytes,
      link.payload(order.payload.digest, doneBytes),
      (bytes) => {
        doneBytes = bytes
        return onProgress(bytes)
      }
    )
    yield* Effect.raceFirst(
      transfer,
      watchRate(() => doneBytes, bounds.minimumRate)
    ).pipe(
      Effect.timeoutOrElse({
        duration: bounds.timeoutMs,
        orElse: () =>
          Effect.fail(new TooSlow({ detail: `it was not done within ${bounds.timeoutMs / 1_000} s` }))
      })
    )
    const onDisk = yield* store.downloaded(order.id)
    if (onDisk < totalBytes) return yield* new CutShort({ doneBytes: onDisk })
  })
