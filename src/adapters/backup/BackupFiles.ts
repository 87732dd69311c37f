/**
 * The files of a server's backup: one folder with a manifest that names each file with its size and digest. Keys and
 * databases may be encrypted to age recipients; payloads and artifacts are ciphertext anyway.
 */
import { constants, createReadStream } from "node:fs"
import { copyFile, link, mkdir, open, readdir, rm, stat } from "node:fs/promises"
import { dirname, join } from "node:path"
import { Schema } from "effect"
import type { AgeIdentity } from "../../crypto/AgeKeys.ts"
import type { Engine } from "../../crypto/Engine.ts"
import { encodeHex } from "../../crypto/Hex.ts"
import { decryptor, type Encryptor } from "../../crypto/PackageCipher.ts"
import { Digest, ServerId, TimestampMs } from "../../schemas/Ids.ts"
import { errorCode } from "../files/AtomicFile.ts"

const BackupFile = Schema.Struct({
  /** Below the state folder, with forward slashes; it stands at `path`.age in an encrypted backup. */
  path: Schema.String.check(Schema.isPattern(/^(?:[a-z0-9][A-Za-z0-9._-]*[/])?[a-z0-9][A-Za-z0-9._-]*$/)),
  size_bytes: Schema.Finite,
  /** Of the file as it lies in the backup. */
  digest: Digest,
  encrypted: Schema.Boolean
})
export type BackupFile = typeof BackupFile.Type

export const BackupManifest = Schema.Struct({
  type: Schema.Literal("postern/server-backup/v1"),
  made_at_ms: TimestampMs,
  software: Schema.String,
  server: ServerId,
  files: Schema.Array(BackupFile)
})
export type BackupManifest = typeof BackupManifest.Type

export const manifestName = "manifest.json"

/** Where a file lies in a backup. */
export const placeOf = (folder: string, file: Pick<BackupFile, "path" | "encrypted">): string =>
  join(folder, file.encrypted ? `${file.path}.age` : file.path)

const pieceBytes = 1024 * 1024

/** Size and digest of a file, read in pieces. */
export const measure = async (
  engine: Engine,
  path: string
): Promise<Pick<BackupFile, "size_bytes" | "digest">> => {
  const hasher = engine.hasher()
  let size = 0
  for await (const piece of createReadStream(path, { highWaterMark: pieceBytes })) {
    hasher.update(piece)
    size += piece.length
  }
  return { size_bytes: size, digest: Digest.make(`sha256:${encodeHex(hasher.digest())}`) }
}

/** Makes what was written to a file, and its name, durable. */
const flush = async (path: string): Promise<void> => {
  for (const each of [path, dirname(path)]) {
    const handle = await open(each, constants.O_RDONLY)
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  }
}

/** Writes what `pieces` gives into a new 0600 file, durably. */
const write = async (
  target: string,
  pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>
): Promise<void> => {
  const handle = await open(target, "wx", 0o600)
  try {
    for await (const piece of pieces) await handle.writeFile(piece)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Copies a file that nobody changes: as a second name of it where that can be, else as bytes. */
export const copyUnchanging = async (source: string, target: string): Promise<void> => {
  await mkdir(dirname(target), { recursive: true, mode: 0o700 })
  try {
    await link(source, target)
  } catch (error) {
    if (!["EXDEV", "EPERM", "EMLINK", "ENOTSUP", "EOPNOTSUPP"].includes(errorCode(error) ?? "")) throw error
    await copyPlain(source, target)
  }
}

/** Copies a file's bytes. */
export const copyPlain = async (source: string, target: string): Promise<void> => {
  await mkdir(dirname(target), { recursive: true, mode: 0o700 })
  await copyFile(source, target, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE)
  await flush(target)
}

/** Copies a file's bytes, encrypted. */
export const copyEncrypted = async (source: string, target: string, cipher: Encryptor): Promise<void> => {
  await mkdir(dirname(target), { recursive: true, mode: 0o700 })
  async function* sealed() {
    yield cipher.header
    for await (const piece of createReadStream(source, { highWaterMark: pieceBytes }))
      yield cipher.push(piece)
    yield cipher.end()
  }
  await write(target, sealed())
}

/** Copies what an encrypted file holds. */
export const copyDecrypted = async (
  source: string,
  target: string,
  engine: Engine,
  identities: ReadonlyArray<AgeIdentity>
): Promise<void> => {
  await mkdir(dirname(target), { recursive: true, mode: 0o700 })
  async function* opened() {
    const cipher = decryptor(engine, identities)
    for await (const piece of createReadStream(source, { highWaterMark: pieceBytes }))
      yield cipher.push(piece)
    yield cipher.end()
  }
  await write(target, opened())
}

/** Writes the manifest, which makes a backup whole. */
export const writeManifest = (folder: string, manifest: BackupManifest): Promise<void> =>
  write(join(folder, manifestName), [new TextEncoder().encode(`${JSON.stringify(manifest, null, 2)}\n`)])

/** Makes a folder (0700), or takes one that is empty. */
export const requireEmptyFolder = async (path: string): Promise<void> => {
  await mkdir(path, { recursive: true, mode: 0o700 })
  const found = await stat(path)
  if (!found.isDirectory()) throw new Error(`${path} is not a folder`)
  if ((await readdir(path)).length > 0) throw new Error(`${path} is not empty: name a new folder`)
}

/** The files of a folder, without those below; none where it is missing. */
export const filesIn = async (path: string): Promise<ReadonlyArray<string>> => {
  try {
    return (await readdir(path)).sort()
  } catch (error) {
    if (errorCode(error) === "ENOENT") return []
    throw error
  }
}

/** Empties a folder of what a failed attempt put there. */
export const clearFolder = async (path: string): Promise<void> => {
  for (const name of await filesIn(path)) await rm(join(path, name), { recursive: true, force: true })
}
