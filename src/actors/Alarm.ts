/**
 * An alarm clock for one life of an actor: it rings once at the time set last, whatever was set before. One fiber of the
 * life's Scope waits for it, so that setting and silencing cost nothing and nothing is left behind.
 */
import { Clock, Effect, Queue, type Scope } from "effect"

/** See {@link makeAlarm}. */
export interface Alarm {
  /** Rings in so many milliseconds, unless set again before. */
  readonly ringIn: (delayMs: number) => Effect.Effect<void>
  /** Rings no more until it is set. */
  readonly silence: Effect.Effect<void>
}

/** Milliseconds of the monotonic clock: for measuring, never for telling the time. */
export const monotonicMs: Effect.Effect<number> = Effect.map(Clock.monotonicTimeNanos, (nanos) =>
  Number(nanos / 1_000_000n)
)

/** Retries a ring whose message found the mailbox full. */
const retryMs = 100

/** Makes an alarm that runs `ring` (a message to oneself); a ring that fails is tried again a little later. */
export const makeAlarm = <E>(ring: Effect.Effect<void, E>): Effect.Effect<Alarm, never, Scope.Scope> =>
  Effect.gen(function* () {
    let atMs: number | null = null
    // Holds one signal at most: what counts is the time set last.
    const changed = yield* Queue.sliding<void>(1)
    const set = (at: number | null) =>
      Effect.sync(() => {
        atMs = at
        Queue.offerUnsafe(changed, undefined)
      })
    const ringNow = Effect.suspend(() => {
      atMs = null
      return Effect.catchCause(ring, () =>
        Effect.flatMap(monotonicMs, (nowMs) => (atMs === null ? set(nowMs + retryMs) : Effect.void))
      )
    })
    const wait = Effect.gen(function* () {
      if (atMs === null) return yield* Queue.take(changed)
      const leftMs = atMs - (yield* monotonicMs)
      if (leftMs <= 0) return yield* ringNow
      yield* Effect.timeoutOption(Queue.take(changed), leftMs)
    })
    yield* Effect.forkScoped(Effect.forever(wait))
    return {
      ringIn: (delayMs) => Effect.flatMap(monotonicMs, (nowMs) => set(nowMs + Math.max(delayMs, 0))),
      silence: set(null)
    }
  })
