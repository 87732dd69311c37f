/** A started job as an Effect: its signs as values to wait for, its end with the scope. */
import type { Scope } from "effect"
import { Deferred, Effect } from "effect"
import { JailError } from "../../schemas/JailProfile.ts"
import type { JobEnd, JobHost, JobStart } from "./JobHost.ts"

export interface Engine {
  /**
   * Mounts and pipes stand; nothing of the job has run. Gives the process through whose eyes the job's file system can be
   * opened. Fails with the end, or with the refusal, where it never comes to that.
   */
  readonly ready: Effect.Effect<number, JobEnd | JailError>
  /** Lets the job begin. */
  readonly release: Effect.Effect<void>
  /** bubblewrap has begun, so both output pipes have a writer. */
  readonly begun: Effect.Effect<void, JobEnd | JailError>
  readonly end: Effect.Effect<JobEnd>
  readonly terminate: Effect.Effect<void>
  /** Kills everything and waits for the end; takes at most some six seconds, whatever happens. */
  readonly kill: Effect.Effect<JobEnd>
}

/** What a job that was refused ended as. */
const neverBegan = (message: string): JobEnd => ({
  exitCode: null,
  cpuMs: null,
  message,
  clean: true,
  peakMemoryBytes: null
})

const start = (host: JobHost, request: JobStart): Engine => {
  const ready = Deferred.makeUnsafe<number, JobEnd | JailError>()
  const begun = Deferred.makeUnsafe<void, JobEnd | JailError>()
  const end = Deferred.makeUnsafe<JobEnd>()
  const over = (ended: JobEnd, failure: JobEnd | JailError) => {
    Deferred.doneUnsafe(end, Effect.succeed(ended))
    Deferred.doneUnsafe(ready, Effect.fail(failure))
    Deferred.doneUnsafe(begun, Effect.fail(failure))
  }
  const job = host.start(request, {
    ready: (viewer) => Deferred.doneUnsafe(ready, Effect.succeed(viewer)),
    begun: () => Deferred.doneUnsafe(begun, Effect.void),
    ended: (ended) => over(ended, ended),
    refused: (reason, detail) => over(neverBegan(detail), new JailError({ reason, detail }))
  })
  return {
    ready: Deferred.await(ready),
    begun: Deferred.await(begun),
    end: Deferred.await(end),
    release: Effect.sync(() => job.release()),
    terminate: Effect.sync(() => job.terminate()),
    kill: Effect.uninterruptible(
      Effect.andThen(
        Effect.sync(() => job.kill()),
        Deferred.await(end)
      )
    )
  }
}

/** Starts a job; closing the scope kills it and waits until it is gone. */
export const acquireEngine = (host: JobHost, request: JobStart): Effect.Effect<Engine, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => start(host, request)),
    (engine) => engine.kill
  )
