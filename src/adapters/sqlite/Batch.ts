/**
 * Group commit: many calls, one transaction, a savepoint each. A call that fails takes back its own changes only; a
 * commit that fails takes back everything, and every caller hears of it.
 */
import { type DatabaseSync, describeError, type Methods } from "./Database.ts"

export interface Call {
  readonly id: number
  readonly method: string
  readonly args: ReadonlyArray<unknown>
}

export type Reply =
  | { readonly id: number; readonly ok: true; readonly value: unknown }
  | { readonly id: number; readonly ok: false; readonly reason: string }

const forgetting = new WeakMap<DatabaseSync, Array<() => void>>()

/**
 * What a database class carries on in memory beside its rows, such as their number, is no longer true where changes were
 * taken back: `forget` is called then, and it has to be read anew.
 */
export const whenTakenBack = (database: DatabaseSync, forget: () => void): void => {
  const all = forgetting.get(database)
  if (all === undefined) forgetting.set(database, [forget])
  else all.push(forget)
}

const takenBack = (database: DatabaseSync): void => {
  for (const forget of forgetting.get(database) ?? []) forget()
}

const runOne = (database: DatabaseSync, methods: Methods, call: Call): Reply => {
  const method = Object.hasOwn(methods, call.method) ? methods[call.method] : undefined
  if (method === undefined) return { id: call.id, ok: false, reason: "there is no such method" }
  database.exec("SAVEPOINT one")
  try {
    const value = Reflect.apply(method, undefined, call.args)
    database.exec("RELEASE one")
    return { id: call.id, ok: true, value }
  } catch (error) {
    // Some errors (disk full, I/O) make SQLite take back the whole transaction on its own.
    if (database.isTransaction) database.exec("ROLLBACK TO one; RELEASE one")
    takenBack(database)
    return { id: call.id, ok: false, reason: describeError(error) }
  }
}

const failAll = (calls: ReadonlyArray<Call>, reason: string): ReadonlyArray<Reply> =>
  calls.map((call) => ({ id: call.id, ok: false, reason }))

/** Runs the calls in order in one transaction and returns their replies once it is committed (or failed). */
export const runBatch = (
  database: DatabaseSync,
  methods: Methods,
  calls: ReadonlyArray<Call>
): ReadonlyArray<Reply> => {
  try {
    database.exec("BEGIN IMMEDIATE")
    const replies: Array<Reply> = []
    for (const call of calls) {
      const reply = runOne(database, methods, call)
      if (!database.isTransaction) {
        takenBack(database)
        return failAll(
          calls,
          reply.ok ? "the transaction was lost" : `the transaction was taken back: ${reply.reason}`
        )
      }
      replies.push(reply)
    }
    database.exec("COMMIT")
    return replies
  } catch (error) {
    if (database.isTransaction) database.exec("ROLLBACK")
    takenBack(database)
    return failAll(calls, describeError(error))
  }
}
