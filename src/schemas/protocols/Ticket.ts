/**
 * A ticket: the answer to a question that may take long. The actor answers the ask at once with the ticket and goes on;
 * whoever asked waits for the answer outside, for as long as it likes, and withdraws when it gives up. Bound to one
 * process: a host that serves an actor to others waits on their behalf.
 */
import { Deferred, Schema } from "effect"
import { Count } from "../Ids.ts"

export interface Ticket<A> {
  readonly id: number
  /** How long to wait for the answer before collecting it as it then is. */
  readonly waitMs: number
  readonly answer: Deferred.Deferred<A>
}

const isTicket = (value: unknown): value is Ticket<never> =>
  typeof value === "object" && value !== null && "answer" in value && Deferred.isDeferred(value.answer)

/** The schema of a ticket for answers of type `A`. */
export const Ticket = <A>() => Schema.declare((value: unknown): value is Ticket<A> => isTicket(value))

/** Names a ticket to its actor. */
export const TicketId = Count
