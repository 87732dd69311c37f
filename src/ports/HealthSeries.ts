/** What a server keeps of its devices' health, and for how long. */
import type { HealthSample } from "../schemas/Health.ts"

/** How much of a device's health is kept. */
export interface HealthRetention {
  /** Whole reports, the newest. */
  readonly reports: number
  /** Figures, and reports at the latest. */
  readonly days: number
}

/** Means of figures over steps of equal length, oldest first; steps without a report are left out. */
export interface HealthSeries {
  readonly stepMs: number
  readonly samples: ReadonlyArray<HealthSample>
}
