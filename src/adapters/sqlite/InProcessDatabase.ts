/**
 * A database hosted in the calling thread: each call is one transaction, done when the effect returns. For simulation
 * (a `:memory:` database object outlives a simulated crash), for tests and for short-lived commands.
 */
import { Effect, type Scope } from "effect"
import { runBatch } from "./Batch.ts"
import {
  type DatabaseDefinition,
  type DatabaseHost,
  type DatabaseSync,
  describeError,
  type Methods,
  migrate,
  openDatabase,
  SqliteError
} from "./Database.ts"
import { refuseFenced } from "./Fenced.ts"

/** Hosts an open database, which stays the caller's to close. The schema is brought up to date first. */
export const hostInProcess = <M extends Methods>(
  definition: DatabaseDefinition<M>,
  database: DatabaseSync
): Effect.Effect<DatabaseHost<M>, SqliteError> =>
  Effect.try({
    try: (): DatabaseHost<M> => {
      migrate(database, definition)
      const methods = definition.build(database)
      return {
        call: (method, ...args) =>
          refuseFenced(
            definition.name,
            method,
            Effect.suspend(() => {
              const reply = runBatch(database, methods, [{ id: 0, method, args }])[0]
              return reply?.ok === true
                ? Effect.succeed(reply.value as never)
                : Effect.fail(
                    new SqliteError({
                      database: definition.name,
                      operation: method,
                      code: "failed",
                      reason: reply?.reason ?? "no reply"
                    })
                  )
            })
          )
      }
    },
    catch: (error) =>
      new SqliteError({
        database: definition.name,
        operation: "open",
        code: "unusable",
        reason: describeError(error)
      })
  })

/** Opens the file at `path` in the calling thread and closes it with the scope. */
export const openInProcess = <M extends Methods>(
  definition: DatabaseDefinition<M>,
  path: string
): Effect.Effect<DatabaseHost<M>, SqliteError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({
      try: () => openDatabase(path),
      catch: (error) =>
        new SqliteError({
          database: definition.name,
          operation: "open",
          code: "unusable",
          reason: `${path}: ${describeError(error)}`
        })
    }),
    (database) => Effect.sync(() => database.close())
  ).pipe(Effect.flatMap((database) => hostInProcess(definition, database)))
