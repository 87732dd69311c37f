/**
 * Opening SQLite, and what a "database class" is: synchronous methods over one open database, written once and hosted
 * either in a worker thread (production) or in the process itself (simulation, tests, small tools).
 */
import { closeSync, openSync } from "node:fs"
import type { DatabaseSync } from "node:sqlite"
import { pathToFileURL } from "node:url"
import { type Effect, Schema } from "effect"

export type { DatabaseSync }

/** Why a call to a database failed. Nothing was changed, except that after `died` this is not known. */
export class SqliteError extends Schema.TaggedError<SqliteError>()("SqliteError", {
  database: Schema.String,
  operation: Schema.String,
  /**
   * `failed`: the method threw or the commit failed. `overloaded`: too many calls wait. `died`: the worker thread ended
   * with the call in hand. `closed`: the host is closed. `fenced`: the caller is an abandoned life of an actor.
   * `unusable`: the file cannot be opened or was made by a newer version.
   */
  code: Schema.Literals(["failed", "overloaded", "died", "closed", "fenced", "unusable"]),
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.database}: ${this.operation}: ${this.reason}`
  }
}

/** The methods of a database class. Arguments and results must survive a structured clone. */
export type Methods = { readonly [name: string]: (...args: never) => unknown }

/** What a host must know to serve a database. */
export interface DatabaseDefinition<M extends Methods> {
  /** Its name in errors, and in the worker's role. */
  readonly name: string
  /** One SQL script per version, from version 1. `user_version` counts those that ran; a script is never changed. */
  readonly migrations: ReadonlyArray<string>
  /** Prepares statements and returns the methods. Each call is one transaction (or a savepoint in a batch's). */
  readonly build: (database: DatabaseSync) => M
}

/** Asks a hosted database: one method, one transaction, answered after its commit. */
export interface DatabaseHost<M extends Methods> {
  readonly call: <const K extends keyof M & string>(
    method: K,
    ...args: Parameters<M[K]>
  ) => Effect.Effect<ReturnType<M[K]>, SqliteError>
}

/** `node:sqlite`, loaded on first use; Node 22 announces it as experimental, which is no news to our users. */
const loadSqlite = (): typeof import("node:sqlite") => {
  const emitWarning = process.emitWarning
  process.emitWarning = ((warning: string | Error, ...rest: Array<unknown>) => {
    const text = typeof warning === "string" ? warning : warning.message
    if (text.includes("SQLite is an experimental feature")) return
    Reflect.apply(emitWarning, process, [warning, ...rest])
  }) as typeof process.emitWarning
  try {
    return process.getBuiltinModule("node:sqlite")
  } finally {
    process.emitWarning = emitWarning
  }
}

/** How long a call waits for another process that writes to the same file. */
const busyTimeoutMs = 5_000

/**
 * Opens (or creates, 0600) a database: write-ahead log, every commit flushed to disk, foreign keys on. `:memory:` gives
 * one that lives as long as its object. Throws what SQLite throws.
 */
export const openDatabase = (path: string): DatabaseSync => {
  if (path !== ":memory:") closeSync(openSync(path, "a", 0o600))
  const { DatabaseSync } = loadSqlite()
  const database = new DatabaseSync(path, { timeout: busyTimeoutMs, enableForeignKeyConstraints: true })
  try {
    database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF")
    return database
  } catch (error) {
    database.close()
    throw error
  }
}

/**
 * Opens a database to read only. One that a program has open is read beside it, as the write-ahead log allows; another as
 * it lies, since opening it in the usual way makes files that belong to whoever looks. Throws what SQLite throws.
 */
export const openToRead = (path: string, options: { readonly inUse: boolean }): DatabaseSync => {
  const url = pathToFileURL(path)
  if (!options.inUse) url.searchParams.set("immutable", "1")
  const { DatabaseSync } = loadSqlite()
  return new DatabaseSync(url, { readOnly: true, timeout: busyTimeoutMs })
}

/** Brings the schema up to date, each step in a transaction of its own. Throws where the file is from a newer version. */
export const migrate = (database: DatabaseSync, definition: DatabaseDefinition<Methods>): void => {
  const { user_version: found } = database.prepare("PRAGMA user_version").get() as { user_version: number }
  const newest = definition.migrations.length
  if (found > newest) {
    throw new Error(
      `the file has schema version ${found}, this program knows ${newest}: install the newer program again`
    )
  }
  for (let version = found; version < newest; version++) {
    database.exec("BEGIN IMMEDIATE")
    try {
      database.exec(definition.migrations[version] as string)
      database.exec(`PRAGMA user_version = ${version + 1}`)
      database.exec("COMMIT")
    } catch (error) {
      if (database.isTransaction) database.exec("ROLLBACK")
      throw error
    }
  }
}

/** What went wrong, in one line, without a stack. */
export const describeError = (error: unknown): string =>
  error instanceof Error ? error.message : String(error)
