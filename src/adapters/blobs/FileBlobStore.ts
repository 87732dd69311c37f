/**
 * Ciphertext in files: `payloads/DIGEST.age` and `artifacts/ORDER.tar.zst.age`, each growing as `.part` until it is
 * whole. A block is flushed before it is answered; a whole payload is hashed from disk before it gets its name.
 */
import { constants, type Stats } from "node:fs"
import { type FileHandle, mkdir, open, readdir, rename, rm, stat, statfs, utimes } from "node:fs/promises"
import { join } from "node:path"
import { Effect, Layer, Option, Semaphore, Stream } from "effect"
import { equalBytes } from "../../crypto/Bytes.ts"
import type { Engine } from "../../crypto/Engine.ts"
import { encodeHex } from "../../crypto/Hex.ts"
import {
  BlobConflict,
  BlobError,
  BlobMissing,
  type BlobName,
  BlobStore,
  type StoredBlob
} from "../../ports/BlobStore.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { Limits } from "../../schemas/Limits.ts"
import { errorCode, errorText } from "../files/AtomicFile.ts"
import { blobNamed, blobPath, blockFlaw, conflict, describeBlob, overlap } from "./BlobRules.ts"

const readChunkBytes = 64 * 1024

const statOf = async (path: string): Promise<Stats | undefined> => {
  try {
    return await stat(path)
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined
    throw error
  }
}

const sizeOf = async (path: string): Promise<number | undefined> => (await statOf(path))?.size

const syncFolder = async (path: string): Promise<void> => {
  const handle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

const readFully = async (handle: FileHandle, offset: number, lengthBytes: number): Promise<Uint8Array> => {
  const bytes = new Uint8Array(lengthBytes)
  let done = 0
  while (done < lengthBytes) {
    const { bytesRead } = await handle.read(bytes, done, lengthBytes - done, offset + done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  return bytes.subarray(0, done)
}

const writeFully = async (handle: FileHandle, bytes: Uint8Array, offset: number): Promise<void> => {
  let done = 0
  while (done < bytes.length) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, offset + done)
    done += bytesWritten
  }
}

const hashFile = async (handle: FileHandle, engine: Engine): Promise<string> => {
  const hasher = engine.hasher()
  const buffer = new Uint8Array(1024 * 1024)
  for (let offset = 0; ; ) {
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, offset)
    if (bytesRead === 0) return `sha256:${encodeHex(hasher.digest())}`
    hasher.update(buffer.subarray(0, bytesRead))
    offset += bytesRead
  }
}

/** The files of one folder. Methods reject with Node's errors, or with a {@link BlobConflict}. */
class BlobFiles {
  private readonly folder: string
  private readonly engine: Engine
  private readonly minimumFreeBytes: number
  /** Parts this process has looked at; their last block is known to be flushed. */
  private readonly touched = new Set<string>()

  constructor(folder: string, engine: Engine, minimumFreeBytes: number) {
    this.folder = folder
    this.engine = engine
    this.minimumFreeBytes = minimumFreeBytes
  }

  async prepare(): Promise<void> {
    for (const kind of ["payloads", "artifacts"]) {
      await mkdir(join(this.folder, kind), { recursive: true, mode: 0o700 })
    }
  }

  path(name: BlobName): string {
    return join(this.folder, ...blobPath(name))
  }

  /**
   * Opens the growing file. What an earlier process wrote last may have been cut off from its flush by a power cut, so
   * the last block is not believed and comes again.
   */
  private async openPart(path: string): Promise<{ readonly handle: FileHandle; readonly size: number }> {
    const handle = await open(
      `${path}.part`,
      constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW,
      0o600
    )
    try {
      let { size } = await handle.stat()
      if (!this.touched.has(path) && size > 0) {
        size = Math.max(0, size - Limits.blockBytes)
        await handle.truncate(size)
        await handle.sync()
      }
      this.touched.add(path)
      return { handle, size }
    } catch (error) {
      await handle.close()
      throw error
    }
  }

  async write(name: BlobName, offset: number, totalBytes: number, block: Uint8Array): Promise<number> {
    const flaw = blockFlaw(name, offset, totalBytes, block.length)
    if (flaw !== undefined) throw conflict(name, flaw, (await this.state(name)).receivedBytes)
    const path = this.path(name)
    const complete = await sizeOf(path)
    if (complete !== undefined) {
      if (complete === totalBytes) {
        // Asked for anew: whoever clears away what nobody needs leaves it a while longer.
        const now = new Date()
        await utimes(path, now, now)
        return complete
      }
      throw conflict(name, `it is complete with ${complete} bytes`, complete)
    }
    const { handle, size } = await this.openPart(path)
    try {
      const known = overlap(offset, block.length, size)
      if (known === "gap") throw conflict(name, `the bytes from ${size} to ${offset} are missing`, size)
      if (!equalBytes(await readFully(handle, offset, known), block.subarray(0, known))) {
        await this.dropPart(path)
        throw conflict(name, "the block differs from what was there, which is dropped: begin again", 0)
      }
      if (known < block.length) {
        await this.requireRoom(block.length - known)
        await writeFully(handle, block.subarray(known), offset + known)
        await handle.sync()
      }
      const now = Math.max(size, offset + block.length)
      if (now > totalBytes) throw conflict(name, `${now} bytes are there, more than the total`, now)
      if (now === totalBytes) await this.complete(name, path, handle)
      return now
    } finally {
      await handle.close()
    }
  }

  private async complete(name: BlobName, path: string, handle: FileHandle): Promise<void> {
    if (name.kind === "payload" && (await hashFile(handle, this.engine)) !== name.digest) {
      await this.dropPart(path)
      throw conflict(name, "the digest of the whole is another, and it is dropped: begin again", 0)
    }
    await rename(`${path}.part`, path)
    await syncFolder(join(path, ".."))
    this.touched.delete(path)
  }

  private async dropPart(path: string): Promise<void> {
    await rm(`${path}.part`, { force: true })
    this.touched.delete(path)
  }

  async state(name: BlobName): Promise<{ readonly receivedBytes: number; readonly complete: boolean }> {
    const path = this.path(name)
    const complete = await sizeOf(path)
    if (complete !== undefined) return { receivedBytes: complete, complete: true }
    const part = (await sizeOf(`${path}.part`)) ?? 0
    return {
      receivedBytes: this.touched.has(path) ? part : Math.max(0, part - Limits.blockBytes),
      complete: false
    }
  }

  /** Some room stays free for the databases: what devices report must find a place when ciphertext does not. */
  private async requireRoom(bytes: number): Promise<void> {
    if (this.minimumFreeBytes === 0 || (await this.freeBytes()) - bytes >= this.minimumFreeBytes) return
    const text = `less than ${this.minimumFreeBytes} bytes would stay free (minimum_free_bytes)`
    throw Object.assign(new Error(text), { code: "ENOSPC" })
  }

  async freeBytes(): Promise<number> {
    const { bavail, bsize } = await statfs(this.folder)
    return bavail * bsize
  }

  async remove(name: BlobName, unchangedSinceMs: number): Promise<void> {
    const path = this.path(name)
    for (const each of [path, `${path}.part`]) {
      const there = await statOf(each)
      if (there !== undefined && there.mtimeMs > unchangedSinceMs) return
    }
    await rm(path, { force: true })
    await this.dropPart(path)
  }

  async list(kind: BlobName["kind"]): Promise<ReadonlyArray<StoredBlob>> {
    const folder = kind === "payload" ? "payloads" : "artifacts"
    const found: Array<StoredBlob> = []
    for (const file of await readdir(join(this.folder, folder))) {
      const blob = blobNamed(folder, file)
      const there = blob === undefined ? undefined : await statOf(join(this.folder, folder, file))
      if (blob === undefined || there === undefined) continue
      found.push({ name: blob.name, sizeBytes: there.size, changedAtMs: there.mtimeMs })
    }
    return found
  }

  size(name: BlobName): Promise<number | undefined> {
    return sizeOf(this.path(name))
  }
}

const toBlobError = (operation: string, error: unknown): BlobError =>
  new BlobError({
    operation,
    reason: errorText(error),
    full: ["ENOSPC", "EDQUOT"].includes(errorCode(error) ?? "")
  })

/** A file from `offset` on, in chunks of its own each; the handle is closed with the stream. */
const readFrom = (path: string, offset: number): Stream.Stream<Uint8Array, BlobError> =>
  Stream.unwrap(
    Effect.map(
      Effect.acquireRelease(
        Effect.tryPromise({
          try: () => open(path, constants.O_RDONLY | constants.O_NOFOLLOW),
          catch: (error) => toBlobError("read", error)
        }),
        (handle) => Effect.promise(() => handle.close())
      ),
      (handle) =>
        Stream.paginate(offset, (from) =>
          Effect.map(
            Effect.tryPromise({
              try: () => readFully(handle, from, readChunkBytes),
              catch: (error) => toBlobError("read", error)
            }),
            (bytes) =>
              [
                bytes.length === 0 ? [] : [bytes],
                bytes.length < readChunkBytes ? Option.none<number>() : Option.some(from + bytes.length)
              ] as const
          )
        )
    )
  )

/** One writer per blob at a time; different blobs do not wait for each other. */
const lockByPath = () => {
  const locks = new Map<string, { readonly semaphore: Semaphore.Semaphore; users: number }>()
  return <A, E>(path: string, effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() => {
      const lock = locks.get(path) ?? { semaphore: Semaphore.makeUnsafe(1), users: 0 }
      locks.set(path, lock)
      lock.users++
      return lock.semaphore.withPermit(effect).pipe(
        Effect.ensuring(
          Effect.sync(() => {
            lock.users--
            if (lock.users === 0) locks.delete(path)
          })
        )
      )
    })
}

/**
 * The blob store in `folder`, which is made (0700) where it is missing. A block that would leave less than
 * `minimumFreeBytes` of the disk free is refused as one that does not fit.
 */
export const FileBlobStore = (
  folder: string,
  minimumFreeBytes = 0
): Layer.Layer<BlobStore, BlobError, CryptoEngine> =>
  Layer.effect(
    BlobStore,
    Effect.gen(function* () {
      const files = new BlobFiles(folder, yield* CryptoEngine, minimumFreeBytes)
      yield* Effect.tryPromise({
        try: () => files.prepare(),
        catch: (error) => toBlobError("prepare", error)
      })
      const locked = lockByPath()
      return {
        write: (name, offset, totalBytes, block) =>
          locked(
            files.path(name),
            Effect.uninterruptible(
              Effect.tryPromise({
                try: () => files.write(name, offset, totalBytes, block),
                catch: (error) => (error instanceof BlobConflict ? error : toBlobError("write", error))
              })
            )
          ),
        state: (name) =>
          Effect.tryPromise({ try: () => files.state(name), catch: (error) => toBlobError("state", error) }),
        read: (name, offset) =>
          Effect.tryPromise({
            try: () => files.size(name),
            catch: (error) => toBlobError("read", error)
          }).pipe(
            Effect.flatMap((sizeBytes) =>
              sizeBytes === undefined
                ? Effect.fail(new BlobMissing({ name: describeBlob(name) }))
                : Effect.succeed({ sizeBytes, bytes: readFrom(files.path(name), offset) })
            )
          ),
        list: (kind) =>
          Effect.tryPromise({ try: () => files.list(kind), catch: (error) => toBlobError("list", error) }),
        freeBytes: Effect.orElseSucceed(
          Effect.tryPromise(() => files.freeBytes()),
          () => null
        ),
        remove: (name, unchangedSinceMs = Number.POSITIVE_INFINITY) =>
          locked(
            files.path(name),
            Effect.uninterruptible(
              Effect.tryPromise({
                try: () => files.remove(name, unchangedSinceMs),
                catch: (error) => toBlobError("remove", error)
              })
            )
          )
      }
    })
  )
