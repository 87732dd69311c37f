/** Retention: drops what is older or more than the server keeps, in small steps, and knows how much there is. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { Count } from "../Ids.ts"
import { StorageView } from "../ManagementViews.ts"
import { Ticket } from "./Ticket.ts"

/** What one round dropped, by kind. */
export const Dropped = Schema.Struct({
  results: Count,
  artifacts: Count,
  payloads: Count,
  jobs: Count,
  receipts: Count,
  audit: Count,
  expired: Count,
  enrolments: Count
})
export type Dropped = typeof Dropped.Type

export const RetentionProtocol = RpcGroup.make(
  /** What there is, as of the last round; null before the first. */
  Rpc.make("Storage", { success: Schema.NullOr(StorageView) }),
  /** A round now, or the one that is going on; the ticket is answered when it has ended. */
  Rpc.make("Sweep", { success: Ticket<Dropped>() }),
  /** It is time. To itself. */
  Rpc.make("Due"),
  /** The round has ended. To itself. */
  Rpc.make("Swept", { payload: { dropped: Dropped, storage: Schema.NullOr(StorageView) } })
)
