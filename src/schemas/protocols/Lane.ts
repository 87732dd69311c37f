/** A lane: takes accepted orders from the ledger, one at a time, and brings each to its end. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { Count, OrderId } from "../Ids.ts"
import { RefusalCode } from "../Refusals.ts"
import { OrderProgress } from "../WorkOrder.ts"

/** Who asks that an order stop. */
export const StopReason = Schema.Literals(["canceled_by_operator", "stopped_by_server", "device_stopped"])
export type StopReason = typeof StopReason.Type

/** How the work on one order ended for this time. */
export const WorkEnd = Schema.Struct({
  order: OrderId,
  /**
   * `concluded`: its receipt is written. `later`: something is missing now (network, disk); the ledger says where to go
   * on. `failed`: something of ours broke; tried again, and given up after some times.
   */
  kind: Schema.Literals(["concluded", "later", "failed"]),
  /** Milliseconds to leave it alone. */
  pauseMs: Count,
  /** Why it will be refused if nothing changes before it expires; null for the plain `expired`. */
  trouble: Schema.NullOr(RefusalCode),
  detail: Schema.String
})
export type WorkEnd = typeof WorkEnd.Type

export const LaneStatus = Schema.Struct({
  /** The order in hand and how far it is. */
  current: Schema.NullOr(OrderProgress),
  /** Orders put off, with the milliseconds left. */
  waiting: Schema.Array(Schema.Struct({ order: OrderId, pauseMs: Count, detail: Schema.String })),
  draining: Schema.Boolean
})
export type LaneStatus = typeof LaneStatus.Type

export const LaneProtocol = RpcGroup.make(
  /** There may be work in the ledger. */
  Rpc.make("Wake"),
  /** The server is reached again, or has told the time: what was put off for that is looked at now. */
  Rpc.make("Reached"),
  /** Stops the order if it is in hand, else looks at it next. */
  Rpc.make("Stop", { payload: { order: OrderId, reason: StopReason } }),
  /** Takes nothing new and stops what runs, since the program stops; true once nothing is in hand. */
  Rpc.make("Drain", { success: Schema.Boolean }),
  Rpc.make("Status", { success: LaneStatus }),
  Rpc.make("Ended", { payload: WorkEnd }),
  Rpc.make("Due")
)
