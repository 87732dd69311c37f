/** A gateway: an open port or socket as an actor, so that a restart opens it again. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"

export const GatewayProtocol = RpcGroup.make(
  /** Where it listens now. */
  Rpc.make("Address", { success: Schema.String })
)
