/**
 * Device time: max(system clock, build time, highest time accepted from a server statement that echoed our nonce),
 * never backwards, persisted by whoever calls {@link accept}. Orders are judged only after one fresh statement in this boot.
 */
import type { Effect } from "effect"
import { Context } from "effect"

export class DeviceClock extends Context.Service<
  DeviceClock,
  {
    /** Milliseconds since the epoch; never falls within a life. */
    readonly nowMs: Effect.Effect<number>
    /** Whether a fresh statement was accepted in this boot. */
    readonly proven: Effect.Effect<boolean>
    /** Takes in the time of a verified statement. Returns the size of the leap in ms (0 when none). */
    readonly accept: (serverTimeMs: number) => Effect.Effect<number>
  }
>()("postern/ports/DeviceClock") {}
