/**
 * One program per state folder. The lock is a transaction held open on a small database file: the kernel gives it back
 * however its holder ends, so there is no stale lock to clear away.
 *
 * @module
 */
import { readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect, Schema, type Scope } from "effect"
import { errorText, requirePrivateFolder } from "./files/AtomicFile.ts"
import { openDatabase } from "./sqlite/Database.ts"

/** Another program works on this folder, or the lock could not be tried. */
export class StateLocked extends Schema.TaggedError<StateLocked>()("StateLocked", {
  path: Schema.String,
  reason: Schema.String,
  /** Another program holds it: it may let go. */
  busy: Schema.Boolean
}) {
  /** What sysexits calls a configuration error: to start again would not help. */
  readonly exitCode = 78

  override get message(): string {
    return `The state folder ${this.path} cannot be used: ${this.reason}`
  }
}

const holderText = (pidFile: string): string => {
  try {
    const pid = readFileSync(pidFile, "utf8").trim()
    return /^[0-9]{1,10}$/.test(pid) ? ` (process ${pid})` : ""
  } catch {
    return ""
  }
}

const isBusy = (error: unknown): boolean =>
  error instanceof Error && "errcode" in error && (error.errcode === 5 || error.errcode === 517)

/** Holds the folder for as long as the scope lasts; makes it (0700) where it is missing. */
export const lockState = (stateFolder: string): Effect.Effect<void, StateLocked, Scope.Scope> => {
  const pidFile = join(stateFolder, "lock.pid")
  const refuse = (error: unknown) =>
    new StateLocked({
      path: stateFolder,
      busy: isBusy(error),
      reason: isBusy(error)
        ? `another Postern program${holderText(pidFile)} is running on it. Stop that one, or name another folder with --state`
        : errorText(error)
    })
  const acquire = Effect.try({
    try: () => {
      requirePrivateFolder(stateFolder)
      const database = openDatabase(join(stateFolder, "lock.db"))
      try {
        database.exec("PRAGMA busy_timeout = 0; BEGIN IMMEDIATE")
        writeFileSync(pidFile, `${process.pid}\n`, { mode: 0o600 })
        return database
      } catch (error) {
        database.close()
        throw error
      }
    },
    catch: refuse
  })
  return Effect.acquireRelease(acquire, (database) =>
    Effect.sync(() => {
      rmSync(pidFile, { force: true })
      database.close()
    })
  ).pipe(Effect.asVoid)
}
