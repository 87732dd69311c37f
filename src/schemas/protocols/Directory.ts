/** Knows the agents: who they are, whether they are there, and who may be seen. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { DeviceId } from "../Ids.ts"
import { AgentName } from "../Topics.ts"

export const DirectoryProtocol = RpcGroup.make(
  /** Something came to `broker-services/handshake`, `…/status` or `…/public/pingreq`. */
  Rpc.make("Arrived", {
    payload: {
      inbox: Schema.Literals(["handshake", "status", "public/pingreq"]),
      from: AgentName,
      wire: Schema.Uint8Array
    }
  }),
  /** The broker says that a connection stands, or has ended. */
  Rpc.make("Present", { payload: { agent: AgentName, connected: Schema.Boolean } }),
  /** Operators have decided about a device, or it has new keys. */
  Rpc.make("Decided", { payload: { device: DeviceId } }),
  /** For the management view. */
  Rpc.make("Agents", { success: Schema.Array(Schema.Unknown) }),
  Rpc.make("Due")
)
