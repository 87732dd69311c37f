/** Knows the agents: who they are, whether they are there, and who may be seen. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { Presence } from "../Agents.ts"
import { DeviceId, Name } from "../Ids.ts"
import { Unavailable } from "../ManagementErrors.ts"
import { AgentDetail, AgentsOverview, AgentView, RefusalView } from "../MessagingViews.ts"
import type { TopicRole } from "../TopicRights.ts"
import { AgentName } from "../Topics.ts"

/** Which agents are asked for. */
export const DirectoryQuery = Schema.Struct({
  behind: Schema.NullOr(Name),
  status: Schema.NullOr(Presence),
  limit: Schema.Int
})
export type DirectoryQuery = typeof DirectoryQuery.Type

const Role = Schema.Literals(["agent", "stranger", "services"]) satisfies Schema.Schema<TopicRole>

export const DirectoryProtocol = RpcGroup.make(
  /** Something came to `broker-services/handshake`, `…/status` or `…/public/pingreq`. */
  Rpc.make("Arrived", {
    payload: {
      inbox: Schema.Literals(["handshake", "status", "public/pingreq"]),
      from: AgentName,
      /** As whose its connection stands. */
      role: Role,
      wire: Schema.Uint8Array
    }
  }),
  /** The broker says that a connection stands, or has ended; and as whose, where it knows. */
  Rpc.make("Present", {
    payload: {
      agent: AgentName,
      connected: Schema.Boolean,
      role: Schema.optionalKey(Role)
    }
  }),
  /** Operators have decided about a device: it is cut off, or let in, or stays as it is. */
  Rpc.make("Decided", { payload: { device: DeviceId } }),
  /** Agents by name, behind one of them; the views that follow are for operators. */
  Rpc.make("Agents", {
    payload: DirectoryQuery,
    success: Schema.Array(AgentView),
    error: Unavailable
  }),
  /** One of them; null where there is no such agent. */
  Rpc.make("Agent", { payload: { agent: Name }, success: Schema.NullOr(AgentDetail), error: Unavailable }),
  Rpc.make("Refusals", {
    payload: { limit: Schema.Int },
    success: Schema.Array(RefusalView),
    error: Unavailable
  }),
  /** Some seconds old at the most. */
  Rpc.make("Overview", { success: AgentsOverview, error: Unavailable }),
  /** Looks at some of the agents, whether they may still be ones. */
  Rpc.make("Review"),
  /** Who is connected with the broker; null where it did not say. To itself. */
  Rpc.make("Stood", { payload: { connected: Schema.NullOr(Schema.Array(Schema.String)) } }),
  /** Those who are to be cut off at the broker are, or the broker failed. */
  Rpc.make("Expelling"),
  Rpc.make("Expelled", { payload: { agents: Schema.Array(AgentName) } }),
  /** What followed from a word is done. To itself. */
  Rpc.make("Kept"),
  Rpc.make("Due")
)
