/** Management requests that are held until a job changed: see the job watch. */
import { Clock, Deferred, Duration, Effect } from "effect"
import type { AskError } from "../../kernel/index.ts"
import { FleetStore, type JobRow, type StoreError } from "../../ports/FleetStore.ts"
import { RetentionStore } from "../../ports/RetentionStore.ts"
import type { OrderId } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import { NotFound } from "../../schemas/ManagementApi.ts"
import { Gone } from "../../schemas/ManagementErrors.ts"
import type { TooManyWatchers } from "../../schemas/protocols/JobWatch.ts"
import { orUnavailable } from "./ManagementFailures.ts"
import type { ServerActors } from "./ServerActors.ts"

/** Reads a job, again after each change, until `isEnough` or the time is over. */
export const makeJobWaiting = (actors: ServerActors, stopping: Effect.Effect<void>) =>
  Effect.gen(function* () {
    const store = yield* FleetStore
    const retention = yield* RetentionStore
    const watch = actors.jobWatch
    /** A job that is not here: it never was, or it is not kept any more. */
    const missing = Effect.fnUntraced(function* (id: OrderId) {
      const prunedAtMs = yield* retention.prunedJob(id)
      if (prunedAtMs === null) return yield* new NotFound({ message: "there is no such job" })
      return yield* new Gone({
        message: "this job ended long ago and is not kept any more",
        pruned_at_ms: prunedAtMs,
        why: "age"
      })
    })
    const read = (id: OrderId): Effect.Effect<JobRow, NotFound | Gone | StoreError> =>
      Effect.flatMap(store.job(id), (job) => (job === null ? missing(id) : Effect.succeed(job)))
    /** One look at the job, holding a ticket for the next change. */
    const look = (
      id: OrderId,
      isEnough: (job: JobRow) => boolean,
      untilMs: number
    ): Effect.Effect<JobRow, NotFound | Gone | StoreError | AskError | TooManyWatchers> =>
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
      }).pipe(orUnavailable)
  })
