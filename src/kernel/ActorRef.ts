/**
 * References: how one actor, a gateway or a test speaks to another.
 */
import type { Effect } from "effect"
import type { AskError, SendError } from "./Errors.ts"
import type { AnyRpc, AskArguments, ErrorOf, PayloadOf, SuccessOf, TellArguments } from "./Protocol.ts"

/** Options of an ask. */
export interface AskOptions {
  /** Milliseconds until the asker gives up; the system's default when left out. A nested ask never outlives its asker. */
  readonly timeoutMs?: number | undefined
}

/**
 * An address. It outlives the lives of the actor behind it: a reference stays valid over restarts, and what is sent
 * between two lives waits in the mailbox. References made from keys are bound late, at the first send.
 */
export interface ActorRef<Rpcs extends AnyRpc> {
  /** Where in the tree the address stands, such as `/client/vital/health-loop`; `?name` while nothing is bound to it. */
  readonly path: string
  /** Puts a message into the mailbox; succeeds as soon as it is there. With the policy `wait` it waits for a place. */
  tell<const Tag extends Rpcs["_tag"]>(
    tag: Tag,
    ...args: TellArguments<PayloadOf<Rpcs, Tag>>
  ): Effect.Effect<void, SendError>
  /**
   * Sends a message and waits for its answer, for at most `timeoutMs`. Interrupting the ask withdraws the message if
   * it is still queued.
   */
  ask<const Tag extends Rpcs["_tag"]>(
    tag: Tag,
    ...args: AskArguments<PayloadOf<Rpcs, Tag>>
  ): Effect.Effect<SuccessOf<Rpcs, Tag>, ErrorOf<Rpcs, Tag> | AskError>
}
