/**
 * From ciphertext on disk to proved files: the whole length and digest first, then age, zstd and tar as one stream in
 * constant memory, every entry judged before it is written. On any refusal nothing is left.
 *
 * @module
 */
import { type FileHandle, mkdir, mkdtemp, open, rename, rm, rmdir } from "node:fs/promises"
import { basename, dirname, join, resolve } from "node:path"
import { pipeline } from "node:stream/promises"
import { createZstdDecompress, constants as zlibConstants } from "node:zlib"
import { Effect, Schema } from "effect"
import { DecryptError } from "../../crypto/AgeHeader.ts"
import type { AgeIdentity } from "../../crypto/AgeKeys.ts"
import type { Engine } from "../../crypto/Engine.ts"
import { encodeHex } from "../../crypto/Hex.ts"
import { decryptor } from "../../crypto/PackageCipher.ts"
import { PackageRefused, StorageError } from "../../ports/PackageStore.ts"
import { Limits } from "../../schemas/Limits.ts"
import type { Manifest } from "../../schemas/Manifest.ts"
import type { ArtifactSummary } from "../../schemas/Receipt.ts"
import type { PayloadReference } from "../../schemas/WorkOrder.ts"
import { abortable } from "../files/Abortable.ts"
import { errorCode, errorText } from "../files/AtomicFile.ts"
import { storage, storageError } from "../files/StorageFailure.ts"
import {
  artifactsReader,
  boundedBy,
  type ContentReader,
  type ContentSummary,
  packageReader,
  refused
} from "./PackageContent.ts"
import { folderUnpacker, noUnpacker, type Unpacker } from "./Unpacker.ts"
import { walkAll, ZstdRefused, zstdFrameWalker, zstdWindowLog } from "./ZstdFrame.ts"

/** What the signed order (or receipt) says of a ciphertext. */
type Ciphertext = Pick<typeof PayloadReference.Type, "digest" | "size_bytes">

const blockBytes = 64 * 1024

/** Reads a file from its start in blocks of 64 KiB; each block is valid until the next is asked for. */
async function* blocks(handle: FileHandle, signal: AbortSignal) {
  const buffer = new Uint8Array(blockBytes)
  let position = 0
  for (;;) {
    signal.throwIfAborted()
    const { bytesRead } = await handle.read(buffer, 0, blockBytes, position)
    if (bytesRead === 0) return
    position += bytesRead
    yield buffer.subarray(0, bytesRead)
  }
}

/** Length and digest of the whole ciphertext, before anything is decrypted. */
const proveCiphertext = async (
  engine: Engine,
  handle: FileHandle,
  expected: Ciphertext,
  signal: AbortSignal
) => {
  const { size } = await handle.stat()
  if (size !== expected.size_bytes) {
    throw refused("payload_size", `it has ${size} bytes, not ${expected.size_bytes}`)
  }
  const hasher = engine.hasher()
  for await (const block of blocks(handle, signal)) hasher.update(block)
  const digest = `sha256:${encodeHex(hasher.digest())}`
  if (digest !== expected.digest)
    throw refused("payload_digest", `its digest is ${digest}, not ${expected.digest}`)
}

/** The plaintext, piece by piece; all of it authenticated, and walked over as zstd. */
async function* decrypted(
  engine: Engine,
  identities: ReadonlyArray<AgeIdentity>,
  handle: FileHandle,
  signal: AbortSignal
) {
  const cipher = decryptor(engine, identities)
  const walker = zstdFrameWalker()
  for await (const block of blocks(handle, signal)) {
    const plain = cipher.push(block)
    walkAll(walker, plain)
    if (plain.length > 0) yield plain
  }
  const rest = cipher.end()
  walkAll(walker, rest)
  if (!walker.isComplete()) throw new ZstdRefused("it is cut off")
  if (rest.length > 0) yield rest
}

const unpackStream = async (
  source: AsyncIterable<Uint8Array>,
  content: ContentReader,
  unpacker: Unpacker,
  signal: AbortSignal
): Promise<ContentSummary> => {
  const inflate = createZstdDecompress({ params: { [zlibConstants.ZSTD_d_windowLogMax]: zstdWindowLog } })
  const unpack = async (plain: AsyncIterable<Uint8Array>): Promise<void> => {
    for await (const piece of plain) {
      for (const step of content.push(piece)) await unpacker.take(step)
    }
  }
  let unpacking = Promise.resolve()
  try {
    await pipeline(source, inflate, (plain: AsyncIterable<Uint8Array>) => (unpacking = unpack(plain)), {
      signal
    })
    return content.end()
  } finally {
    // However the pipeline ended, nothing may be written after this function has.
    await unpacking.catch(() => {})
    await unpacker.close()
  }
}

/** What went wrong, in the port's terms. */
const explain = (path: string, error: unknown): PackageRefused | StorageError => {
  if (error instanceof PackageRefused || error instanceof StorageError) return error
  if (error instanceof DecryptError) {
    return refused(error.reason === "no_match" ? "payload_not_for_us" : "payload_decrypt", error.message)
  }
  if (error instanceof ZstdRefused || /^(Z|ZSTD)_/.test(errorCode(error) ?? "")) {
    return refused("payload_decompress", errorText(error))
  }
  return storageError("read", path, error)
}

interface OpenOptions {
  readonly engine: Engine
  readonly identities: ReadonlyArray<AgeIdentity>
  /** Path of the age file. */
  readonly ciphertext: string
}

/** One run: `content` and what it gives belong to it alone. */
const openStream = <A>(
  options: OpenOptions,
  expected: Ciphertext,
  content: ContentReader,
  folder: string | null,
  result: (summary: ContentSummary) => A
): Effect.Effect<A, PackageRefused | StorageError> => {
  const { ciphertext, engine, identities } = options
  let made: string | undefined
  return abortable(async (signal) => {
    const handle = await open(ciphertext, "r")
    try {
      await proveCiphertext(engine, handle, expected, signal)
      if (folder !== null) {
        await makeFreshFolder(folder)
        made = folder
      }
      const unpacker = folder === null ? noUnpacker : folderUnpacker(folder)
      return result(
        await unpackStream(decrypted(engine, identities, handle, signal), content, unpacker, signal)
      )
    } finally {
      await handle.close()
    }
  }).pipe(
    Effect.mapError((error) => explain(ciphertext, error)),
    Effect.onError(() => (made === undefined ? Effect.void : Effect.ignore(removeTree(made))))
  )
}

const makeFreshFolder = async (folder: string): Promise<void> => {
  try {
    await mkdir(folder, { mode: 0o700 })
  } catch (error) {
    throw storageError("make folder", folder, error)
  }
}

/** Removes a folder with all it holds; nothing happens where there is none. */
export const removeTree = (folder: string): Effect.Effect<void, StorageError> =>
  storage("remove", folder, () => rm(folder, { recursive: true, force: true, maxRetries: 2 }))

/**
 * Proves a package and unpacks it into `folder`, which must not exist and is made 0700. With `folder` null it is only
 * proved. On any failure or interruption the folder is gone.
 */
export const openPackage = (
  options: OpenOptions & { readonly payload: typeof PayloadReference.Type; readonly folder: string | null }
): Effect.Effect<{ readonly manifest: Manifest } & ContentSummary, PackageRefused | StorageError> =>
  Effect.suspend(() => {
    const { folder, payload } = options
    const asked = { unpackedBytes: payload.unpacked_bytes, entries: payload.entries }
    const limits = { unpackedBytes: Limits.unpackedBytes, entries: Limits.packageEntries }
    const reader = packageReader(options.engine, boundedBy(asked, limits))
    return openStream(options, payload, reader, folder, (summary) => {
      const manifest = reader.manifest()
      if (manifest === undefined) throw refused("manifest_missing", "it is empty")
      return { manifest, ...summary }
    })
  })

/** The folder to unpack into is there already and holds something. */
export class TargetNotEmpty extends Schema.TaggedError<TargetNotEmpty>()("TargetNotEmpty", {
  path: Schema.String
}) {
  override get message(): string {
    return `${this.path} is there already and is not an empty folder: name another one`
  }
}

/** Puts a finished folder in its place, which may hold an empty folder but nothing else. */
const putInPlace = (from: string, target: string): Effect.Effect<void, TargetNotEmpty | StorageError> =>
  abortable(async () => {
    await rmdir(target).catch((error: unknown) => {
      if (errorCode(error) !== "ENOENT") throw error
    })
    await rename(from, target)
  }).pipe(
    Effect.mapError((error) =>
      ["ENOTEMPTY", "EEXIST", "ENOTDIR"].includes(errorCode(error) ?? "")
        ? new TargetNotEmpty({ path: target })
        : storageError("rename", target, error)
    )
  )

/**
 * Unpacks returned artifacts into `folder`, which must be absent or empty. They are written beside it first and put in
 * place when all is proved, so the folder holds all or nothing. The summary comes from the verified receipt.
 */
export const openArtifacts = (
  options: OpenOptions & { readonly summary: ArtifactSummary; readonly folder: string }
): Effect.Effect<ContentSummary, PackageRefused | StorageError | TargetNotEmpty> =>
  Effect.gen(function* () {
    const { summary } = options
    const target = resolve(options.folder)
    const asked = { unpackedBytes: summary.unpacked_bytes, entries: summary.entries }
    const limits = {
      unpackedBytes: Limits.artifactBytes,
      entries: Limits.artifactEntries * Limits.packageDepth
    }
    const beside = yield* storage("make folder", dirname(target), () =>
      mkdtemp(join(dirname(target), `.${basename(target)}-`))
    )
    const inside = join(beside, "artifacts")
    return yield* openStream(
      options,
      summary,
      artifactsReader(boundedBy(asked, limits)),
      inside,
      (found) => found
    ).pipe(
      Effect.tap(() => putInPlace(inside, target)),
      Effect.ensuring(removeTree(beside).pipe(Effect.ignore))
    )
  })
