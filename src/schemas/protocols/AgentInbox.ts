/**
 * Hands an agent's messages to whoever listens: each to one listener at a time, and again to another where the first went
 * away before it was done with it.
 */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { AgentLocalLimits, InboxMessage } from "../AgentLocal.ts"
import { Count, intBetween } from "../Ids.ts"
import { Ticket } from "./Ticket.ts"

/** Random name of one listener. */
const ListenerId = Schema.String

/** A message could not be given, or not be forgotten. */
export class InboxTrouble extends Schema.TaggedError<InboxTrouble>()("InboxTrouble", {
  code: Schema.Literals(["too_many_listeners", "failed"]),
  reason: Schema.String
}) {
  override get message(): string {
    return this.reason
  }
}

/** What there is for a listener now; the ticket is answered when there may be more. */
export interface Handful {
  readonly messages: ReadonlyArray<InboxMessage>
  readonly changed: Ticket<void>
}

export const AgentInboxProtocol = RpcGroup.make(
  /**
   * Gives messages into a listener's hand, the oldest first. Whoever asks for the first time is a listener from then on. It
   * says what it holds: anything else in its hand was in an answer that did not come, and is given again.
   */
  Rpc.make("Take", {
    payload: {
      listener: ListenerId,
      maximum: intBetween(1, AgentLocalLimits.window),
      holds: Schema.Array(Count).check(Schema.isMaxLength(AgentLocalLimits.window))
    },
    success: Schema.Struct({ messages: Schema.Array(InboxMessage), changed: Ticket<void>() }),
    error: InboxTrouble
  }),
  /** A listener is done with messages: they are forgotten. */
  Rpc.make("Done", { payload: { listener: ListenerId, places: Schema.Array(Count) }, error: InboxTrouble }),
  /** A listener went away: what it had in hand is for others. */
  Rpc.make("Leave", { payload: { listener: ListenerId } }),
  /** Something came. */
  Rpc.make("Arrived")
)
