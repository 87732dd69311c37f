/**
 * A file that is written in parts, several at once and in any order, and that says truthfully after a crash which parts it
 * holds. While it grows at its end alone, its length says that. As soon as a part is to come out of order, a record beside
 * it does (`payload.age.parts`), which is replaced as a whole and names only what has been flushed before.
 *
 * @module
 */
import { type FileHandle, mkdir, open, rename, rm, stat } from "node:fs/promises"
import { dirname } from "node:path"
import { Clock, Effect, Result, Schema, Semaphore } from "effect"
import type { StorageError } from "../../ports/PackageStore.ts"
import { Limits } from "../../schemas/Limits.ts"
import { type Spans, SpansText, spannedBytes, spansBefore, withSpan } from "../../schemas/Spans.ts"
import { errorCode } from "../files/AtomicFile.ts"
import { syncFolder, writeFully } from "../files/Handles.ts"
import { storage } from "../files/StorageFailure.ts"

/** A power cut costs no more than so many bytes, or what came within so long. */
const flushEvery = { bytes: 4 * 1024 * 1024, ms: 5_000 }
/** Two numbers of nine digits and their brackets for each part. */
const recordBytes = 24 * Limits.downloadSpans + 2

const recordOf = (path: string): string => `${path}.parts`

const isMissing = (error: unknown): boolean => errorCode(error) === "ENOENT"

const decodeSpans = Schema.decodeUnknownResult(Schema.fromJsonString(SpansText))

/** The record's spans; null where there is none, nothing where it cannot be read: what it told of is fetched again. */
const readRecord = async (path: string): Promise<Spans | null> => {
  let handle: FileHandle
  try {
    handle = await open(recordOf(path), "r")
  } catch (error) {
    if (isMissing(error)) return null
    throw error
  }
  try {
    const buffer = new Uint8Array(recordBytes)
    const { bytesRead } = await handle.read(buffer, 0, recordBytes, 0)
    const spans = decodeSpans(Buffer.from(buffer.subarray(0, bytesRead)).toString("utf8"))
    return Result.isSuccess(spans) ? spans.success.map(([from, until]) => ({ from, until })) : []
  } finally {
    await handle.close()
  }
}

const writeRecord = async (path: string, spans: Spans): Promise<void> => {
  const pairs = spans.slice(0, Limits.downloadSpans).map(({ from, until }) => [from, until])
  const record = recordOf(path)
  const handle = await open(`${record}.new`, "w", 0o600)
  try {
    await writeFully(handle, Buffer.from(JSON.stringify(pairs)))
    await handle.datasync()
  } finally {
    await handle.close()
  }
  await rename(`${record}.new`, record)
  await syncFolder(dirname(record))
}

/** What is known of a file that nobody writes: its spans, and whether its length alone says them. */
const look = async (path: string): Promise<{ readonly spans: Spans; readonly isPlain: boolean }> => {
  let size = 0
  try {
    size = (await stat(path)).size
  } catch (error) {
    if (!isMissing(error)) throw error
  }
  const recorded = await readRecord(path)
  // A record may be older than a file that was lost; it is never believed beyond the file's end.
  return recorded === null
    ? { spans: withSpan([], { from: 0, until: size }), isPlain: true }
    : { spans: spansBefore(recorded, size), isPlain: false }
}

/** The parts that the file at `path` holds. */
export const heldSpans = (path: string): Effect.Effect<Spans, StorageError> =>
  storage("look at", path, async () => (await look(path)).spans)

/** A file that is being written, by all who write it at the moment. */
export interface GrowingFile {
  readonly heldBytes: () => number
  /** Writes a block in its place. */
  readonly write: (at: number, block: Uint8Array) => Effect.Effect<void, StorageError>
  /** Makes durable what was written, and the record true. */
  readonly flush: Effect.Effect<void, StorageError>
  /** Its folder is gone: nothing of it is kept any more. */
  readonly abandon: () => void
  /** Flushes and closes. */
  readonly close: Effect.Effect<void, StorageError>
}

const openHandle = async (path: string): Promise<FileHandle> => {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  try {
    return await open(path, "r+")
  } catch (error) {
    if (!isMissing(error)) throw error
    return await open(path, "wx+", 0o600)
  }
}

const writeAt = async (handle: FileHandle, at: number, block: Uint8Array): Promise<void> => {
  let done = 0
  while (done < block.length)
    done += (await handle.write(block, done, block.length - done, at + done)).bytesWritten
}

/** Opens the file at `path`, which is made where it is missing. The caller closes it. */
export const openGrowing = (path: string): Effect.Effect<GrowingFile, StorageError> =>
  Effect.gen(function* () {
    const known = yield* storage("look at", path, () => look(path))
    const handle = yield* storage("open", path, () => openHandle(path))
    // One flush at a time; blocks are written beside it.
    const turn = yield* Semaphore.make(1)
    let { isPlain, spans } = known
    let unflushed = 0
    let flushedAt = yield* Clock.currentTimeMillis
    let isAbandoned = false

    const flushNow = Effect.gen(function* () {
      flushedAt = yield* Clock.currentTimeMillis
      yield* storage("flush", path, async () => {
        if (isAbandoned) return
        // What is written while this flushes is not in the record yet, and counts towards the next one.
        const flushed = spans
        unflushed = 0
        await handle.datasync()
        if (!isPlain && !isAbandoned) await writeRecord(path, flushed)
      })
    })
    const flush = turn.withPermits(1)(flushNow)
    /** Before the first byte that leaves a gap: from here on the length says nothing. */
    const becomeRecorded = turn.withPermits(1)(
      Effect.suspend(() =>
        isPlain
          ? storage("record", path, async () => {
              const before = spans
              await handle.datasync()
              await writeRecord(path, before)
              isPlain = false
            })
          : Effect.void
      )
    )

    const write = Effect.fnUntraced(function* (at: number, block: Uint8Array) {
      if (isPlain && at > (spans[0]?.until ?? 0)) yield* becomeRecorded
      yield* storage("write", path, () => writeAt(handle, at, block))
      spans = withSpan(spans, { from: at, until: at + block.length })
      unflushed += block.length
      const dueMs = flushedAt + flushEvery.ms
      if (unflushed >= flushEvery.bytes || (!isPlain && (yield* Clock.currentTimeMillis) >= dueMs))
        yield* flush
    })

    const close = flush.pipe(
      Effect.andThen(
        storage("settle", path, async () => {
          // One part from the beginning to the end of the file: its length says it again.
          const [only, more] = spans
          const { size } = await handle.stat()
          if (isPlain || isAbandoned || more !== undefined || only?.from !== 0 || only.until !== size) return
          await rm(recordOf(path), { force: true })
        })
      ),
      Effect.ensuring(Effect.ignore(storage("close", path, () => handle.close())))
    )
    return {
      heldBytes: () => spannedBytes(spans),
      write,
      flush,
      abandon: () => {
        isAbandoned = true
      },
      close
    }
  })
