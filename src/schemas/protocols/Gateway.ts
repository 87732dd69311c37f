/** A gateway: an open port or socket as an actor, so that a restart opens it again. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"

export const GatewayProtocol = RpcGroup.make(
  /** Where it listens now. */
  Rpc.make("Address", { success: Schema.String }),
  /** The listener died under us; the next life opens it again. */
  Rpc.make("Lost", { payload: { reason: Schema.String } })
)
