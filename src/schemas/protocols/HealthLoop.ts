/** The health loop: looks at the machine from time to time, keeps the last reports and sends them. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { HealthReport } from "../Health.ts"

export const HealthLoopProtocol = RpcGroup.make(
  /** The reports kept in memory, oldest first. */
  Rpc.make("History", { success: Schema.Array(HealthReport) }),
  Rpc.make("Looked", { payload: { report: Schema.NullOr(HealthReport), sent: Schema.Boolean } }),
  Rpc.make("Due"),
  Rpc.make("Restart")
)
