/** Watches the way to the server: which layer is broken since when, and the last time one was. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { LinkFinding } from "../Connectivity.ts"
import { LinkHealth } from "../Health.ts"

export const ConnectivityProtocol = RpcGroup.make(
  Rpc.make("Status", { success: LinkHealth }),
  /** How a turn of the main loop went: whether the server was reached, and what was seen where it was not. */
  Rpc.make("Told", { payload: { reached: Schema.Boolean, detail: Schema.String } }),
  /** A look of its own has ended. */
  Rpc.make("Looked", { payload: LinkFinding }),
  Rpc.make("Due")
)
