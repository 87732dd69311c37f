/** A database that is opened by its first call, for what most programs never use. */
import { Effect, Exit, Scope, Semaphore } from "effect"
import type { DatabaseHost, Methods, SqliteError } from "./Database.ts"

/** Opens at the first call, and closes with the scope. One that could not be opened is tried again by the next call. */
export const openLazily = <M extends Methods>(
  open: Effect.Effect<DatabaseHost<M>, SqliteError, Scope.Scope>
): Effect.Effect<DatabaseHost<M>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    const gate = yield* Semaphore.make(1)
    let host: DatabaseHost<M> | undefined
    const opened = gate.withPermits(1)(
      Effect.suspend(() => {
        if (host !== undefined) return Effect.succeed(host)
        return Effect.gen(function* () {
          const own = yield* Scope.fork(scope)
          const made = yield* open.pipe(
            Scope.provide(own),
            Effect.onExit((exit) => (Exit.isFailure(exit) ? Scope.close(own, exit) : Effect.void))
          )
          host = made
          return made
        })
      })
    )
    return {
      call: (method, ...args) =>
        Effect.flatMap(host === undefined ? opened : Effect.succeed(host), (it) => it.call(method, ...args))
    }
  })
