/**
 * The operator's home: a 0700 folder of small JSON files (0600, written in one step), by default
 * `~/.config/postern`, or where `POSTERN_HOME` points.
 *
 *     operator.json        public halves of the operator's keys      operator.key   the private ones
 *     root.json            the newest trust root this operator made or accepted; roots/N.json all of them
 *     servers.json         servers and API tokens                    devices/       the device book
 *     invitations/         secrets of open invitations               orders/        what was signed and sent
 *
 * @module
 */
import { readdirSync, rmSync } from "node:fs"
import { homedir } from "node:os"
import { dirname, isAbsolute, join, resolve } from "node:path"
import { Context, Effect, Layer, Result, Schema } from "effect"
import { fromUtf8, utf8 } from "../../crypto/Bytes.ts"
import {
  createPrivateFile,
  errorCode,
  errorText,
  readPrivateFile,
  replacePrivateFile,
  requirePrivateFolder
} from "../files/AtomicFile.ts"

/** A file of the operator's home cannot be used. */
export class HomeError extends Schema.TaggedError<HomeError>()("HomeError", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.reason}`
  }
}

/** The largest file read from the home. */
const fileBytes = 4 * 1024 * 1024
/** How long a command waits for another one that holds the home's lock. */
const lockWaitMs = 20_000
const lockPollMs = 50
const sqliteBusy = 5

export class OperatorHome extends Context.Service<
  OperatorHome,
  {
    /** Absolute path of the folder. */
    readonly folder: string
    /** A file's text, or undefined where there is none. `name` is relative to the folder. */
    readonly read: (name: string) => Effect.Effect<string | undefined, HomeError>
    readonly readBytes: (name: string) => Effect.Effect<Uint8Array | undefined, HomeError>
    readonly write: (name: string, text: string) => Effect.Effect<void, HomeError>
    /** Never replaces a file that is there. */
    readonly createBytes: (name: string, bytes: Uint8Array) => Effect.Effect<void, HomeError>
    readonly remove: (name: string) => Effect.Effect<void, HomeError>
    /** Names in a subfolder, sorted; none where there is no such folder. */
    readonly list: (subfolder: string) => Effect.Effect<ReadonlyArray<string>, HomeError>
    /**
     * Runs alone among all commands on this home: what is read inside stays true until it is written. Not to be nested:
     * the inner one would wait for the outer.
     */
    readonly alone: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | HomeError, R>
  }
>()("postern/adapters/operator/OperatorHome") {}

/** Where the home is: the path given, else `POSTERN_HOME`, else `~/.config/postern` (after `XDG_CONFIG_HOME`). */
export const operatorHomeFolder = (
  given: string | undefined,
  environment: Readonly<Record<string, string | undefined>>
): string => {
  const named = given ?? environment["POSTERN_HOME"]
  if (named !== undefined && named !== "") return resolve(named)
  const config = environment["XDG_CONFIG_HOME"]
  return join(config !== undefined && isAbsolute(config) ? config : join(homedir(), ".config"), "postern")
}

/**
 * The lock is SQLite's: it belongs to the process, so it goes with it however that ends. The file stays empty. Gives
 * the means to unlock, or undefined where another process holds the lock.
 */
const tryLock = (path: string): (() => void) | undefined => {
  const { DatabaseSync } = process.getBuiltinModule("node:sqlite")
  const database = new DatabaseSync(path)
  try {
    database.exec("BEGIN EXCLUSIVE")
    return () => database.close()
  } catch (error) {
    database.close()
    if (error instanceof Error && "errcode" in error && error.errcode === sqliteBusy) return undefined
    throw error
  }
}

const acquireLock = (path: string): Effect.Effect<() => void, HomeError> =>
  Effect.gen(function* () {
    for (let waitedMs = 0; waitedMs <= lockWaitMs; waitedMs += lockPollMs) {
      const unlock = yield* attempt(path, () => tryLock(path))
      if (unlock !== undefined) return unlock
      yield* Effect.sleep(lockPollMs)
    }
    return yield* new HomeError({
      path,
      reason: `another postern command has been working in this home for ${lockWaitMs / 1000} s. Wait for it, or end it`
    })
  })

const attempt = <A>(path: string, work: () => A): Effect.Effect<A, HomeError> =>
  Effect.try({ try: work, catch: (error) => new HomeError({ path, reason: errorText(error) }) })

/** The home at a folder, which is made when something is first written. */
export const OperatorHomeAt = (folder: string): Layer.Layer<OperatorHome> => {
  const at = (name: string) => join(folder, name)
  const prepare = (path: string): void => {
    requirePrivateFolder(folder)
    if (dirname(path) !== folder) requirePrivateFolder(dirname(path))
  }
  const lockPath = at("lock")
  const readBytes = (name: string) => attempt(at(name), () => readPrivateFile(at(name), fileBytes))
  return Layer.succeed(OperatorHome, {
    folder,
    readBytes,
    read: (name) =>
      Effect.flatMap(readBytes(name), (bytes): Effect.Effect<string | undefined, HomeError> => {
        if (bytes === undefined) return Effect.undefined
        const text = fromUtf8(bytes)
        return text === undefined
          ? Effect.fail(
              new HomeError({ path: at(name), reason: "it is not UTF-8 text. Restore it from a backup" })
            )
          : Effect.succeed(text)
      }),
    write: (name, text) =>
      attempt(at(name), () => {
        prepare(at(name))
        replacePrivateFile(at(name), utf8(text))
      }),
    createBytes: (name, bytes) =>
      attempt(at(name), () => {
        prepare(at(name))
        createPrivateFile(at(name), bytes)
      }),
    remove: (name) => attempt(at(name), () => rmSync(at(name), { force: true })),
    list: (subfolder) =>
      attempt(at(subfolder), () => {
        try {
          return readdirSync(at(subfolder)).sort()
        } catch (error) {
          if (errorCode(error) === "ENOENT") return []
          throw error
        }
      }),
    alone: (effect) =>
      Effect.acquireUseRelease(
        Effect.andThen(
          attempt(lockPath, () => prepare(lockPath)),
          acquireLock(lockPath)
        ),
        () => effect,
        (unlock) => Effect.sync(unlock)
      )
  })
}

/** Reads a JSON file of the home by its schema. Its text never stands in an error. */
export const readJson = <A>(
  name: string,
  schema: Schema.Codec<A, unknown>
): Effect.Effect<A | undefined, HomeError, OperatorHome> =>
  Effect.gen(function* () {
    const home = yield* OperatorHome
    const text = yield* home.read(name)
    if (text === undefined) return undefined
    const decoded = Schema.decodeResult(Schema.fromJsonString(schema))(text)
    if (Result.isSuccess(decoded)) return decoded.success
    return yield* new HomeError({
      path: join(home.folder, name),
      reason: "it is damaged. Restore it from a backup"
    })
  })

/** Writes a JSON file of the home, readable by people. */
export const writeJson = <A>(
  name: string,
  schema: Schema.Codec<A, unknown>,
  value: A
): Effect.Effect<void, HomeError, OperatorHome> =>
  Effect.flatMap(OperatorHome, (home) =>
    home.write(name, `${JSON.stringify(Schema.encodeSync(schema)(value), null, 2)}\n`)
  )
