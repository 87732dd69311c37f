/**
 * The port `Ledger` over SQLite: one file `ledger.db` in the device's state folder, every change flushed to disk before
 * its effect succeeds.
 *
 * @module
 */
import { join } from "node:path"
import { Effect, Layer } from "effect"
import { encodeBase32 } from "../crypto/Base32.ts"
import { Entropy } from "../ports/Entropy.ts"
import { Ledger, LedgerError } from "../ports/Ledger.ts"
import { Incarnation } from "../schemas/Ids.ts"
import { errorText, requirePrivateFolder } from "./files/AtomicFile.ts"
import type { DatabaseHost, DatabaseSync, SqliteError } from "./sqlite/Database.ts"
import { hostInProcess, openInProcess } from "./sqlite/InProcessDatabase.ts"
import { type LedgerMethods, ledgerDatabase } from "./sqlite/ledger/LedgerDatabase.ts"
import { openInWorker } from "./sqlite/WorkerDatabase.ts"

const incarnationBytes = 16

const remedy = (error: SqliteError): string => {
  if (error.code === "died") return ". Whether it was changed is not known: the database is opened again"
  if (/disk is full|SQLITE_FULL/i.test(error.reason)) return ". Free some room on the disk"
  return error.code === "unusable"
    ? ". If it is damaged, restore it or move it away; an operator must then accept the device again"
    : ""
}

const toLedgerError = (error: SqliteError): LedgerError =>
  new LedgerError({ operation: error.operation, reason: `${error.reason}${remedy(error)}` })

const makeLedger = Effect.fnUntraced(function* (host: DatabaseHost<LedgerMethods>) {
  const through =
    <const K extends keyof LedgerMethods & string>(method: K) =>
    (...args: Parameters<LedgerMethods[K]>): Effect.Effect<ReturnType<LedgerMethods[K]>, LedgerError> =>
      Effect.mapError(host.call(method, ...args), toLedgerError)
  const entropy = yield* Entropy
  const fresh = Incarnation.make(encodeBase32(yield* entropy.bytes(incarnationBytes)))
  const unfinished = through("unfinished")
  const putOutput = through("putOutput")
  const ledger: Ledger["Service"] = {
    incarnation: yield* through("incarnation")(fresh),
    highWater: Effect.suspend(through("highWater")),
    accept: through("accept"),
    advance: through("advance"),
    begin: through("begin"),
    requeue: through("requeue"),
    find: through("find"),
    unfinished: (lane) => unfinished(lane ?? null),
    concluded: through("concluded"),
    chainHead: Effect.suspend(through("chainHead")),
    conclude: through("conclude"),
    rememberCancel: through("rememberCancel"),
    cancels: Effect.suspend(through("cancels")),
    isCanceled: through("isCanceled"),
    // A copy: a view would take the whole buffer behind it along to the other thread.
    putOutput: (order, sequence, bytes) => putOutput(order, sequence, bytes.slice()),
    dropOutput: through("dropOutput"),
    outbox: through("outbox"),
    spooled: Effect.suspend(through("spooled")),
    outboxSize: Effect.suspend(through("outboxSize")),
    acknowledge: through("acknowledge"),
    counts: Effect.suspend(through("counts")),
    note: through("note"),
    setNote: through("setNote"),
    prune: through("prune")
  }
  return ledger
})

const ledgerPath = (stateFolder: string): Effect.Effect<string, LedgerError> =>
  Effect.try({
    try: () => {
      requirePrivateFolder(stateFolder)
      return join(stateFolder, "ledger.db")
    },
    catch: (error) => new LedgerError({ operation: "open", reason: errorText(error) })
  })

/** Production: a thread of its own, so that a slow card never holds up the device's loops. */
export const SqliteLedger = (options: {
  readonly stateFolder: string
  /** The program's entry, which must call `serveDatabase` with `clientDatabases` first. */
  readonly entry: URL
  readonly onTrouble?: (reason: string) => void
}): Layer.Layer<Ledger, LedgerError, Entropy> =>
  Layer.effect(
    Ledger,
    Effect.gen(function* () {
      const { entry, onTrouble, stateFolder } = options
      const path = yield* ledgerPath(stateFolder)
      const told = onTrouble === undefined ? {} : { onTrouble }
      const host = openInWorker(ledgerDatabase, { path, entry, ...told })
      return yield* makeLedger(yield* Effect.mapError(host, toLedgerError))
    })
  )

/** The same file served by the calling thread: tests, and commands while no client runs. */
export const SqliteLedgerInProcess = (options: {
  readonly stateFolder: string
}): Layer.Layer<Ledger, LedgerError, Entropy> =>
  Layer.effect(
    Ledger,
    Effect.gen(function* () {
      const path = yield* ledgerPath(options.stateFolder)
      return yield* makeLedger(yield* Effect.mapError(openInProcess(ledgerDatabase, path), toLedgerError))
    })
  )

/** Simulation: a database object that the caller keeps over simulated crashes. */
export const SqliteLedgerOver = (database: DatabaseSync): Layer.Layer<Ledger, LedgerError, Entropy> =>
  Layer.effect(
    Ledger,
    Effect.gen(function* () {
      return yield* makeLedger(yield* Effect.mapError(hostInProcess(ledgerDatabase, database), toLedgerError))
    })
  )
