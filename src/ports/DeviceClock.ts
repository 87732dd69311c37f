/**
 * Device time. Before a server's statement that echoed our nonce was accepted in this boot it is a guess: the latest of
 * system clock, build time and the highest time ever accepted. After it, it is the accepted time carried on by the monotonic
 * clock: a system clock that is wrong, in either direction, counts no more. Accepted time never falls, over restarts too.
 * Orders are judged only after one fresh statement in this boot.
 */
import type { Effect } from "effect"
import { Context } from "effect"

export class DeviceClock extends Context.Service<
  DeviceClock,
  {
    /** Milliseconds since the epoch. Falls at most once in a life: when the first statement ends a guess that was ahead. */
    readonly nowMs: Effect.Effect<number>
    /** Whether a fresh statement was accepted in this boot. */
    readonly proven: Effect.Effect<boolean>
    /** Takes in the time of a verified statement. Returns by how many ms that put it forward. */
    readonly accept: (serverTimeMs: number) => Effect.Effect<number>
  }
>()("postern/ports/DeviceClock") {}
