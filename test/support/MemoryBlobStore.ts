/** Blobs in memory, for simulation: done at once, and kept by the caller over simulated crashes. */
import { Clock, Effect, Layer, Stream } from "effect"
import {
  blobNamed,
  blobPath,
  blockFlaw,
  conflict,
  describeBlob,
  overlap
} from "../../src/adapters/blobs/BlobRules.ts"
import { concatBytes, equalBytes } from "../../src/crypto/Bytes.ts"
import { digestOf } from "../../src/crypto/Documents.ts"
import type { Engine } from "../../src/crypto/Engine.ts"
import { type BlobConflict, BlobMissing, type BlobName, BlobStore } from "../../src/ports/BlobStore.ts"
import { CryptoEngine } from "../../src/ports/CryptoEngine.ts"

interface Blob {
  readonly bytes: Uint8Array
  readonly complete: boolean
  readonly changedAtMs?: number
}

const readBytes = 64 * 1024

/** As a disk gives it. */
const inBlocks = (bytes: Uint8Array): ReadonlyArray<Uint8Array> =>
  Array.from({ length: Math.ceil(bytes.length / readBytes) }, (_, n) =>
    bytes.subarray(n * readBytes, (n + 1) * readBytes)
  )

/** What outlives the layer. */
export type BlobMemory = Map<string, Blob>

const nothing: Blob = { bytes: new Uint8Array(0), complete: false }
const keyOf = (name: BlobName): string => blobPath(name).join("/")

const join = (
  engine: Engine,
  name: BlobName,
  there: Blob,
  offset: number,
  totalBytes: number,
  block: Uint8Array
): Blob | BlobConflict => {
  const size = there.bytes.length
  const flaw = blockFlaw(name, offset, totalBytes, block.length)
  if (flaw !== undefined) return conflict(name, flaw, size)
  if (there.complete)
    return size === totalBytes ? there : conflict(name, `it is complete with ${size} bytes`, size)
  const known = overlap(offset, block.length, size)
  if (known === "gap") return conflict(name, `the bytes from ${size} to ${offset} are missing`, size)
  if (!equalBytes(there.bytes.subarray(offset, offset + known), block.subarray(0, known))) {
    return conflict(name, "the block differs from what was there, which is dropped: begin again", 0)
  }
  const bytes = concatBytes(there.bytes, block.subarray(known))
  if (bytes.length > totalBytes)
    return conflict(name, `${bytes.length} bytes are there, more than the total`, bytes.length)
  const complete = bytes.length === totalBytes
  if (complete && name.kind === "payload" && digestOf(engine, bytes) !== name.digest) {
    return conflict(name, "the digest of the whole is another, and it is dropped: begin again", 0)
  }
  return { bytes, complete }
}

export const MemoryBlobStore = (memory: BlobMemory): Layer.Layer<BlobStore, never, CryptoEngine> =>
  Layer.effect(
    BlobStore,
    Effect.map(CryptoEngine, (engine) => ({
      write: (name, offset, totalBytes, block) =>
        Effect.flatMap(Clock.currentTimeMillis, (changedAtMs) => {
          const joined = join(engine, name, memory.get(keyOf(name)) ?? nothing, offset, totalBytes, block)
          if ("complete" in joined) {
            memory.set(keyOf(name), { ...joined, changedAtMs })
            return Effect.succeed(joined.bytes.length)
          }
          if (joined.receivedBytes === 0) memory.delete(keyOf(name))
          return Effect.fail(joined)
        }),
      state: (name) =>
        Effect.sync(() => {
          const { bytes, complete } = memory.get(keyOf(name)) ?? nothing
          return { receivedBytes: bytes.length, complete }
        }),
      read: (name, offset) =>
        Effect.suspend(() => {
          const blob = memory.get(keyOf(name))
          return blob?.complete === true
            ? Effect.succeed({
                sizeBytes: blob.bytes.length,
                bytes: Stream.fromIterable(inBlocks(blob.bytes.slice(offset)))
              })
            : Effect.fail(new BlobMissing({ name: describeBlob(name) }))
        }),
      remove: (name, unchangedSinceMs = Number.POSITIVE_INFINITY) =>
        Effect.sync(() => {
          const changedAtMs = memory.get(keyOf(name))?.changedAtMs ?? 0
          if (changedAtMs <= unchangedSinceMs) memory.delete(keyOf(name))
        }),
      list: (kind) =>
        Effect.sync(() =>
          [...memory].flatMap(([key, { bytes, changedAtMs = 0 }]) => {
            const [folder, file] = key.split("/") as [string, string]
            const name = blobNamed(folder, file)?.name
            return name?.kind === kind ? [{ name, sizeBytes: bytes.length, changedAtMs }] : []
          })
        ),
      freeBytes: Effect.succeed(null)
    }))
  )
