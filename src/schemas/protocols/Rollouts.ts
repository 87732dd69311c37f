/** Knows which rollouts are open: takes plans in, and sees to it that each one's actor looks now and then. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { DsseEnvelope } from "../Dsse.ts"
import { OrderId } from "../Ids.ts"
import { Conflict, Refused, Unavailable } from "../ManagementErrors.ts"
import { RolloutId } from "../Rollout.ts"

export const RolloutsProtocol = RpcGroup.make(
  /** A plan as an operator signed it. */
  Rpc.make("Open", {
    payload: { envelope: DsseEnvelope, actor: Schema.String },
    success: RolloutId,
    error: Schema.Union([Refused, Conflict, Unavailable])
  }),
  /** These orders came or ended. A lost word costs some seconds. */
  Rpc.make("Touched", { payload: { orders: Schema.Array(OrderId) } }),
  Rpc.make("Due")
)
