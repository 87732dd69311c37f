/**
 * The device's own memory of what happened to it: a bounded ring on its disk. Opened by an actor in its own life, so that
 * a disk that was full or unplugged is tried again; while there is none, the device goes on without.
 */
import type { Effect, Scope } from "effect"
import { Context, Schema } from "effect"
import type { HealthSample } from "../schemas/Health.ts"
import type { HistoryEvent } from "../schemas/History.ts"

/** The history could not be opened, read or written; nothing was changed. */
export class HistoryError extends Schema.TaggedError<HistoryError>()("HistoryError", {
  operation: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `the history failed (${this.operation}): ${this.reason}`
  }
}

/** Small values beside the events, by which a start knows what was before it. */
export type HistoryMark = "boot" | "settings"

export interface HistoryBook {
  /** Why the book is new: where the one before it, which was damaged, has been put. Null where all is well. */
  readonly setAside: string | null
  /**
   * Writes events and samples in one commit, then drops what is beyond the bounds: the oldest of each kind of event, and
   * samples that are closer together than their age deserves. Written in order, so the disk may be asleep for a while:
   * a power cut may cost the last commits, never the book.
   */
  readonly add: (
    events: ReadonlyArray<HistoryEvent>,
    samples: ReadonlyArray<HealthSample>
  ) => Effect.Effect<void, HistoryError>
  /** Newest first. */
  readonly events: (maximum: number) => Effect.Effect<ReadonlyArray<HistoryEvent>, HistoryError>
  readonly samples: (maximum: number) => Effect.Effect<ReadonlyArray<HealthSample>, HistoryError>
  readonly mark: (name: HistoryMark) => Effect.Effect<string | null, HistoryError>
  readonly setMark: (name: HistoryMark, value: string) => Effect.Effect<void, HistoryError>
}

export class History extends Context.Service<
  History,
  { readonly open: Effect.Effect<HistoryBook, HistoryError, Scope.Scope> }
>()("postern/ports/History") {}
