/**
 * Every error the kernel itself can hand to a sender or to the builder of a tree.
 *
 * All are `Schema.TaggedError`, so they can be matched by tag, put on a wire and compared in tests. The domain's own
 * errors (those a protocol declares) are never wrapped: they reach the asker unchanged beside these.
 */
import { Schema } from "effect"

/** The mailbox had no free place and the overflow policy is `reject`, or a waiting sender waited too long. */
export class MailboxFull extends Schema.TaggedError<MailboxFull>()("MailboxFull", {
  path: Schema.String,
  tag: Schema.String,
  capacity: Schema.Finite
}) {
  override get message(): string {
    return `the mailbox of ${this.path} is full (${this.capacity}): ${this.tag} was not accepted; send later or less`
  }
}

/** The address has been stopped for good: by its supervisor, by itself, or with the whole system. */
export class Stopped extends Schema.TaggedError<Stopped>()("Stopped", {
  path: Schema.String,
  tag: Schema.String
}) {
  override get message(): string {
    return `${this.path} is stopped: ${this.tag} was not handled`
  }
}

/** No actor of this system is bound to the name (it was never part of the tree, or its temporary life is over). */
export class NotFound extends Schema.TaggedError<NotFound>()("NotFound", {
  path: Schema.String,
  tag: Schema.String
}) {
  override get message(): string {
    return `no actor is bound to ${this.path}: ${this.tag} was not delivered; check the tree of this program`
  }
}

/** A dynamic supervisor already holds its maximum number of children; idle ones leave when they are passivated. */
export class TooManyChildren extends Schema.TaggedError<TooManyChildren>()("TooManyChildren", {
  path: Schema.String,
  tag: Schema.String,
  maximum: Schema.Finite
}) {
  override get message(): string {
    return `${this.path} already holds its maximum of ${this.maximum} children: ${this.tag} was not delivered`
  }
}

/** The sender is an abandoned life: its replies, sends and store writes are refused. */
export class Fenced extends Schema.TaggedError<Fenced>()("Fenced", {
  path: Schema.String
}) {
  override get message(): string {
    return `a life of ${this.path} outlived its shutdown and was abandoned: what it does is refused`
  }
}

/** No answer came before the deadline. The message was withdrawn if it was still queued. */
export class AskTimeout extends Schema.TaggedError<AskTimeout>()("AskTimeout", {
  path: Schema.String,
  tag: Schema.String,
  timeoutMs: Schema.Finite
}) {
  override get message(): string {
    return `${this.path} did not answer ${this.tag} within ${this.timeoutMs} ms`
  }
}

/** The ask would have closed a ring of actors each waiting for the next, which could never end. */
export class AskCycle extends Schema.TaggedError<AskCycle>()("AskCycle", {
  path: Schema.String,
  tag: Schema.String,
  ring: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `asking ${this.path} for ${this.tag} would close a ring of waiting actors: ${this.ring.join(" -> ")}`
  }
}

/** The actor crashed while it had this message in hand. It is not known how much of the work was done. */
export class ActorCrashed extends Schema.TaggedError<ActorCrashed>()("ActorCrashed", {
  path: Schema.String,
  tag: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path} crashed while handling ${this.tag}: ${this.reason}`
  }
}

/** The message was the oldest of a full mailbox whose policy is `drop-oldest`, and made place for a newer one. */
export class Evicted extends Schema.TaggedError<Evicted>()("Evicted", {
  path: Schema.String,
  tag: Schema.String
}) {
  override get message(): string {
    return `${this.tag} was dropped from the full mailbox of ${this.path} to make place for a newer message`
  }
}

/** What a `tell` can fail with. */
export const SendError = Schema.Union([MailboxFull, Stopped, NotFound, TooManyChildren, Fenced])
export type SendError = typeof SendError.Type

/** What an `ask` can fail with, besides the errors its message declares. */
export const AskError = Schema.Union([
  MailboxFull,
  Stopped,
  NotFound,
  TooManyChildren,
  Fenced,
  AskTimeout,
  AskCycle,
  ActorCrashed,
  Evicted
])
export type AskError = typeof AskError.Type

/** A child specification is wrong; `name` says which one and `issue` what about it. */
export class BadSpec extends Schema.TaggedError<BadSpec>()("BadSpec", {
  name: Schema.String,
  issue: Schema.String
}) {
  override get message(): string {
    return `bad child specification ${this.name}: ${this.issue}`
  }
}

/** A child could not be started: its factory failed, crashed, or took longer than its start time-out. */
export class StartFailed extends Schema.TaggedError<StartFailed>()("StartFailed", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path} could not be started: ${this.reason}`
  }
}

/** What spawning a temporary child can fail with. */
export type SpawnError = BadSpec | StartFailed | Fenced
