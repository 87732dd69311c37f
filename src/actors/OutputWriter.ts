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

/** The chunk that is open: pieces in order, up to what one chunk holds. */
class OpenChunk {
  private frames: Array<OutputFrame> = []
  private sizeBytes = 0
  private contentBytes = 0

  get isEmpty(): boolean {
    return this.frames.length === 0
  }

  /** Takes as much of a piece as there is room for; gives how much that was. */
  push(stream: OutputStream, bytes: Uint8Array): number {
    const room = Limits.outputChunkBytes - this.sizeBytes - frameHeaderBytes
    if (room <= 0) return 0
    // A copy: the jail may use its buffer again.
    const piece = bytes.slice(0, room)
    this.frames.push({ stream, bytes: piece })
    this.sizeBytes += frameHeaderBytes + piece.length
    this.contentBytes += piece.length
    return piece.length
  }

  /** Closes the chunk and begins the next. */
  close(): { readonly plaintext: Uint8Array; readonly contentBytes: number } {
    const closed = { plaintext: encodeFrames(this.frames), contentBytes: this.contentBytes }
    this.frames = []
    this.sizeBytes = 0
    this.contentBytes = 0
    return closed
  }
}

/** What was stored so far, and the way to store one chunk more. */
const makeAccount = (order: WorkOrder, attempt: number, onStored: Effect.Effect<void>) =>
  Effect.gen(function* () {
    const ledger = yield* Ledger
    const store = yield* PackageStore
    const hasher = (yield* CryptoEngine).hasher()
    const account = { chunks: 0, keptBytes: 0, cut: false }

    const put = Effect.fnUntraced(function* (plaintext: Uint8Array, contentBytes: number) {
      const sealed = yield* store.sealChunk(plaintext, order.results_to)
      const sequence = firstSequence(attempt) + account.chunks
      const stored = yield* ledger.putOutput(order.id, sequence, sealed.bytes)
      if (!stored) return yield* Effect.fail({ reason: "the outbox is full" })
      account.chunks++
      account.keptBytes += contentBytes
      hasher.update(decodeHex(sealed.digest.slice("sha256:".length)) as Uint8Array)
      yield* onStored
    })

    return {
      /** Whether nothing more is kept: what comes now is cut. */
      isClosed: () => {
        if (account.chunks >= Limits.outputChunks) account.cut = true
        return account.cut
      },
      chunks: () => account.chunks,
      store: (plaintext: Uint8Array, contentBytes: number) =>
        put(plaintext, contentBytes).pipe(
          Effect.catch((error) => {
            account.cut = true
            const told = Effect.logWarning(`output is cut: ${error.reason}`)
            return Effect.annotateLogs(told, { order: order.id })
          })
        ),
      total: (): KeptOutput => ({ ...account, digest: `sha256:${encodeHex(hasher.digest())}` as Digest })
    }
  })

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
    const account = yield* makeAccount(order, attempt, onStored)
    const one = yield* Semaphore.make(1)
    const open = new OpenChunk()
    let finished = false

    const flush = Effect.suspend(() => {
      if (open.isEmpty) return Effect.void
      const { contentBytes, plaintext } = open.close()
      return account.store(plaintext, contentBytes)
    })
    const alarm = yield* makeAlarm(one.withPermit(flush))

    /** Buffers one piece, chunk by chunk. */
    const take = Effect.fnUntraced(function* (stream: OutputStream, bytes: Uint8Array) {
      let rest = bytes
      while (rest.length > 0 && !finished && !account.isClosed()) {
        if (open.isEmpty) yield* alarm.ringIn(flushAfterMs(account.chunks()))
        const taken = open.push(stream, rest)
        if (taken === 0) yield* flush
        rest = rest.subarray(taken)
      }
    })

    const finish = Effect.gen(function* () {
      if (!finished) yield* flush
      finished = true
      yield* alarm.silence
      return account.total()
    })

    return {
      write: (stream, bytes) => one.withPermit(take(stream, bytes)),
      finish: one.withPermit(finish)
    }
  })
