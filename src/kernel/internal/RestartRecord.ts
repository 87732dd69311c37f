/**
 * What a supervisor remembers of a child's failures, and what follows from them: try again, try again at long intervals,
 * or give up; and after which delay.
 */
import { Effect } from "effect"
import { Backoff, type BackoffSpec } from "../Backoff.ts"
import { Intensity } from "./Intensity.ts"
import type { Kernel } from "./Kernel.ts"
import type { ChildView, Down, LastFailure } from "./Node.ts"

/** The settings of a supervisor that restarts depend on. */
export interface RestartSettings {
  readonly intensity: number
  readonly periodMs: number
  readonly backoff: BackoffSpec
  readonly degradedBackoff: BackoffSpec
}

/** Why a child went down, in words. */
export const reasonOf = (down: Down): string => (down._tag === "Crash" ? down.reason : "it ended")

export class RestartRecord implements ChildView {
  restarts = 0
  degraded = false
  lastFailure: LastFailure | undefined = undefined
  private readonly kernel: Kernel
  private readonly path: string
  private readonly settings: RestartSettings
  private readonly intensity: Intensity
  /** Failures in a row; a life longer than the period ends the row. */
  private streak = 0
  private delays: ReadonlyArray<number> = []
  private upSinceMs = Number.NaN

  constructor(kernel: Kernel, path: string, settings: RestartSettings) {
    this.kernel = kernel
    this.path = path
    this.settings = settings
    this.intensity = new Intensity(settings.intensity, settings.periodMs)
  }

  /** A life has started. */
  isUp(): void {
    this.upSinceMs = this.kernel.deadlines.now()
  }

  /** The supervisor starts anew, and counts failures in a row anew. */
  reset(): void {
    this.streak = 0
  }

  /** Remembers a failure without a restart to follow. */
  note(down: Down): void {
    if (down._tag === "Crash") {
      this.lastFailure = { atMs: this.kernel.wallMs(), reason: down.reason }
    }
  }

  /** Remembers a failure that a restart shall follow. */
  count(down: Down): void {
    const now = this.kernel.deadlines.now()
    if (now - this.upSinceMs > this.settings.periodMs) {
      this.streak = 0
      this.degraded = false
    }
    this.restarts++
    this.kernel.totals.restarts++
    this.note(down)
  }

  /** For children that never make their supervisor give up: counts against the child's own intensity. */
  degradeIfTooOften(down: Down): void {
    if (!this.intensity.count(this.kernel.deadlines.now()) && !this.degraded) {
      this.degraded = true
      this.streak = 0
      this.trace("degraded")
      this.kernel.warn(
        `${this.path} is degraded: it fails too often and is tried at long intervals: ${reasonOf(down)}`
      )
    }
  }

  /** Waits as long as the back-off says for the attempt to come. */
  readonly pause: Effect.Effect<void> = Effect.suspend(() => {
    const backoff = this.degraded ? this.settings.degradedBackoff : this.settings.backoff
    const attempt = this.streak++
    const sampled = attempt === 0 ? Backoff.sample(backoff) : Effect.succeed(this.delays)
    return Effect.flatMap(sampled, (delays) => {
      this.delays = delays
      this.trace("restarting")
      return this.kernel.deadlines.sleep(delays[Math.min(attempt, delays.length - 1)] ?? 0)
    })
  })

  private trace(outcome: "restarting" | "degraded"): void {
    this.kernel.trace?.({ atMs: this.kernel.deadlines.now(), path: this.path, tag: "", outcome })
  }
}
