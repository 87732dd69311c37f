/** Lists whose conditions depend on what was asked for. Only texts of this program become SQL; values are bound. */
import type { DatabaseSync } from "../Database.ts"

/** A condition, and the values of its placeholders. */
export type Condition = readonly [sql: string, ...values: ReadonlyArray<string | number>]

/** `WHERE …`, or nothing. */
export const conditions = (list: ReadonlyArray<Condition>): string =>
  list.length === 0 ? "" : `WHERE ${list.map(([sql]) => `(${sql})`).join(" AND ")}`

export const valuesOf = (list: ReadonlyArray<Condition>): ReadonlyArray<string | number> =>
  list.flatMap(([, ...values]) => values)

/** Statements by their text, each prepared once: there are only as many as there are combinations of conditions. */
export const statementsByText = (database: DatabaseSync) => {
  const prepared = new Map<string, ReturnType<DatabaseSync["prepare"]>>()
  return (sql: string) => {
    const known = prepared.get(sql)
    if (known !== undefined) return known
    const made = database.prepare(sql)
    prepared.set(sql, made)
    return made
  }
}
