/**
 * Following a job's output: encrypted chunks as they come, decrypted, counted and hashed, and at the end held against the
 * verified receipt.
 *
 * @module
 */
import { Clock, Effect, Result } from "effect"
import { ManagementClient, type ServerProblem } from "../../adapters/operator/ManagementClient.ts"
import type { OperatorKeys } from "../../adapters/operator/OperatorKeys.ts"
import { decodeBase64 } from "../../crypto/Base64.ts"
import { concatBytes } from "../../crypto/Bytes.ts"
import { digestOf } from "../../crypto/Documents.ts"
import { decryptBytes } from "../../crypto/PackageCipher.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import type { OrderId } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import type { JobView, OutputPage } from "../../schemas/ManagementApi.ts"
import { decodeFrames, firstSequence, type OutputFrame } from "../../schemas/OutputFrames.ts"
import type { Receipt } from "../../schemas/Receipt.ts"
import { isFinal } from "../../schemas/WorkOrder.ts"
import { failure } from "./Failure.ts"
import { type JudgedJob, judgeWithChain } from "./Verification.ts"

/** How long the server may hold a question open when there is nothing new. */
const holdMs = 20_000
/** How long an unreachable server is asked again before the command gives up; the job goes on meanwhile. */
const patienceMs = 5 * 60_000
const retryDelayMs = 1_000
/** How long a finished job's receipt and last output may take to follow its state. */
const stragglersMs = 60_000
const stragglerDelayMs = 250

/** Who is told of what comes. */
export interface FollowSink {
  readonly output: (sequence: number, frame: OutputFrame) => Effect.Effect<void>
  /** The job is in this state, and so far in it. */
  readonly state: (page: Omit<OutputPage, "chunks">) => Effect.Effect<void>
  /** The job runs again after an interruption: what came before is of an earlier attempt. */
  readonly attempt: (attempt: number) => Effect.Effect<void>
  /** The server is not reached at the moment. */
  readonly waiting: (problem: ServerProblem) => Effect.Effect<void>
}

/** Digests of the encrypted chunks seen, by sequence. */
type Seen = Map<number, Uint8Array>

/** Asks again while the server is not reached, for a while. */
const patiently = <A, R>(
  request: Effect.Effect<A, ServerProblem, R>,
  sink: FollowSink
): Effect.Effect<A, ServerProblem, R> =>
  Effect.gen(function* () {
    const startedMs = yield* Clock.currentTimeMillis
    for (;;) {
      const result = yield* Effect.result(request)
      if (Result.isSuccess(result)) return result.success
      const problem = result.failure
      const elapsedMs = (yield* Clock.currentTimeMillis) - startedMs
      const isPassing = problem.kind === "unreachable" || problem.kind === "unavailable"
      if (!isPassing || elapsedMs > patienceMs) return yield* problem
      yield* sink.waiting(problem)
      yield* Effect.sleep(retryDelayMs)
    }
  })

const openChunk = (keys: OperatorKeys, sequence: number, bytes: Uint8Array) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const opened = decryptBytes(engine, keys.ageIdentities, bytes)
    if (Result.isFailure(opened)) {
      return yield* failure(`Piece ${sequence} of the output cannot be read: ${opened.failure.message}`)
    }
    const frames = decodeFrames(opened.success)
    if (!Array.isArray(frames))
      return yield* failure(`Piece ${sequence} of the output is damaged: ${(frames as Error).message}`)
    return frames as ReadonlyArray<OutputFrame>
  })

const attemptOf = (sequence: number): number => Math.floor(sequence / Limits.outputChunks) + 1

/** Takes the chunks of a page that continue what was seen; gives the sequence to ask for next. */
const takePage = (keys: OperatorKeys, sink: FollowSink, page: OutputPage, from: number, seen: Seen) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    let next = from
    for (const { data, sequence } of page.chunks) {
      const beginsAttempt = sequence > next && sequence === firstSequence(attemptOf(sequence))
      if (sequence < next) continue
      // A chunk that is not next will come again once the one before it is there.
      if (sequence > next && !beginsAttempt) break
      const bytes = decodeBase64(data)
      if (bytes === undefined)
        return yield* failure("The server's answer is not base64. Is it a Postern server of this version?")
      if (beginsAttempt) yield* sink.attempt(attemptOf(sequence))
      seen.set(sequence, engine.sha256(bytes))
      for (const frame of yield* openChunk(keys, sequence, bytes)) yield* sink.output(sequence, frame)
      next = sequence + 1
    }
    return next
  })

/** Whether the output seen is the one the receipt speaks of. */
export const outputFits = (
  engine: typeof CryptoEngine.Service,
  receipt: Receipt,
  seen: ReadonlyMap<number, Uint8Array>
): boolean => {
  if (receipt.output === null) return true
  const first = firstSequence(receipt.attempts)
  const digests = Array.from({ length: receipt.output.chunks }, (_, index) => seen.get(first + index))
  const known = digests.filter((digest) => digest !== undefined)
  return known.length === digests.length && digestOf(engine, concatBytes(...known)) === receipt.output.digest
}

const isWhole = (receipt: Receipt, seen: ReadonlyMap<number, Uint8Array>): boolean => {
  const count = receipt.output?.chunks ?? 0
  return count === 0 || seen.has(firstSequence(receipt.attempts) + count - 1)
}

/** What following a job came to. */
export interface Followed {
  readonly job: JudgedJob
  /** Whether the whole output was seen and is the one the receipt speaks of; null while there is no receipt. */
  readonly outputVerified: boolean | null
}

/** The job as it is now, with its chain. */
export const currentJob = (id: OrderId) =>
  Effect.gen(function* () {
    const client = yield* ManagementClient
    return yield* client.call("look at the job", (api) => api.jobs.show({ params: { id }, query: {} }))
  })

/** A page of output from a sequence on, held open while there is nothing and the job's version is not above `after`. */
const outputPage = (id: OrderId, from: number, waitMs: number, after = 0) =>
  Effect.flatMap(ManagementClient, (client) =>
    client.call(
      "follow the output",
      (api) =>
        api.jobs.output({
          params: { id },
          query: waitMs === 0 ? { from } : { from, after, wait_ms: waitMs }
        }),
      waitMs + 30_000
    )
  )

/** What there is of the output now, without waiting. */
export const readOutput = (view: JobView, keys: OperatorKeys, sink: FollowSink) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const seen: Seen = new Map()
    let from = 0
    for (;;) {
      const page = yield* outputPage(view.id, from, 0)
      const next = yield* takePage(keys, sink, page, from, seen)
      if (next === from) break
      from = next
    }
    const job = yield* judgeWithChain(yield* currentJob(view.id))
    const outputVerified = job.receipt === null ? null : outputFits(engine, job.receipt.document, seen)
    return { job, outputVerified } satisfies Followed
  })

/** Follows until the job has ended, its receipt is there and all its output came. */
export const followJob = (id: OrderId, keys: OperatorKeys, sink: FollowSink) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const seen: Seen = new Map()
    let from = 0
    let version = -1
    let endedMs: number | undefined
    for (;;) {
      const askedMs = yield* Clock.currentTimeMillis
      // The first page says at once how the job is; from then on the server is asked for what is new.
      const holdNowMs = endedMs === undefined && version >= 0 ? holdMs : 0
      const page = yield* patiently(outputPage(id, from, holdNowMs, version), sink)
      const hasMoved = page.version > version
      if (hasMoved) {
        version = page.version
        yield* sink.state(page)
      }
      const next = yield* takePage(keys, sink, page, from, seen)
      const isIdle = next === from
      from = next
      if (!isFinal(page.state) || !isIdle) {
        // Neither a chunk that waits for the one before it nor a server that does not hold may make us ask without pause.
        const tookMs = (yield* Clock.currentTimeMillis) - askedMs
        if (isIdle && !hasMoved && tookMs < stragglerDelayMs) yield* Effect.sleep(stragglerDelayMs)
        continue
      }
      const view = yield* patiently(currentJob(id), sink)
      const nowMs = yield* Clock.currentTimeMillis
      endedMs = endedMs ?? nowMs
      const isLate = nowMs - endedMs > stragglersMs
      if (view.receipt === null && !isLate) {
        yield* Effect.sleep(stragglerDelayMs)
        continue
      }
      const job = yield* judgeWithChain(view)
      if (job.receipt !== null && !isWhole(job.receipt.document, seen) && !isLate) {
        yield* Effect.sleep(stragglerDelayMs)
        continue
      }
      const outputVerified = job.receipt === null ? null : outputFits(engine, job.receipt.document, seen)
      return { job, outputVerified } satisfies Followed
    }
  })
