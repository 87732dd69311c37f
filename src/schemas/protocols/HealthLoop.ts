/** The health loop: looks at the machine from time to time, keeps the last reports and sends them. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { Condition } from "../Conditions.ts"
import { HealthReport } from "../Health.ts"

export const HealthLoopProtocol = RpcGroup.make(
  /** The reports kept in memory, oldest first. */
  Rpc.make("Reports", { success: Schema.Array(HealthReport) }),
  /** What the last look at the machine found to be missing. */
  Rpc.make("Machine", { success: Schema.Array(Condition) }),
  Rpc.make("Looked", { payload: { report: Schema.NullOr(HealthReport), sent: Schema.Boolean } }),
  Rpc.make("Due"),
  Rpc.make("Restart")
)
