/**
 * By what drafts are dated. Before a server has told the time, the device's clock is a guess, which may leap: until then the
 * time since the first guess is measured, so that what was dated by it is right as soon as the time is known.
 */
import { Effect } from "effect"
import type { Guess, Moment } from "../ports/AgentStore.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { makeIds } from "./AgentSession.ts"
import { monotonicMs } from "./Alarm.ts"

/** For one life of an actor: what was measured in another is not comparable. */
export const makeDraftTime = Effect.gen(function* () {
  const clock = yield* DeviceClock
  const guessedIn = yield* yield* makeIds
  let monotonicZeroMs: number | null = null
  const guessed = Effect.gen(function* () {
    const sinceMs = yield* monotonicMs
    monotonicZeroMs ??= (yield* clock.nowMs) - sinceMs
    return monotonicZeroMs + sinceMs
  })
  return {
    now: Effect.gen(function* () {
      if (yield* clock.proven) return { nowMs: yield* clock.nowMs, guessedIn: null } satisfies Moment
      return { nowMs: yield* guessed, guessedIn } satisfies Moment
    }),
    /** What was guessed in this life, and how far off it was; null while that is not known. */
    guess: Effect.gen(function* () {
      if (!(yield* clock.proven)) return null
      const nowMs = yield* clock.nowMs
      return { guessedIn, nowMs, behindMs: nowMs - (yield* guessed) } satisfies Guess
    })
  }
})
