/**
 * The trace of a system: what happened, in order, without payloads. Two runs of a simulation with one seed must give
 * equal traces.
 */

/** What became of a message or a life. */
export type TraceOutcome =
  | "answered"
  | "failed"
  | "crashed"
  | "interrupted"
  | "withdrawn"
  | "timed-out"
  | "evicted"
  | "rejected"
  | "undelivered"
  | "started"
  | "start-failed"
  | "stopped"
  | "fenced"
  | "restarting"
  | "degraded"
  | "gave-up"

/** One line of the trace. `tag` is the message's name, or empty for the life itself. */
export interface TraceEvent {
  /** Monotonic milliseconds of the system's Clock. */
  readonly atMs: number
  readonly path: string
  readonly tag: string
  readonly outcome: TraceOutcome
}
