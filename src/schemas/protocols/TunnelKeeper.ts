/** The tunnel keeper: keeps the device's way through Tor open, once somebody needs it. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { Count } from "../Ids.ts"
import { TunnelState } from "../TunnelState.ts"

export const TunnelKeeperStatus = Schema.Struct({
  state: TunnelState,
  /** How often Tor was started or attached to in this life of the keeper. */
  starts: Count,
  /** Ends and failed starts since it last held for a while. */
  failures: Count
})
export type TunnelKeeperStatus = typeof TunnelKeeperStatus.Type

/** How a life of Tor ended, or why it did not begin. */
export const TunnelEnd = Schema.Struct({
  reason: Schema.String,
  problem: TunnelState.fields.problem,
  /** How long it ran; 0 where it did not begin. */
  livedMs: Count
})
export type TunnelEnd = typeof TunnelEnd.Type

export const TunnelKeeperProtocol = RpcGroup.make(
  Rpc.make("Status", { success: TunnelKeeperStatus }),
  /** Circuits seem stuck: new ones for what comes. */
  Rpc.make("Renew"),
  /** A life of Tor has ended. */
  Rpc.make("Ended", { payload: TunnelEnd }),
  /** The state is another than it was. */
  Rpc.make("Changed", { payload: TunnelState }),
  /** Tor stands still on its way into the network for too long. */
  Rpc.make("Stalled"),
  Rpc.make("Due")
)
