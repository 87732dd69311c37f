/**
 * Fetching a payload: in parts, over several circuits at once where the way goes through Tor. A part whose circuit fails
 * goes on over a fresh one. What came stays on disk, and the whole is judged only when it is there. As long as bytes come,
 * it is gone on with at once; when none come, whoever called decides when to try again.
 */
import { Clock, Deferred, Effect, Result, Schema } from "effect"
import { PackageStore } from "../ports/PackageStore.ts"
import { type LinkError, ServerLink } from "../ports/ServerLink.ts"
import { type Span, type Spans, spannedBytes } from "../schemas/Spans.ts"
import type { WorkOrder } from "../schemas/WorkOrder.ts"
import { monotonicMs } from "./Alarm.ts"
import { type Delays, delayAfter } from "./Delays.ts"

/** The bounds of a download, as it is taken up once. */
export interface DownloadBounds {
  /** For all attempts together; then others get their turn. */
  readonly timeoutMs: number
  /** Bytes per second over a window, all circuits together. */
  readonly minimumRate: number
  /** So many circuits at once through Tor, at the most. */
  readonly circuits: number
}

/** It took too long, or too little came; it is to be tried again later. */
export class TooSlow extends Schema.TaggedError<TooSlow>()("TooSlow", {
  detail: Schema.String
}) {}

/** The connection ended before what was asked for did. */
export class CutShort extends Schema.TaggedError<CutShort>()("CutShort", {
  doneBytes: Schema.Finite
}) {}

/** Over which time the rate is measured. */
export const rateWindowMs = 30_000

/** Until the first byte: a circuit may take minutes to stand, and the link has limits of its own. */
const firstByteMs = 180_000

/**
 * A payload that lacks less comes the way of the polls: a circuit of its own would take longer to stand than the bytes to
 * come. Also what a further circuit must have to do.
 */
export const ownWayBytes = 1024 * 1024

/** Sizes of parts: small enough that no circuit is left to work alone for long, large enough that asking costs little. */
const partBytes = { minimum: 512 * 1024, maximum: 4 * 1024 * 1024 }
const partsPerCircuit = 4

/** So many attempts in a row may come to nothing before it is put off: the first may have met a bad circuit. */
const barrenAttempts = 2
/** Between attempts, so that a line that breaks at once costs little; an attempt worth its cost begins the row anew. */
const attemptDelays: Delays = { firstMs: 500, factor: 2, maximumMs: 30_000 }
const worthwhileBytes = 64 * 1024

/** Whether another attempt may do better at once: the line failed, not the payload and not the disk. */
const isOfTheLine = (error: { readonly _tag: string }): error is LinkError | TooSlow | CutShort =>
  error._tag === "ServerUnreachable" || error._tag === "TooSlow" || error._tag === "CutShort"

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

/** One download while it is taken up: its order, what is still to be asked for, and how far it is. */
interface Taken {
  readonly order: WorkOrder
  /** Parts that nobody works on. */
  readonly parts: Array<Span>
  /** Bytes per second that each circuit must bring. */
  readonly minimumRate: number
  /** Names a circuit that nobody has used yet; absent where there is one way for all. */
  readonly circuit: () => string | undefined
  /** More bytes are on disk. */
  readonly added: (bytes: number) => Effect.Effect<void>
  readonly endAt: number
}

/** One attempt at a part; gives how far it came, and why no further. */
const attempt = Effect.fnUntraced(function* (taken: Taken, part: Span, circuit: string | undefined) {
  const { order } = taken
  const store = yield* PackageStore
  const link = yield* ServerLink
  const flows = Deferred.makeUnsafe<void>()
  let reached = part.from
  // The last part is asked for to its end, so that a payload longer than its order shows.
  const isLast = part.until === order.payload.size_bytes
  const way = {
    ...(isLast ? {} : { until: part.until }),
    ...(circuit === undefined ? {} : { circuit })
  }
  const bytes = link.payload(order.payload.digest, part.from, way)
  const transfer = store.download(order, part.from, bytes, (next) => {
    const came = next - reached
    reached = next
    Deferred.doneUnsafe(flows, Effect.void)
    return taken.added(came)
  })
  const watch = watchRate(flows, () => reached, taken.minimumRate)
  const outcome = yield* Effect.result(Effect.raceFirst(transfer, watch))
  const failure = Result.isFailure(outcome)
    ? outcome.failure
    : reached < part.until
      ? new CutShort({ doneBytes: reached })
      : null
  return { reached, failure }
})

/**
 * Works on one part after the other until none is left. Gives what ended it before: then its part is back among those that
 * nobody works on.
 */
const work = Effect.fnUntraced(function* (taken: Taken) {
  let circuit = taken.circuit()
  let failures = 0
  let barren = 0
  for (;;) {
    const part = taken.parts.shift()
    if (part === undefined) return null
    const { failure, reached } = yield* attempt(taken, part, circuit)
    if (reached < part.until) taken.parts.unshift({ from: reached, until: part.until })
    if (failure === null) {
      failures = barren = 0
      continue
    }
    if (!isOfTheLine(failure)) return yield* failure
    const came = reached - part.from
    barren = came > 0 && failure._tag !== "TooSlow" ? 0 : barren + 1
    failures = came >= worthwhileBytes ? 1 : failures + 1
    const pauseMs = yield* delayAfter(attemptDelays, failures)
    if (barren >= barrenAttempts || (yield* monotonicMs) + pauseMs >= taken.endAt) return failure
    yield* Effect.logDebug(`a part of the payload goes on in a moment: ${came} bytes of it came`)
    circuit = taken.circuit()
    yield* Effect.sleep(pauseMs)
  }
})

/** Cuts what is missing into parts, as many as give each circuit some. */
export const partsOf = (missing: Spans, circuits: number): ReadonlyArray<Span> => {
  if (circuits === 1) return missing
  const even = Math.ceil(spannedBytes(missing) / (circuits * partsPerCircuit))
  const size = Math.min(partBytes.maximum, Math.max(partBytes.minimum, even))
  return missing.flatMap(({ from, until }) =>
    Array.from({ length: Math.ceil((until - from) / size) }, (_, index) => ({
      from: from + index * size,
      until: Math.min(from + (index + 1) * size, until)
    }))
  )
}

/** Over how many circuits it is worth to fetch so much. */
const circuitsFor = (missingBytes: number, most: number): number =>
  Math.max(1, Math.min(most, Math.floor(missingBytes / ownWayBytes)))

const fetchAll = Effect.fnUntraced(function* (
  order: WorkOrder,
  bounds: DownloadBounds,
  onProgress: (doneBytes: number) => Effect.Effect<void>
) {
  const store = yield* PackageStore
  const link = yield* ServerLink
  const missing = yield* store.missing(order)
  const missingBytes = spannedBytes(missing)
  const circuits = (yield* link.hasCircuits) ? circuitsFor(missingBytes, bounds.circuits) : 1
  const begunAt = yield* Clock.currentTimeMillis
  const isSmall = missingBytes <= ownWayBytes
  let doneBytes = order.payload.size_bytes - missingBytes
  let named = 0
  const taken: Taken = {
    order,
    parts: [...partsOf(missing, circuits)],
    minimumRate: bounds.minimumRate / circuits,
    circuit: () => (isSmall && named++ === 0 ? undefined : `payload-${order.id}-${begunAt}-${named++}`),
    added: (bytes) => {
      doneBytes += bytes
      return onProgress(doneBytes)
    },
    endAt: (yield* monotonicMs) + bounds.timeoutMs
  }
  const workers = Array.from({ length: circuits }, () => work(taken))
  const ends = yield* Effect.all(workers, { concurrency: "unbounded" })
  const failure = ends.find((end) => end !== null)
  if (failure !== undefined && taken.parts.length > 0) return yield* failure
})

/**
 * Fetches what is missing of an order's payload. `onProgress` hears the bytes on disk. Each attempt names a circuit of its
 * own, but for the first at a small payload; where the way does not go through Tor the name says nothing.
 */
export const download = (
  order: WorkOrder,
  bounds: DownloadBounds,
  onProgress: (doneBytes: number) => Effect.Effect<void>
) =>
  fetchAll(order, bounds, onProgress).pipe(
    Effect.timeoutOrElse({
      duration: bounds.timeoutMs,
      orElse: () =>
        Effect.fail(new TooSlow({ detail: `it was not done within ${bounds.timeoutMs / 1_000} s` }))
    })
  )
