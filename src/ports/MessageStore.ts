/**
 * What broker services keep: agents and their keys, ids of messages until they expire, what is on its way to recipients,
 * and how often what was refused. Every method is one transaction, durable when it ends.
 */
import type { Effect } from "effect"
import { Context, Schema } from "effect"
import type { Agreement, Presence, SessionId } from "../schemas/Agents.ts"
import type { DeviceId, Name, SigningKey } from "../schemas/Ids.ts"
import type { MessageId, MessageRefusal } from "../schemas/Message.ts"
import type { AgentName } from "../schemas/Topics.ts"

/** A call to the store failed. Nothing was changed, as far as is known. */
export class MessageStoreError extends Schema.TaggedError<MessageStoreError>()("MessageStoreError", {
  operation: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `the store of messages: ${this.operation}: ${this.reason}`
  }
}

/** An agent that has shaken hands. */
export interface AgentRow {
  readonly agent: Name
  readonly device: DeviceId
  readonly signingKey: SigningKey
  readonly agreement: Agreement
  readonly visible: boolean
  readonly edgeDevices: ReadonlyArray<string>
  readonly session: SessionId
  readonly status: Presence
  readonly statusAtMs: number
  /** When its last handshake was made, by its own clock: an older one is no news. */
  readonly shakenAtMs: number
}

/** Something for one recipient's inbox. */
export interface NewDelivery {
  readonly to: AgentName
  readonly inbox: "protected" | "private"
  readonly wire: Uint8Array
}

export interface DeliveryRow extends NewDelivery {
  /** Rises. */
  readonly place: number
}

/** Says of a delivery what is known without reading it: it may be large, and mostly it waits for an agent that is away. */
export interface WaitingDelivery {
  readonly place: number
  readonly to: AgentName
  /** Of its wire. */
  readonly bytes: number
}

/** What becomes of an id. `full`: its sender has as many unexpired ones as are remembered of anybody. */
export type Acceptance = "stored" | "replayed" | "full"

export interface Pruned {
  readonly expired: number
  readonly isMore: boolean
}

/** What waits for an agent: in this store, and in its session at the broker, where that is the server's own. */
export interface Backlog {
  readonly undelivered: number
  readonly queued: number
}

export interface RefusalRow {
  /** Null: all together who are no agents. There may be any number of those, and they choose their names. */
  readonly agent: AgentName | null
  readonly code: MessageRefusal
  readonly count: number
  readonly lastAtMs: number
}

export class MessageStore extends Context.Service<
  MessageStore,
  {
    readonly agents: Effect.Effect<ReadonlyArray<AgentRow>, MessageStoreError>
    readonly putAgent: (row: AgentRow) => Effect.Effect<void, MessageStoreError>
    /** Removes an agent with all that waits for it. Ids of its device's messages stay: it may be let in again. */
    readonly dropAgent: (agent: AgentName) => Effect.Effect<void, MessageStoreError>
    /**
     * Remembers an id of a sender's device until its end, and stores what follows from it: both or neither. Whoever has the
     * device's name next has ids of its own. What is for a recipient for whom as much waits as may is not stored, and not
     * among the deliveries it gives. Ids that have ended by `nowMs` count no more; `expiresAtMs` is later than that.
     */
    readonly accept: (
      sender: DeviceId,
      id: MessageId,
      expiresAtMs: number,
      deliveries: ReadonlyArray<NewDelivery>,
      nowMs: number
    ) => Effect.Effect<
      { readonly outcome: Acceptance; readonly deliveries: ReadonlyArray<DeliveryRow> },
      MessageStoreError
    >
    /** For whom something is not delivered yet, oldest first: for one recipient, or for all. */
    readonly undelivered: (
      recipient: AgentName | null,
      behind: number,
      maximum: number
    ) => Effect.Effect<ReadonlyArray<WaitingDelivery>, MessageStoreError>
    /** What is at these places, in their order, as far as it is still there. */
    readonly deliveries: (
      places: ReadonlyArray<number>
    ) => Effect.Effect<ReadonlyArray<DeliveryRow>, MessageStoreError>
    /** The broker has them. */
    readonly delivered: (places: ReadonlyArray<number>) => Effect.Effect<void, MessageStoreError>
    /**
     * Forgets some ids and deliveries that have expired, in a short transaction; gives how many deliveries were never made, and
     * whether there may be more to forget.
     */
    readonly prune: (nowMs: number) => Effect.Effect<Pruned, MessageStoreError>
    readonly backlogs: (
      agents: ReadonlyArray<AgentName>
    ) => Effect.Effect<ReadonlyArray<Backlog & { readonly agent: AgentName }>, MessageStoreError>
    /** What waits for all together. */
    readonly backlog: Effect.Effect<Backlog, MessageStoreError>
    /**
     * Counts a refusal, or so many, in a bounded number of rows. Refusals that come while others are being written are written together
     * with the next ones, so that a flood of them costs little; at a crash those are not counted.
     */
    readonly refused: (
      agent: AgentName | null,
      code: MessageRefusal,
      atMs: number,
      count?: number
    ) => Effect.Effect<void, MessageStoreError>
    /** The most recent first; of all, or of one. */
    readonly refusals: (
      maximum: number,
      agent?: AgentName | null
    ) => Effect.Effect<ReadonlyArray<RefusalRow>, MessageStoreError>
    /** Of all together, by reason. */
    readonly refusalCounts: Effect.Effect<
      ReadonlyArray<Pick<RefusalRow, "code" | "count" | "lastAtMs">>,
      MessageStoreError
    >
  }
>()("postern/ports/MessageStore") {}
