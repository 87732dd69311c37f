/** Watches the way to the server: which layer is broken since when, and the last time one was. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { LinkFinding } from "../Connectivity.ts"
import { LinkHealth } from "../Health.ts"
import { RouteFailure } from "../RouteFailure.ts"

export const ConnectivityProtocol = RpcGroup.make(
  Rpc.make("Status", { success: LinkHealth }),
  /** How a request to the server went: whether it was reached, what was seen where it was not, and what Tor or a proxy told. */
  Rpc.make("Told", {
    payload: { reached: Schema.Boolean, detail: Schema.String, code: Schema.NullOr(RouteFailure) }
  }),
  /** A look of its own has ended. */
  Rpc.make("Looked", { payload: LinkFinding }),
  Rpc.make("Due")
)
