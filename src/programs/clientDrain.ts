/**
 * Ending a client in order, before its tree is stopped: nothing new is taken, a running job is killed and its receipt
 * written (`interrupted`, `device_stopped`), or the order put back where it may be run again. What a kill cuts short is
 * settled from the ledger at the next start.
 */
import { Effect } from "effect"
import { HistorianKey, LaneKeys, MainLoopKey } from "../actors/ClientKeys.ts"
import type { ActorSystem } from "../kernel/index.ts"

/** Time for the lanes to let go; the rest of the five seconds belongs to the tree. */
export const drainMs = 3_000
const askAgainMs = 50
/** The history's last word; without it the next start says that this one was cut off. */
const closeMs = 500

/** Waits until no lane has an order in hand, for at most {@link drainMs}. Never fails. */
export const drainClient = (system: ActorSystem): Effect.Effect<void> => {
  const lanes = Object.values(LaneKeys).map((key) => system.ref(key))
  const isIdle = (lane: (typeof lanes)[number]) =>
    lane.ask("Drain", undefined, { timeoutMs: drainMs }).pipe(Effect.orElseSucceed(() => true))
  const allIdle = Effect.map(Effect.forEach(lanes, isIdle), (idle) => idle.every((yes) => yes))
  return Effect.ignore(system.ref(MainLoopKey).tell("Drain")).pipe(
    Effect.andThen(
      allIdle.pipe(
        Effect.flatMap((idle) =>
          idle ? Effect.succeed(true) : Effect.delay(Effect.succeed(false), askAgainMs)
        ),
        Effect.repeat({ until: (idle) => idle })
      )
    ),
    Effect.timeoutOption(drainMs),
    Effect.andThen(Effect.ignore(system.ref(HistorianKey).ask("Close", undefined, { timeoutMs: closeMs })))
  )
}
