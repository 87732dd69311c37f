import { DatabaseSync } from "node:sqlite"
import { messagesMigrations } from "../../../src/adapters/sqlite/messages/MessagesSchema.ts"

/** A messages database in memory that counts how often each of its statements is run. */
export const countedDatabase = () => {
  const database = new DatabaseSync(":memory:")
  for (const migration of messagesMigrations) database.exec(migration)
  const runs = new Map<string, number>()
  const prepare = database.prepare.bind(database)
  database.prepare = (sql: string) => {
    const statement = prepare(sql)
    runs.set(sql, 0)
    const counted =
      <A extends ReadonlyArray<never>, B>(run: (...args: A) => B) =>
      (...args: A): B => {
        runs.set(sql, (runs.get(sql) ?? 0) + 1)
        return Reflect.apply(run, statement, args)
      }
    return Object.assign(statement, {
      all: counted(statement.all),
      get: counted(statement.get),
      run: counted(statement.run)
    })
  }
  return {
    database,
    /** How often statements with such words in them were run. */
    runsOf: (words: RegExp): number =>
      [...runs].reduce((sum, [sql, count]) => sum + (words.test(sql) ? count : 0), 0),
    /** How SQLite goes about each statement with such words in it. */
    plansOf: (words: RegExp): ReadonlyArray<string> =>
      [...runs.keys()]
        .filter((sql) => words.test(sql))
        .flatMap((sql) => prepare(`EXPLAIN QUERY PLAN ${sql}`).all())
        .map(({ detail }) => String(detail))
  }
}
