/**
 * An agent as its applications have it: in the same process, or by the socket of the program that runs it. What fails says
 * with which code why (`schemas/AgentLocal`).
 */
import type { Effect, Scope } from "effect"
import type {
  AgentTrouble,
  InboxMessage,
  LocalAppearance,
  LocalLetter,
  LocalReport
} from "../schemas/AgentLocal.ts"
import type { DirectoryEntry } from "../schemas/Agents.ts"
import type { MessageId } from "../schemas/Message.ts"
import type { AgentName } from "../schemas/Topics.ts"

/** One listener. What it has in hand when its scope closes is given to another. */
export interface AgentListener {
  /** Messages that came, at most `maximum`; none where none came within `waitMs`. */
  readonly take: (maximum: number, waitMs: number) => Effect.Effect<ReadonlyArray<InboxMessage>, AgentTrouble>
  /** They have been dealt with: they do not come again. */
  readonly done: (places: ReadonlyArray<number>) => Effect.Effect<void, AgentTrouble>
}

export interface AgentDesk {
  /** Keeps a message for sending; it is on disk when this ends. */
  readonly send: (letter: LocalLetter) => Effect.Effect<MessageId, AgentTrouble>
  /** Whether a message still waits to be sent. */
  readonly unsent: (id: MessageId) => Effect.Effect<boolean, AgentTrouble>
  /** Round-trip time in milliseconds; null where no answer came. */
  readonly ping: (to: AgentName) => Effect.Effect<number | null, AgentTrouble>
  readonly peers: Effect.Effect<ReadonlyArray<DirectoryEntry>, AgentTrouble>
  readonly report: Effect.Effect<LocalReport, AgentTrouble>
  readonly show: (appearance: LocalAppearance) => Effect.Effect<void, AgentTrouble>
  readonly listen: Effect.Effect<AgentListener, AgentTrouble, Scope.Scope>
}
