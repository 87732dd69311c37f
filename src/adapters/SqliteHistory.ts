/**
 * The port `History` over SQLite: one file `history.db` in the state folder, of a few megabytes at the most. It lives in
 * the program's own thread: its commits go to the system's memory, which writes them to the card in its own time
 * (`synchronous = NORMAL`), so that they cost neither wear nor waiting. A power cut may take the last of them.
 *
 * @module
 */
import { renameSync, rmSync } from "node:fs"
import { basename, join } from "node:path"
import { Effect, Layer } from "effect"
import { History, type HistoryBook, HistoryError } from "../ports/History.ts"
import { Limits } from "../schemas/Limits.ts"
import { errorCode, errorText } from "./files/AtomicFile.ts"
import { type DatabaseHost, type DatabaseSync, openDatabase, type SqliteError } from "./sqlite/Database.ts"
import { type HistoryMethods, historyDatabase } from "./sqlite/history/HistoryDatabase.ts"
import { hostInProcess } from "./sqlite/InProcessDatabase.ts"

export const historyPath = (stateFolder: string): string => join(stateFolder, "history.db")

const pageBytes = 4_096

/** A small log, so that what a checkpoint has to write at once is small too. */
const checkpointPages = 64

const failed = (operation: string) => (error: unknown) =>
  new HistoryError({ operation, reason: errorText(error) })

const toHistoryError = (error: SqliteError): HistoryError =>
  new HistoryError({ operation: error.operation, reason: error.reason })

/** SQLite's own numbers: the file is malformed, or is no database. */
const isDamaged = (error: unknown): boolean =>
  error instanceof Error && "errcode" in error && [11, 26].includes(Number(error.errcode) & 0xff)

/** Opens the file and reads it through once: it is small, and what is broken is better found now. */
const openSound = (path: string): DatabaseSync => {
  const database = openDatabase(path)
  try {
    database.exec(
      `PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = ${checkpointPages};
       PRAGMA max_page_count = ${Math.floor(Limits.historyBytes / pageBytes)};
       PRAGMA journal_size_limit = ${checkpointPages * 4 * pageBytes}`
    )
    const told = database.prepare("PRAGMA quick_check(1)").get()
    const verdict = String(told === undefined ? "" : Object.values(told)[0])
    if (verdict !== "ok") throw Object.assign(new Error(verdict), { errcode: 11 })
    return database
  } catch (error) {
    database.close()
    throw error
  }
}

/** Moves a damaged file out of the way, over the one that was damaged before it, and gives its new place. */
const setAside = (path: string): string => {
  const aside = `${path}.damaged`
  renameSync(path, aside)
  for (const suffix of ["-wal", "-shm"]) rmSync(`${path}${suffix}`, { force: true })
  return aside
}

const openOrRenew = (path: string): { readonly database: DatabaseSync; readonly setAside: string | null } => {
  try {
    return { database: openSound(path), setAside: null }
  } catch (error) {
    // A folder in its place, or no permission, is no damage that a new file would mend.
    if (!isDamaged(error) || errorCode(error) === "EACCES") throw error
    const aside = setAside(path)
    return { database: openSound(path), setAside: `${errorText(error)}; see ${basename(aside)}` }
  }
}

const bookOver = (host: DatabaseHost<HistoryMethods>, aside: string | null): HistoryBook => {
  const through =
    <const K extends keyof HistoryMethods & string>(method: K) =>
    (...args: Parameters<HistoryMethods[K]>): Effect.Effect<ReturnType<HistoryMethods[K]>, HistoryError> =>
      Effect.mapError(host.call(method, ...args), toHistoryError)
  return {
    setAside: aside,
    add: through("add"),
    events: through("events"),
    samples: through("samples"),
    mark: through("mark"),
    setMark: through("setMark")
  }
}

/** Production: the file in the state folder. A damaged one is set aside and begun anew. */
export const SqliteHistory = (options: { readonly stateFolder: string }): Layer.Layer<History> =>
  Layer.succeed(History, {
    open: Effect.gen(function* () {
      const { database, setAside: aside } = yield* Effect.acquireRelease(
        Effect.try({ try: () => openOrRenew(historyPath(options.stateFolder)), catch: failed("open") }),
        ({ database }) => Effect.sync(() => database.close())
      )
      const host = yield* Effect.mapError(hostInProcess(historyDatabase, database), toHistoryError)
      return bookOver(host, aside)
    })
  })

/** Simulation: a database object that the caller keeps over simulated crashes. */
export const SqliteHistoryOver = (database: DatabaseSync): Layer.Layer<History> =>
  Layer.succeed(History, {
    open: Effect.map(Effect.mapError(hostInProcess(historyDatabase, database), toHistoryError), (host) =>
      bookOver(host, null)
    )
  })
