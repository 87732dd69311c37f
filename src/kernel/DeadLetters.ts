/**
 * Dead letters: messages nobody will handle. They are counted per reason, and the latest few are kept as samples.
 */

/** Why a message became a dead letter. */
export type DeadLetterReason = "full" | "evicted" | "stopped" | "not-found" | "fenced"

/** One sampled dead letter; payloads are not kept, since they may be large or secret. */
export interface DeadLetter {
  readonly path: string
  readonly tag: string
  readonly reason: DeadLetterReason
  /** Wall-clock milliseconds since 1970. */
  readonly atMs: number
}

const samples = 32

/** The counters and samples of one system. */
export class DeadLetters {
  /** Dead letters since the system started, by reason. */
  readonly counts: Record<DeadLetterReason, number> = {
    full: 0,
    evicted: 0,
    stopped: 0,
    "not-found": 0,
    fenced: 0
  }
  private readonly latest: Array<DeadLetter> = []
  private readonly wallClock: () => number

  constructor(wallClock: () => number) {
    this.wallClock = wallClock
  }

  /** Counts a dead letter and keeps it among the latest samples. */
  record(path: string, tag: string, reason: DeadLetterReason): void {
    this.counts[reason]++
    if (this.latest.length === samples) {
      this.latest.shift()
    }
    this.latest.push({ path, tag, reason, atMs: this.wallClock() })
  }

  /** All dead letters since the system started. */
  get total(): number {
    const { full, evicted, stopped, fenced } = this.counts
    return full + evicted + stopped + fenced + this.counts["not-found"]
  }

  /** The latest dead letters, oldest first. */
  get sampled(): ReadonlyArray<DeadLetter> {
    return [...this.latest]
  }
}
