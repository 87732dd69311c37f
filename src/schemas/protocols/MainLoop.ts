/** The main loop: one turn after the other, each in the paper's order; it never waits for a job or a submission. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { Condition } from "../Conditions.ts"
import { Count, TimestampMs } from "../Ids.ts"
import { BlockedCode } from "../Refusals.ts"
import { RouteFailure } from "../RouteFailure.ts"

/** How a turn ended. */
export const TurnEnd = Schema.Struct({
  /** `polled`: the server answered. `waiting`: there is no trust yet, or no acceptance. `failed`: it was not reached. */
  kind: Schema.Literals(["polled", "waiting", "failed"]),
  blocked: Schema.NullOr(BlockedCode),
  /** What the server asks to sleep; null where it said nothing. */
  sleepMs: Schema.NullOr(Count),
  accepted: Count,
  refused: Count,
  /** Whether something was left at the server that the next turn can take at once. */
  again: Schema.Boolean,
  /** Whether the server was reached; null where the turn had no reason to try. */
  reached: Schema.NullOr(Schema.Boolean),
  /** What failed on the way to it, where Tor or a proxy told. */
  code: Schema.NullOr(RouteFailure),
  /** All that is weaker than it should be, as found in this turn. */
  degraded: Schema.Array(Condition),
  detail: Schema.String
})
export type TurnEnd = typeof TurnEnd.Type

export const MainLoopStatus = Schema.Struct({
  turns: Count,
  polls: Count,
  /** Whether the next turn follows at once, because something was left at the server. */
  again: Schema.Boolean,
  blocked: Schema.NullOr(BlockedCode),
  /** Device time of the last answered poll; null before it. */
  lastPollAtMs: Schema.NullOr(TimestampMs),
  /** Failed turns in a row, and all of this life. */
  failures: Count,
  allFailures: Count,
  detail: Schema.String,
  degraded: Schema.Array(Condition)
})
export type MainLoopStatus = typeof MainLoopStatus.Type

export const MainLoopProtocol = RpcGroup.make(
  /** Something changed that a poll should tell or may now fetch: end the sleep. */
  Rpc.make("Nudge"),
  /** The program stops: poll on if need be, take nothing. */
  Rpc.make("Drain"),
  Rpc.make("Status", { success: MainLoopStatus }),
  Rpc.make("TurnEnded", { payload: TurnEnd }),
  Rpc.make("Due"),
  Rpc.make("Restart")
)
