/**
 * What an agent keeps of messages over its lives: those it means to send, ids of those it has taken until they expire, and
 * those its application has not dealt with yet. Every method is one transaction, durable when it ends.
 */
import type { Effect } from "effect"
import { Context, Schema } from "effect"
import type { TimestampMs } from "../schemas/Ids.ts"
import type { Message, MessageId, PublicMessage, SecureLevel } from "../schemas/Message.ts"
import type { AgentName } from "../schemas/Topics.ts"

export class AgentStoreError extends Schema.TaggedError<AgentStoreError>()("AgentStoreError", {
  /**
   * `full`: as many messages wait as may wait. `ids_full`: as many ids of messages are remembered as may be; each is until
   * its message expires.
   */
  code: Schema.Literals(["failed", "full", "ids_full"]),
  reason: Schema.String
}) {
  override get message(): string {
    return `the agent's messages: ${this.reason}`
  }
}

/** A message on its way out, not signed yet: it is when the broker is there. */
export interface Draft {
  readonly id: MessageId
  readonly level: SecureLevel | "public"
  readonly to: ReadonlyArray<AgentName>
  readonly subject: string
  readonly body: Message["body"]
  readonly issued_at_ms: TimestampMs
  readonly expires_at_ms: TimestampMs
}

/** A time. One that was guessed counts only beside others that were guessed with it. */
export interface Moment {
  readonly nowMs: number
  /** Null: it is right. */
  readonly guessedIn: string | null
}

/** How far off guessed times were, now that the time is known. */
export interface Guess {
  readonly guessedIn: string
  readonly nowMs: number
  readonly behindMs: number
}

/** A message that came and was found good. A public one's sender is a claim. */
export type Received =
  | { readonly _tag: "Secure"; readonly message: Message; readonly receivedAtMs: number }
  | { readonly _tag: "Public"; readonly message: PublicMessage; readonly receivedAtMs: number }

export interface WaitingDraft {
  /** Rises. */
  readonly place: number
  readonly draft: Draft
}

export interface WaitingMessage {
  /** Rises. */
  readonly place: number
  readonly received: Received
}

/** What came to its end. */
export interface Pruned {
  /** Drafts that were never sent. */
  readonly unsent: ReadonlyArray<MessageId>
  /** How many messages nobody dealt with. */
  readonly untaken: number
}

export class AgentStore extends Context.Service<
  AgentStore,
  {
    /** Keeps a draft. Where as many wait as may wait, those that ended before it began make room, and are given. */
    readonly queue: (
      draft: Draft,
      guessedIn: Moment["guessedIn"]
    ) => Effect.Effect<ReadonlyArray<MessageId>, AgentStoreError>
    /**
     * Puts right the times of drafts that were guessed. How old those of other guesses are nobody knows: their times stand,
     * but none begins in the future.
     */
    readonly settle: (guess: Guess) => Effect.Effect<void, AgentStoreError>
    /** Oldest first, behind a place; without those that have ended by then. */
    readonly queued: (
      behind: number,
      maximum: number,
      nowMs: number
    ) => Effect.Effect<ReadonlyArray<WaitingDraft>, AgentStoreError>
    /** How many wait to be sent, and for the application. */
    readonly counts: Effect.Effect<{ readonly drafts: number; readonly inbox: number }, AgentStoreError>
    readonly sent: (ids: ReadonlyArray<MessageId>) => Effect.Effect<void, AgentStoreError>
    /** Whether a message waits to be sent. */
    readonly isQueued: (id: MessageId) => Effect.Effect<boolean, AgentStoreError>
    /**
     * Puts a message into the application's inbox, and its id among those that came: both or neither. False where it came
     * before. Fails with `full` or `ids_full` where there is no room for it now.
     */
    readonly take: (received: Received) => Effect.Effect<boolean, AgentStoreError>
    /** Whether a signed message would find room now. */
    readonly hasRoom: Effect.Effect<boolean, AgentStoreError>
    /** What the application has not dealt with, oldest first, behind a place; without what has ended by then, if it is said. */
    readonly waiting: (
      behind: number,
      maximum: number,
      nowMs?: number
    ) => Effect.Effect<ReadonlyArray<WaitingMessage>, AgentStoreError>
    readonly dealtWith: (places: ReadonlyArray<number>) => Effect.Effect<void, AgentStoreError>
    /** Forgets ids, drafts and messages for the application that have expired; by a guess, the drafts it dated alone. */
    readonly prune: (moment: Moment) => Effect.Effect<Pruned, AgentStoreError>
  }
>()("postern/ports/AgentStore") {}
