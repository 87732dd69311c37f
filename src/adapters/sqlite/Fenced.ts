/** Refuses the writes of an abandoned life: see kernel/Fence. */
import { Effect } from "effect"
import { Fence } from "../../kernel/Fence.ts"
import { SqliteError } from "./Database.ts"

/** Runs the call unless the current fiber belongs to a life that outlived its shutdown. */
export const refuseFenced = <A>(
  database: string,
  operation: string,
  call: Effect.Effect<A, SqliteError>
): Effect.Effect<A, SqliteError> =>
  Effect.flatMap(Fence.isCurrent, (current) =>
    current
      ? call
      : Effect.fail(
          new SqliteError({ database, operation, code: "fenced", reason: "the caller is an abandoned life" })
        )
  )
