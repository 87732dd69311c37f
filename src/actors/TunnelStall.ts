/**
 * Watches whether a tor gets on, on its way into the network. One that stands still is to be given up: it waits ever longer
 * between its attempts, up to hours, and a new one begins with the first.
 */
import { Effect } from "effect"
import type { TunnelState } from "../schemas/TunnelState.ts"
import type { Alarm } from "./Alarm.ts"
import { type Delays, delayAfter } from "./Delays.ts"

/** How long tor may stand still; longer after each new start that did not help, since over a bad line a step takes long. */
const patience: Delays = { firstMs: 120_000, factor: 2, maximumMs: 1_800_000 }

/** Whether tor runs, and is not where it wants to be. */
const isOnItsWay = ({ phase, problem }: TunnelState): boolean =>
  problem === null && (phase === "bootstrapping" || phase === "lost")

/** Whether a clock that tor found wrong was put right, while tor still waits because of it. */
const isClockMended = (before: TunnelState, now: TunnelState): boolean =>
  isClockWrong(before) && !isClockWrong(now) && isOnItsWay(now)

const isClockWrong = ({ clockDoubt, clockSkewSeconds }: TunnelState): boolean =>
  clockSkewSeconds !== null || clockDoubt !== null

export interface TunnelStall {
  /** A life of tor begins. */
  readonly began: Effect.Effect<void>
  /** A life of tor has ended. */
  readonly ended: Effect.Effect<void>
  /** Its state is another. */
  readonly changed: (before: TunnelState, now: TunnelState) => Effect.Effect<void>
  /** The alarm rang. */
  readonly rang: (now: TunnelState) => Effect.Effect<void>
}

/** How many lives of a tor in a row were given up. */
export interface Stalls {
  stalls: number
}

/**
 * Makes a watch for one keeper.
 *
 * @param alarm rings when tor has stood still for too long
 * @param giveUp ends this life of tor
 * @param memory of a keeper that does not outlive its tor
 */
export const makeTunnelStall = (
  alarm: Alarm,
  giveUp: (reason: string) => Effect.Effect<void>,
  memory: Stalls = { stalls: 0 }
): TunnelStall => {
  /** How far this life came. */
  let farthest = -1
  return {
    began: Effect.sync(() => {
      farthest = -1
    }),
    ended: alarm.silence,
    changed: Effect.fnUntraced(function* (before, now) {
      if (now.phase === "ready") memory.stalls = 0
      if (!isOnItsWay(now)) return yield* alarm.silence
      if (isClockMended(before, now))
        return yield* giveUp("the clock was put right, and a new tor begins at once")
      if (now.phase === before.phase && now.progress <= farthest) return
      farthest = Math.max(farthest, now.progress)
      yield* alarm.ringIn(yield* delayAfter(patience, memory.stalls + 1))
    }),
    rang: (now) =>
      Effect.suspend(() => {
        if (!isOnItsWay(now)) return Effect.void
        memory.stalls++
        return giveUp(`it did not get on from ${now.progress} % (${now.summary})`)
      })
  }
}
