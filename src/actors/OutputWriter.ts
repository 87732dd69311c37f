/**
 * Turns a running job's output into encrypted chunks in the ledger's outbox, as it comes: a chunk is closed when it is
 * full or some time after its first byte. When no more can be kept the rest is cut and marked; the job goes on.
 */
import { Effect, type Scope, Semaphore } from "effect"
import { decodeHex, encodeHex } from "../crypto/Hex.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { Ledger } from "../ports/Ledger.ts"
import { PackageStore } from "../ports/PackageStore.ts"
import type { Digest } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import {
  encodeFrames,
  firstSequence,
  frameHeaderBytes,
  type OutputFrame,
  type OutputStream
} from "../schemas/OutputFrames.ts"
import type { WorkOrder } from "../schemas/WorkOrder.ts"
import { makeAlarm } from "./Alarm.ts"

/** What was kept of a job's output. */
export interface KeptOutput {
  readonly chunks: number
  /** SHA-256 over the raw digests of all chunks in order. */
  readonly digest: Digest
  readonly keptBytes: number
  /** Whether something was cut here (the jail counts what it cut itself). */
  readonly cut: boolean
}

/** The way from the jail to the outbox, for one run. */
export interface OutputWriter {
  /** Takes a piece; returns when it is buffered, or when the chunk it filled is stored. Never fails. */
  readonly write: (stream: OutputStream, bytes: Uint8Array) => Effect.Effect<void>
  /** Stores what is left and closes the account; later pieces are ignored. */
  readonly finish: Effect.Effect<KeptOutput>
}

const longestFlushMs = 1_800_000

/**
 * How long a chunk stays open when `chunks` are stored already. It doubles every 256 chunks, so that a job that trickles
 * for a week does not use up its chunks.
 */
export const flushAfterMs = (chunks: number): number =>
  Math.min(Limits.outputFlushMs * 2 ** Math.floor(chunks / 256), longestFlushMs)

/**
 * Makes the writer for one attempt at an order; its timer lives in the given Scope. `onStored` is run after each chunk that
 * the outbox took, so that it is sent while the job runs.
 */
export const makeOutputWriter = (
  order: WorkOrder,
  attempt: number,
  onStored: Effect.Effect<void> = Effect.void
): Effect.Effect<OutputWriter, never, Ledger | PackageStore | CryptoEngine | Scope.Scope> =>
  Effect.gen(function* () {
    const ledger = yield* Ledger
    const store = yield* PackageStore
    const hasher = (yield* CryptoEngine).hasher()
    const one = yield* Semaphore.make(1)
    let frames: Array<OutputFrame> = []
    let bufferedBytes = 0
    let contentBytes = 0
    let chunks = 0
    let keptBytes = 0
    let cut = false
    let finished = false

    const storeChunk = Effect.fnUntraced(function* (plaintext: Uint8Array, content: number) {
      const sealed = yield* store.sealChunk(plaintext, order.results_to)
      const stored = yield* ledger.putOutput(order.id, firstSequence(attempt) + chunks, sealed.bytes)
      if (!stored) return yield* Effect.fail({ reason: "the outbox is full" })
      chunks++
      keptBytes += content
      hasher.update(decodeHex(sealed.digest.slice("sha256:".length)) as Uint8Array)
      yield* onStored
    })

    const flush = Effect.suspend(() => {
      if (frames.length === 0) return Effect.void
      const plaintext = encodeFrames(frames)
      const content = contentBytes
      frames = []
      bufferedBytes = 0
      contentBytes = 0
      return storeChunk(plaintext, content).pipe(
        Effect.catch((error) => {
          cut = true
          return Effect.logWarning(`output is cut: ${error.reason}`).pipe(
            Effect.annotateLogs({ order: order.id })
          )
        })
      )
    })

    const alarm = yield* makeAlarm(one.withPermit(flush))

    /** Buffers one piece, chunk by chunk. */
    const take = Effect.fnUntraced(function* (stream: OutputStream, bytes: Uint8Array) {
      let rest = bytes
      while (rest.length > 0 && !finished) {
        if (chunks >= Limits.outputChunks) cut = true
        if (cut) return
        const room = Limits.outputChunkBytes - bufferedBytes - frameHeaderBytes
        if (room <= 0) {
          yield* flush
          continue
        }
        const piece = rest.slice(0, room)
        if (frames.length === 0) yield* alarm.ringIn(flushAfterMs(chunks))
        frames.push({ stream, bytes: piece })
        bufferedBytes += frameHeaderBytes + piece.length
        contentBytes += piece.length
        rest = rest.subarray(piece.length)
      }
    })

    return {
      write: (stream, bytes) => one.withPermit(take(stream, bytes)),
      finish: one.withPermit(
        Effect.gen(function* () {
          if (!finished) yield* flush
          finished = true
          yield* alarm.silence
          const digest = `sha256:${encodeHex(hasher.digest())}` as Digest
          return { chunks, digest, keptBytes, cut }
        })
      )
    }
  })
