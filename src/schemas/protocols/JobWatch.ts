/** The job watch: wakes those who wait for a job to change. It knows that something changed, not what. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { OrderId } from "../Ids.ts"
import { Ticket, TicketId } from "./Ticket.ts"

/** Too many wait already. */
export class TooManyWatchers extends Schema.TaggedError<TooManyWatchers>()("TooManyWatchers", {}) {
  override get message(): string {
    return "too many requests wait for jobs already: ask again without waiting"
  }
}

export const JobWatchProtocol = RpcGroup.make(
  /** The ticket is answered at the next change of the job. Read the job after taking it, so that no change is missed. */
  Rpc.make("Watch", { payload: { order: OrderId }, success: Ticket<void>(), error: TooManyWatchers }),
  Rpc.make("Leave", { payload: { order: OrderId, ticket: TicketId } }),
  Rpc.make("Changed", { payload: { orders: Schema.Array(OrderId) } })
)
