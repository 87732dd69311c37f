/**
 * Backup and restore of a server's state folder. A backup is made beside the running server: the databases as SQLite
 * itself copies them at one moment, then the ciphertext they speak of. A restore goes into an empty folder only, and
 * believes nothing that its digest does not prove.
 */
import { existsSync } from "node:fs"
import { mkdtemp, readFile, rm } from "node:fs/promises"
import { join } from "node:path"
import { Clock, Effect, Result, Schema } from "effect"
import type { AgeIdentity } from "../../crypto/AgeKeys.ts"
import type { InvalidKey } from "../../crypto/Keys.ts"
import { cipherEntropyBytes, type Encryptor, encryptor } from "../../crypto/PackageCipher.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { Entropy } from "../../ports/Entropy.ts"
import { Identity } from "../../ports/Identity.ts"
import { RetentionStore } from "../../ports/RetentionStore.ts"
import type { Recipient, ServerId } from "../../schemas/Ids.ts"
import { software } from "../../schemas/Version.ts"
import { blobNamed } from "../blobs/BlobRules.ts"
import { errorCode, errorText } from "../files/AtomicFile.ts"
import { type DatabaseDefinition, type Methods, openDatabase } from "../sqlite/Database.ts"
import { serverDatabases } from "../sqlite/ServerDatabases.ts"
import { SqliteFleetStoreInProcess } from "../sqlite/SqliteFleetStore.ts"
import {
  type BackupFile,
  BackupManifest,
  clearFolder,
  copyDecrypted,
  copyEncrypted,
  copyPlain,
  copyUnchanging,
  filesIn,
  manifestName,
  measure,
  placeOf,
  requireEmptyFolder,
  writeManifest
} from "./BackupFiles.ts"

/** A backup or a restore failed; what it had written is gone again. */
export class BackupError extends Schema.TaggedError<BackupError>()("BackupError", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.reason}`
  }
}

const keyFile = "keys/node.json"
/** Absent where the server never carried messages. */
const servicesKeyFile = "keys/broker-services.json"
const databaseFile = (definition: DatabaseDefinition<Methods>): string => `${definition.name}.db`
const blobFolders = ["payloads", "artifacts"]
const manifestBytes = 64 * 1024 * 1024

const attempt = <A>(path: string, work: () => Promise<A>): Effect.Effect<A, BackupError> =>
  Effect.uninterruptible(
    Effect.tryPromise({ try: work, catch: (error) => new BackupError({ path, reason: errorText(error) }) })
  )

/** One encryption to the recipients; each file has one of its own. */
const makeCiphers = (recipients: ReadonlyArray<Recipient>) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const entropy = yield* Entropy
    const one: Effect.Effect<Encryptor | null, InvalidKey> =
      recipients.length === 0
        ? Effect.succeed(null)
        : Effect.flatMap(entropy.bytes(cipherEntropyBytes(recipients.length)), (entropyBytes) =>
            Effect.fromResult(encryptor(engine, { recipients, entropyBytes }))
          )
    return one
  })

/** A copy of a database as of one moment, made while others read and write it. */
const snapshot = (source: string, target: string): void => {
  const database = openDatabase(source)
  try {
    database.prepare("VACUUM INTO ?").run(target)
  } finally {
    database.close()
  }
}

/** Keys and databases, by way of `temporary`, where plain copies may lie for a moment. */
const backUpSecrets = Effect.fnUntraced(function* (
  stateFolder: string,
  target: string,
  temporary: string,
  recipients: ReadonlyArray<Recipient>
) {
  const engine = yield* CryptoEngine
  const cipher = yield* makeCiphers(recipients)
  const files: Array<BackupFile> = []
  const keep = Effect.fnUntraced(function* (path: string, source: string) {
    const sealing = yield* cipher
    const place = placeOf(target, { path, encrypted: sealing !== null })
    yield* attempt(place, () =>
      sealing === null ? copyPlain(source, place) : copyEncrypted(source, place, sealing)
    )
    files.push({
      path,
      encrypted: sealing !== null,
      ...(yield* attempt(place, () => measure(engine, place)))
    })
  })
  yield* keep(keyFile, join(stateFolder, keyFile))
  const servicesKeys = join(stateFolder, servicesKeyFile)
  if (existsSync(servicesKeys)) yield* keep(servicesKeyFile, servicesKeys)
  for (const definition of serverDatabases) {
    const name = databaseFile(definition)
    const source = join(stateFolder, name)
    if (!existsSync(source)) continue
    const copy = join(temporary, name)
    yield* attempt(source, async () => snapshot(source, copy))
    yield* keep(name, copy)
    yield* attempt(copy, () => rm(copy))
  }
  return files
})

/** The ciphertext files that are whole. One that is dropped meanwhile was not needed any more. */
const backUpBlobs = Effect.fnUntraced(function* (stateFolder: string, target: string) {
  const engine = yield* CryptoEngine
  const files: Array<BackupFile> = []
  for (const folder of blobFolders) {
    const names = yield* attempt(folder, () => filesIn(join(stateFolder, folder)))
    for (const name of names) {
      if (blobNamed(folder, name)?.complete !== true) continue
      const path = `${folder}/${name}`
      const place = join(target, path)
      const isThere = yield* attempt(place, async () => {
        try {
          await copyUnchanging(join(stateFolder, path), place)
          return true
        } catch (error) {
          if (errorCode(error) === "ENOENT") return false
          throw error
        }
      })
      if (isThere)
        files.push({ path, encrypted: false, ...(yield* attempt(place, () => measure(engine, place))) })
    }
  }
  return files
})

/** Backs a server's state folder up into the new folder `target`, whether the server runs or not. */
export const backupServer = Effect.fnUntraced(function* (options: {
  readonly stateFolder: string
  readonly target: string
  /** Who can open keys and databases; nobody means that they lie there plainly (0600). */
  readonly recipients: ReadonlyArray<Recipient>
}) {
  const { recipients, stateFolder, target } = options
  const server = (yield* Identity).id as ServerId
  yield* attempt(target, () => requireEmptyFolder(target))
  const made = Effect.gen(function* () {
    const temporary = yield* Effect.acquireRelease(
      attempt(stateFolder, () => mkdtemp(join(stateFolder, "backup-"))),
      (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
    )
    const madeAtMs = yield* Clock.currentTimeMillis
    // Databases first: whatever they speak of is there already, or was dropped because nobody needs it.
    const secrets = yield* backUpSecrets(stateFolder, target, temporary, recipients)
    const blobs = yield* backUpBlobs(stateFolder, target)
    const manifest: BackupManifest = {
      type: "postern/server-backup/v1",
      made_at_ms: madeAtMs,
      software,
      server,
      files: [...secrets, ...blobs]
    }
    yield* attempt(target, () => writeManifest(target, manifest))
    return manifest
  })
  return yield* made.pipe(
    Effect.scoped,
    Effect.onError(() => Effect.ignore(attempt(target, () => clearFolder(target))))
  )
})

const decodeManifest = Schema.decodeUnknownResult(Schema.fromJsonString(BackupManifest))

const readManifest = Effect.fnUntraced(function* (source: string) {
  const path = join(source, manifestName)
  const bytes = yield* attempt(path, () => readFile(path)).pipe(
    Effect.mapError((error) => new BackupError({ path, reason: `${error.reason}. Is this a whole backup?` }))
  )
  const decoded = decodeManifest(bytes.length > manifestBytes ? "" : bytes.toString("utf8"))
  if (Result.isFailure(decoded))
    return yield* new BackupError({ path, reason: "it is no manifest of a backup" })
  const paths = decoded.success.files.map((file) => file.path)
  if (new Set(paths).size !== paths.length || !paths.includes(keyFile)) {
    return yield* new BackupError({ path, reason: "it names a file twice, or no keys" })
  }
  return decoded.success
})

/** Proves one file, and puts it into the state folder. */
const restoreFile = Effect.fnUntraced(function* (
  source: string,
  stateFolder: string,
  file: BackupFile,
  identities: ReadonlyArray<AgeIdentity>
) {
  const engine = yield* CryptoEngine
  const place = placeOf(source, file)
  const found = yield* attempt(place, () => measure(engine, place))
  if (found.digest !== file.digest || found.size_bytes !== file.size_bytes) {
    return yield* new BackupError({
      path: place,
      reason: "it is not the file that the manifest names: it was changed"
    })
  }
  if (file.encrypted && identities.length === 0) {
    return yield* new BackupError({ path: place, reason: "it is encrypted: give the key with --identity" })
  }
  const target = join(stateFolder, file.path)
  yield* attempt(place, () =>
    file.encrypted ? copyDecrypted(place, target, engine, identities) : copyPlain(place, target)
  )
})

/** Whether SQLite finds its databases whole. */
const checkDatabases = (stateFolder: string) =>
  Effect.forEach(serverDatabases, (definition) => {
    const path = join(stateFolder, databaseFile(definition))
    return attempt(path, async () => {
      if (!existsSync(path)) return
      const database = openDatabase(path)
      try {
        const { integrity_check: verdict } = database.prepare("PRAGMA integrity_check").get() as {
          integrity_check: string
        }
        if (verdict !== "ok") throw new Error(`SQLite finds it damaged: ${verdict}`)
      } finally {
        database.close()
      }
    })
  })

/** Puts a backup into the empty folder `stateFolder`, every file proved, and notes in it that this was done. */
export const restoreServer = Effect.fnUntraced(function* (options: {
  readonly source: string
  readonly stateFolder: string
  readonly identities: ReadonlyArray<AgeIdentity>
  readonly maximumDevices: number
}) {
  const { identities, maximumDevices, source, stateFolder } = options
  const manifest = yield* readManifest(source)
  yield* attempt(stateFolder, () => requireEmptyFolder(stateFolder))
  const restored = Effect.gen(function* () {
    for (const file of manifest.files) yield* restoreFile(source, stateFolder, file, identities)
    yield* checkDatabases(stateFolder)
    const atMs = yield* Clock.currentTimeMillis
    yield* Effect.flatMap(RetentionStore, (store) =>
      store.noteRestored({ atMs, backupAtMs: manifest.made_at_ms })
    ).pipe(Effect.provide(SqliteFleetStoreInProcess({ folder: stateFolder, maximumDevices })))
    return manifest
  })
  return yield* Effect.onError(restored, () =>
    Effect.ignore(attempt(stateFolder, () => clearFolder(stateFolder)))
  )
})
