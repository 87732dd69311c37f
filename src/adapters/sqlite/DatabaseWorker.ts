/**
 * The worker thread's side: one database, batches in, replies out. Plain code without Effect, so that a commit costs
 * little beside the disk.
 */
import { isMainThread, parentPort, workerData } from "node:worker_threads"
import { type Call, type Reply, runBatch } from "./Batch.ts"
import { type DatabaseDefinition, describeError, type Methods, migrate, openDatabase } from "./Database.ts"

/** What a thread is told at its start; the `role` keeps it apart from workers of other kinds. */
export interface WorkerRole {
  readonly role: "postern/sqlite"
  readonly database: string
  readonly path: string
}

export type ToWorker =
  | { readonly type: "calls"; readonly calls: ReadonlyArray<Call> }
  | { readonly type: "close" }

export type FromWorker =
  | { readonly type: "ready" }
  | { readonly type: "unusable"; readonly reason: string }
  | { readonly type: "replies"; readonly replies: ReadonlyArray<Reply> }
  | { readonly type: "closed" }

const isRole = (data: unknown): data is WorkerRole =>
  typeof data === "object" && data !== null && (data as { role?: unknown }).role === "postern/sqlite"

/** Whether this thread was started to serve a database. A program asks this before anything else. */
export const isDatabaseWorker = (): boolean => !isMainThread && isRole(workerData)

/**
 * Serves the database this thread was started for, one of `definitions`. Call it first in a program's entry, when
 * {@link isDatabaseWorker}; it returns at once and the thread lives until it is told to close.
 */
export const serveDatabase = (definitions: ReadonlyArray<DatabaseDefinition<Methods>>): void => {
  const port = parentPort
  if (port === null || !isRole(workerData)) throw new Error("this thread was not started to serve a database")
  const { database: name, path } = workerData
  const send = (message: FromWorker) => port.postMessage(message)
  const definition = definitions.find((candidate) => candidate.name === name)
  if (definition === undefined) {
    send({ type: "unusable", reason: `this program has no database named ${name}` })
    port.close()
    return
  }
  try {
    const database = openDatabase(path)
    migrate(database, definition)
    const methods = definition.build(database)
    port.on("message", (message: ToWorker) => {
      if (message.type === "calls") {
        send({ type: "replies", replies: runBatch(database, methods, message.calls) })
        return
      }
      database.close()
      send({ type: "closed" })
      port.close()
    })
    send({ type: "ready" })
  } catch (error) {
    send({ type: "unusable", reason: `${path}: ${describeError(error)}` })
    port.close()
  }
}
