/**
 * Long asynchronous work of Node as an effect that leaves nothing running behind.
 *
 * @module
 */
import { Effect } from "effect"

/**
 * Runs a promise under a signal. On interruption the signal is raised and the work's own end awaited, so that what it
 * wrote can be removed safely afterwards. Fails with whatever the promise was rejected with.
 */
export const abortable = <A>(work: (signal: AbortSignal) => Promise<A>): Effect.Effect<A, unknown> =>
  Effect.callback<A, unknown>((resume) => {
    const controller = new AbortController()
    const running = work(controller.signal)
    running.then(
      (value) => resume(Effect.succeed(value)),
      (error: unknown) => resume(Effect.fail(error))
    )
    return Effect.promise(() => {
      controller.abort()
      return running.then(
        () => undefined,
        () => undefined
      )
    })
  })
