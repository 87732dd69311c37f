/**
 * From files to an age file: manifest first, then a deterministic tar (sorted, no owners, no times), zstd, age; streamed
 * to disk in constant memory.
 *
 * @module
 */
import { type FileHandle, open, rename, rm } from "node:fs/promises"
import { dirname } from "node:path"
import { pipeline } from "node:stream/promises"
import { createZstdCompress, constants as zlibConstants } from "node:zlib"
import { Effect, Result } from "effect"
import { canonicalBytes } from "../../crypto/CanonicalJson.ts"
import type { Engine } from "../../crypto/Engine.ts"
import { encodeHex } from "../../crypto/Hex.ts"
import type { InvalidKey } from "../../crypto/Keys.ts"
import { cipherEntropyBytes, type Encryptor, encryptor } from "../../crypto/PackageCipher.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { Entropy } from "../../ports/Entropy.ts"
import { PackageRefused, StorageError } from "../../ports/PackageStore.ts"
import type { Digest, Recipient } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import { type Manifest, type ManifestFile, manifestPath } from "../../schemas/Manifest.ts"
import type { PayloadReference } from "../../schemas/WorkOrder.ts"
import { abortable } from "../files/Abortable.ts"
import { errorCode, errorText } from "../files/AtomicFile.ts"
import { syncFolder, writeFully } from "../files/Handles.ts"
import { storageError } from "../files/StorageFailure.ts"
import { isSafePath, readManifest } from "./PackageContent.ts"
import { BuildError, type Source, type SourceFile, sourceBlocks, sourceBytes } from "./SourceFiles.ts"
import { tarEnd, tarPadding, writeTarHeader } from "./TarHeader.ts"
import { singleFrame } from "./ZstdFrame.ts"

/** A manifest before its files are known. */
export type ManifestDraft = Omit<Manifest, "type" | "files">

/** How hard zstd tries: packages are built once and sent to many; artifacts are packed on the device. */
export const packageLevel = 9
export const artifactLevel = 3

const byPath = (left: { readonly path: string }, right: { readonly path: string }): number =>
  left.path < right.path ? -1 : left.path > right.path ? 1 : 0

interface ArchiveEntry {
  readonly path: string
  /** Undefined for a folder. */
  readonly file: SourceFile | undefined
}

/** Every folder named or on the way to a file, and every file; parents before what they hold. */
const archiveEntries = (source: Source): Array<ArchiveEntry> => {
  const folders = new Set(source.folders)
  for (const path of [...source.folders, ...source.files.map((file) => file.path)]) {
    for (let slash = path.indexOf("/"); slash >= 0; slash = path.indexOf("/", slash + 1))
      folders.add(path.slice(0, slash))
  }
  const entries: Array<ArchiveEntry> = [...folders].map((path) => ({ path, file: undefined }))
  return [...entries, ...source.files.map((file) => ({ path: file.path, file }))].sort(byPath)
}

/** Two entries whose paths are one on some systems, or a file in the place of a folder. */
const requireDistinct = (entries: ReadonlyArray<ArchiveEntry>): void => {
  const seen = new Map<string, string>()
  for (const { path } of entries) {
    if (!isSafePath(path)) throw new BuildError({ path, reason: "this path cannot stand in a package" })
    const key = path.normalize("NFC").toLowerCase().normalize("NFC")
    const other = seen.get(key)
    if (other !== undefined) throw new BuildError({ path, reason: `it collides with ${other}` })
    seen.set(key, path)
  }
}

const archiveBytes = (entries: ReadonlyArray<ArchiveEntry>): number =>
  entries.reduce((sum, { file }) => sum + (file?.sizeBytes ?? 0), 0)

/** The tar, piece by piece; `check` sees every file's bytes go by and may reject. */
async function* archive(
  entries: ReadonlyArray<ArchiveEntry>,
  check: (file: SourceFile) => { readonly update: (bytes: Uint8Array) => void; readonly end: () => void },
  signal: AbortSignal
) {
  for (const { file, path } of entries) {
    if (file === undefined) {
      yield writeTarHeader({ kind: "folder", path, sizeBytes: 0, executable: true })
      continue
    }
    yield writeTarHeader({ kind: "file", path, sizeBytes: file.sizeBytes, executable: file.executable })
    const checking = check(file)
    for await (const block of sourceBlocks(file, signal)) {
      checking.update(block)
      yield block
    }
    checking.end()
    const padding = tarPadding(file.sizeBytes)
    if (padding > 0) yield new Uint8Array(padding)
  }
  yield tarEnd()
}

interface Written {
  readonly digest: Digest
  readonly sizeBytes: number
}

/** Encrypts and writes what comes, and counts and hashes the ciphertext. */
const ciphertextWriter = (engine: Engine, cipher: Encryptor, handle: FileHandle, maximumBytes: number) => {
  const hasher = engine.hasher()
  let sizeBytes = 0
  const write = async (bytes: Uint8Array): Promise<void> => {
    sizeBytes += bytes.length
    if (sizeBytes > maximumBytes)
      throw new TooLarge(`it is larger than ${maximumBytes} bytes when compressed`)
    hasher.update(bytes)
    await writeFully(handle, bytes)
  }
  return async (compressed: AsyncIterable<Uint8Array>): Promise<Written> => {
    await write(cipher.header)
    const frame = singleFrame()
    for await (const piece of compressed) {
      const sealed = cipher.push(frame(piece))
      if (sealed.length > 0) await write(sealed)
    }
    await write(cipher.end())
    return { digest: `sha256:${encodeHex(hasher.digest())}` as Digest, sizeBytes }
  }
}

/** What is to be packed is more than a package may hold. */
export class TooLarge extends Error {
  override readonly name = "TooLarge"
}

interface SealOptions {
  readonly engine: Engine
  readonly cipher: Encryptor
  /** Where the age file is to stand; put there whole or not at all. */
  readonly target: string
  readonly level: number
  readonly maximumBytes: number
}

/**
 * A stream that asks for the next piece when it has done with the one before, whose memory then serves again: memory
 * outside of the heap is given back late, and a GiB in small pieces adds up. The types of zlib's streams leave it out.
 */
const oneAtATime: object = { writableHighWaterMark: 1 }

const sealArchive = async (
  tar: AsyncIterable<Uint8Array>,
  options: SealOptions,
  signal: AbortSignal
): Promise<Written> => {
  const part = `${options.target}.part`
  // What a crash left behind, or somebody put there: never written through.
  await rm(part, { force: true })
  const handle = await open(part, "wx", 0o600)
  try {
    const deflate = createZstdCompress({
      params: { [zlibConstants.ZSTD_c_compressionLevel]: options.level },
      ...oneAtATime
    })
    const write = ciphertextWriter(options.engine, options.cipher, handle, options.maximumBytes)
    let writing: Promise<Written | undefined> = Promise.resolve(undefined)
    try {
      await pipeline(tar, deflate, (compressed: AsyncIterable<Uint8Array>) => (writing = write(compressed)), {
        signal
      })
    } finally {
      await writing.catch(() => undefined)
    }
    const written = await writing
    if (written === undefined) throw new Error("the archive was not written")
    await handle.sync()
    await handle.close()
    await rename(part, options.target)
    await syncFolder(dirname(options.target))
    return written
  } catch (error) {
    await handle.close()
    await rm(part, { force: true })
    throw error
  }
}

const noCheck = () => ({ update: () => {}, end: () => {} })

const beginCipher = Effect.fnUntraced(function* (recipients: ReadonlyArray<Recipient>) {
  const engine = yield* CryptoEngine
  const entropyBytes = yield* (yield* Entropy).bytes(cipherEntropyBytes(recipients.length))
  return Result.map(encryptor(engine, { recipients, entropyBytes }), (cipher) => ({ engine, cipher }))
})

/** First pass: the digest of every file. */
const hashFiles = async (engine: Engine, files: ReadonlyArray<SourceFile>, signal: AbortSignal) => {
  const listed: Record<string, typeof ManifestFile.Type> = {}
  for (const file of files) {
    const hasher = engine.hasher()
    for await (const block of sourceBlocks(file, signal)) hasher.update(block)
    const digest = `sha256:${encodeHex(hasher.digest())}` as Digest
    listed[file.path] = { digest, size_bytes: file.sizeBytes, executable: file.executable }
  }
  return listed
}

/** Second pass: what is packed must still be what was hashed. */
const checkAgainst = (engine: Engine, manifest: Manifest) => (file: SourceFile) => {
  const hasher = engine.hasher()
  return {
    update: (bytes: Uint8Array) => hasher.update(bytes),
    end: () => {
      const listed = manifest.files[file.path]
      if (file.path !== manifestPath && `sha256:${encodeHex(hasher.digest())}` !== listed?.digest) {
        throw new BuildError({ path: file.path, reason: "it changed while the package was built" })
      }
    }
  }
}

const explainBuild = (target: string, error: unknown): BuildError | StorageError => {
  if (error instanceof BuildError || error instanceof StorageError) return error
  if (error instanceof TooLarge) return new BuildError({ path: target, reason: error.message })
  if (error instanceof PackageRefused) return new BuildError({ path: manifestPath, reason: error.detail })
  return errorCode(error) === undefined
    ? new BuildError({ path: target, reason: errorText(error) })
    : storageError("write", target, error)
}

/** A package as it stands on disk: what the order says of it, and its manifest. */
export interface BuiltPackage {
  readonly path: string
  readonly payload: typeof PayloadReference.Type
  readonly manifest: Manifest
}

/**
 * Builds a package into the file `target` (0600, put in place whole; replaces what stood there). Every recipient can open
 * it: the devices, and the operators who must sign or audit.
 */
export const buildPackage = Effect.fnUntraced(function* (options: {
  readonly source: Source
  readonly draft: ManifestDraft
  readonly recipients: ReadonlyArray<Recipient>
  readonly target: string
}): Effect.fn.Return<BuiltPackage, BuildError | StorageError | InvalidKey, Entropy | CryptoEngine> {
  const { draft, recipients, source, target } = options
  const { cipher, engine } = yield* Effect.fromResult(yield* beginCipher(recipients))
  return yield* abortable(async (signal) => {
    const entries = archiveEntries(source)
    requireDistinct([{ path: manifestPath, file: undefined }, ...entries])
    const files = await hashFiles(engine, source.files, signal)
    const bytes = canonicalBytes({ ...draft, type: "postern/manifest/v1", files })
    const manifest = readManifest(bytes)
    const all = [{ path: manifestPath, file: sourceBytes(manifestPath, bytes) }, ...entries]
    const unpackedBytes = archiveBytes(all)
    if (all.length > Limits.packageEntries)
      throw new TooLarge(`it has more than ${Limits.packageEntries} entries`)
    if (unpackedBytes > Limits.unpackedBytes)
      throw new TooLarge(`its files have more than ${Limits.unpackedBytes} bytes`)
    const tar = archive(all, checkAgainst(engine, manifest), signal)
    const maximumBytes = Limits.payloadBytes
    const written = await sealArchive(
      tar,
      { engine, cipher, target, level: packageLevel, maximumBytes },
      signal
    )
    const payload = {
      digest: written.digest,
      size_bytes: written.sizeBytes,
      unpacked_bytes: unpackedBytes,
      entries: all.length
    }
    return { path: target, payload, manifest }
  }).pipe(Effect.mapError((error) => explainBuild(target, error)))
})

/** What {@link packFiles} wrote. */
export interface PackedFiles extends Written {
  readonly entries: number
  readonly unpackedBytes: number
}

/** Packs plain files without a manifest into the file `target`: artifacts on their way to the operators. */
export const packFiles = Effect.fnUntraced(function* (options: {
  readonly files: ReadonlyArray<SourceFile>
  readonly recipients: ReadonlyArray<Recipient>
  readonly target: string
  readonly maximumBytes: number
}): Effect.fn.Return<PackedFiles, BuildError | StorageError | InvalidKey, Entropy | CryptoEngine> {
  const { files, maximumBytes, recipients, target } = options
  const { cipher, engine } = yield* Effect.fromResult(yield* beginCipher(recipients))
  return yield* abortable(async (signal) => {
    const entries = archiveEntries({ files, folders: [] })
    requireDistinct(entries)
    const tar = archive(entries, noCheck, signal)
    const written = await sealArchive(
      tar,
      { engine, cipher, target, level: artifactLevel, maximumBytes },
      signal
    )
    return { ...written, entries: entries.length, unpackedBytes: archiveBytes(entries) }
  }).pipe(Effect.mapError((error) => explainBuild(target, error)))
})
