/** Management requests that are held until a job changed: see the job watch. */
import { Clock, Deferred, Duration, Effect } from "effect"
import { JobWatchKey } from "../../actors/ServerKeys.ts"
import { orUnavailable } from "../../actors/StoreTrouble.ts"
import type { AskError, SendError } from "../../kernel/index.ts"
import type { BlobError } from "../../ports/BlobStore.ts"
import { FleetStore, type JobRow, type StoreError } from "../../ports/FleetStore.ts"
import type { OrderId } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import { NotFound, Unavailable } from "../../schemas/ManagementApi.ts"
import type { TooManyWatchers } from "../../schemas/protocols/JobWatch.ts"
import type { Actors } from "./DeviceEndpoints.ts"

const busy = new Unavailable({ message: "the server cannot serve this request now: try again later" })

const kernelTags: ReadonlySet<string> = new Set<AskError["_tag"]>([
  "MailboxFull",
  "Stopped",
  "TooManyChildren",
  "Fenced",
  "AskTimeout",
  "AskCycle",
  "ActorCrashed",
  "Evicted"
])

const isKernelError = (error: { readonly _tag: string }): boolean =>
  kernelTags.has(error._tag) || (error._tag === "NotFound" && "path" in error)

type Trouble = AskError | SendError | StoreError | BlobError

/** A failing actor or store as `Unavailable`; everything else passes. */
export const actorsUnavailable = <A, E extends { readonly _tag: string; readonly message: string }, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, Exclude<E, Trouble> | Unavailable, R> =>
  orUnavailable(
    Effect.catch(effect, (error): Effect.Effect<never, Exclude<E, AskError | SendError> | Unavailable> =>
      isKernelError(error)
        ? Effect.andThen(Effect.logError(`a request failed: ${error.message}`), Effect.fail(busy))
        : Effect.fail(error as Exclude<E, AskError | SendError>)
    )
  ) as Effect.Effect<A, Exclude<E, Trouble> | Unavailable, R>

/** Reads a job, again after each change, until `isEnough` or the time is over. */
export const makeJobWaiting = (actors: Actors, stopping: Effect.Effect<void>) =>
  Effect.map(FleetStore, (store) => {
    const watch = actors.ref(JobWatchKey)
    const read = (id: OrderId) =>
      Effect.flatMap(store.job(id), (job) =>
        job === null ? Effect.fail(new NotFound({ message: "there is no such job" })) : Effect.succeed(job)
      )
    /** One look at the job, holding a ticket for the next change. */
    const look = (
      id: OrderId,
      isEnough: (job: JobRow) => boolean,
      untilMs: number
    ): Effect.Effect<JobRow, NotFound | StoreError | AskError | TooManyWatchers> =>
      Effect.gen(function* () {
        const ticket = yield* watch.ask("Watch", { order: id })
        const leave = Effect.ignore(watch.tell("Leave", { order: id, ticket: ticket.id }))
        const job = yield* Effect.onError(read(id), () => leave)
        const leftMs = untilMs - (yield* Clock.currentTimeMillis)
        if (isEnough(job) || leftMs <= 0) return yield* Effect.as(leave, job)
        const goesOn = yield* Effect.raceFirst(
          Effect.as(Effect.timeoutOption(Deferred.await(ticket.answer), Duration.millis(leftMs)), true),
          Effect.as(stopping, false)
        ).pipe(Effect.ensuring(leave))
        return goesOn ? yield* look(id, isEnough, untilMs) : job
      })

    return (id: OrderId, waitMs: number, isEnough: (job: JobRow) => boolean) =>
      Effect.gen(function* () {
        if (waitMs === 0) return yield* read(id)
        const untilMs = (yield* Clock.currentTimeMillis) + Math.min(waitMs, Limits.logFollowMs)
        return yield* Effect.catchTag(look(id, isEnough, untilMs), "TooManyWatchers", () => read(id))
      }).pipe(actorsUnavailable)
  })
