/** The watchdog: loops tell it when they will be heard of next; one that stays silent is told to start afresh. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { Count, TimestampMs } from "../Ids.ts"

/** The loops that are watched. */
export const LoopName = Schema.Literals(["main-loop", "health-loop", "outbox", "trust-keeper"])
export type LoopName = typeof LoopName.Type

export const LoopHealth = Schema.Struct({
  loop: LoopName,
  /** Device time of the last beat. */
  lastBeatAtMs: TimestampMs,
  /** Milliseconds since the last beat, by the monotonic clock. */
  silentMs: Count,
  overdue: Schema.Boolean,
  /** How often it was told to start afresh since its last beat. */
  restarts: Count
})
export type LoopHealth = typeof LoopHealth.Type

export const WatchdogProtocol = RpcGroup.make(
  /**
   * A loop lives, and will beat again within so many milliseconds. `done` says that a turn of it has ended; a loop that
   * only ever begins is still in trouble.
   */
  Rpc.make("Beat", { payload: { loop: LoopName, withinMs: Count, done: Schema.Boolean } }),
  /** The watchdog's own round, every few seconds. */
  Rpc.make("Round"),
  Rpc.make("Report", { success: Schema.Array(LoopHealth) })
)
