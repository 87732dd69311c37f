/** What a device remembers of itself: events and thinned figures, bounded, on its own disk. */
import { Schema } from "effect"
import { HealthSample } from "./Health.ts"
import { labelUpTo, TimestampMs } from "./Ids.ts"

export const historyTexts = {
  start: "The program started.",
  boot: "The machine was started.",
  stop: "The program was stopped in order.",
  outage: "The server was not reached; the subject is the layer that failed.",
  reached: "The server was reached again.",
  condition: "Something became weaker than it should be; the subject is its code.",
  mended: "A condition ended.",
  order: "An accepted order ended; the subject is its id.",
  refusal: "An order was refused; the subject is its id, where it had one.",
  restart: "The watchdog started a silent loop afresh.",
  configuration: "The settings in force are others than at the last start.",
  clock_leap: "The device's time leapt.",
  set_aside: "A damaged history was set aside, and this one begun."
} as const
export type HistoryKind = keyof typeof historyTexts
export const historyKinds = Object.keys(historyTexts) as [HistoryKind, ...Array<HistoryKind>]
export const HistoryKind = Schema.Literals(historyKinds)

export const HistoryEvent = Schema.Struct({
  /** Device time. */
  at_ms: TimestampMs,
  kind: HistoryKind,
  subject: labelUpTo(80),
  detail: labelUpTo(200)
})
export type HistoryEvent = typeof HistoryEvent.Type

/** A look into the history, newest first. */
export const HistoryView = Schema.Struct({
  events: Schema.Array(HistoryEvent),
  samples: Schema.Array(HealthSample),
  /** Why what is shown is only what this life remembers; null where the file is in use. */
  trouble: Schema.NullOr(Schema.String)
})
export type HistoryView = typeof HistoryView.Type
