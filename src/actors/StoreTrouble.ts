/** A failing store, as the server tells it to the outside: nothing was changed, try again. */
import { Effect } from "effect"
import type { BlobError } from "../ports/BlobStore.ts"
import type { StoreError } from "../ports/FleetStore.ts"
import { Unavailable } from "../schemas/ManagementApi.ts"

const unavailable = new Unavailable({
  message: "the server's store cannot serve at the moment: try again later"
})

/** Logs what the store said, which is none of the outside's business, and fails as `Unavailable`. */
export const orUnavailable = <A, E, R>(
  effect: Effect.Effect<A, E | StoreError | BlobError, R>
): Effect.Effect<A, Exclude<E, StoreError | BlobError> | Unavailable, R> =>
  Effect.catch(effect, (error): Effect.Effect<never, Exclude<E, StoreError | BlobError> | Unavailable> => {
    if (isTrouble(error)) {
      return Effect.logError(`the store failed in ${error.operation}: ${error.reason}`).pipe(
        Effect.andThen(Effect.fail(unavailable))
      )
    }
    return Effect.fail(error as Exclude<E, StoreError | BlobError>)
  })

const isTrouble = (error: unknown): error is StoreError | BlobError =>
  typeof error === "object" &&
  error !== null &&
  "_tag" in error &&
  (error._tag === "StoreError" || error._tag === "BlobError")
