/** What fails behind the management API, as it tells the outside: nothing was changed, try again. */
import { Effect } from "effect"
import type { AskError, SendError } from "../../kernel/index.ts"
import type { BlobError } from "../../ports/BlobStore.ts"
import type { StoreError } from "../../ports/FleetStore.ts"
import { Unavailable } from "../../schemas/ManagementApi.ts"
import { StorageFull } from "../../schemas/ManagementErrors.ts"

type Trouble = AskError | SendError | StoreError | BlobError

const tags: ReadonlySet<string> = new Set<Trouble["_tag"]>([
  "MailboxFull",
  "Stopped",
  "TooManyChildren",
  "Fenced",
  "AskTimeout",
  "AskCycle",
  "ActorCrashed",
  "Evicted",
  "StoreError",
  "BlobError"
])

/** The API has a `NotFound` of its own; the kernel's names the path of an actor. */
const isTrouble = (error: { readonly _tag: string }): boolean =>
  tags.has(error._tag) || (error._tag === "NotFound" && "path" in error)

const busy = new Unavailable({ message: "the server cannot serve this request now: try again later" })

/** A failing actor, store or disk as `Unavailable`, its reason in the log; everything else passes. */
export const orUnavailable = <A, E extends { readonly _tag: string; readonly message: string }, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, Exclude<E, Trouble> | Unavailable, R> =>
  Effect.catch(
    effect,
    (error): Effect.Effect<never, Exclude<E, Trouble> | Unavailable> =>
      isTrouble(error)
        ? Effect.andThen(
            Effect.logError(`a request failed: ${error._tag}: ${reasonOf(error)}`),
            Effect.fail(busy)
          )
        : Effect.fail(error as Exclude<E, Trouble>)
  )

const isFull = <E extends { readonly _tag: string }>(error: E): error is Extract<E, BlobError> =>
  error._tag === "BlobError" && "full" in error && error.full === true

/** A disk without room, said so that somebody makes some. */
export const orStorageFull = <A, E extends { readonly _tag: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.catchIf(effect, isFull, (error) =>
    Effect.andThen(
      Effect.logError(`a request was refused: ${error.reason}`),
      Effect.fail(new StorageFull({ message: "the server's disk has no room for this" }))
    )
  )

const reasonOf = (error: { readonly message: string }): string =>
  "reason" in error ? String(error.reason) : error.message
