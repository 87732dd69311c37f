/**
 * Weighs a job's memory as a whole where no control group does. RLIMIT_DATA and RLIMIT_AS bound each process by
 * itself, so that a job of many processes could take the machine's memory; here the job is killed for it, as a control group's would be.
 */
import { jobMemoryBytes, signalJob } from "./Processes.ts"

/** How often. A job may exceed its bound for that long, up to what its rlimits allow. */
const intervalMs = 250

/** Watches one job until it is told to stop. */
export class MemoryWatch {
  /** The highest weight seen so far; null before the first look, as for jobs shorter than the interval. */
  peakBytes: number | null = null
  private readonly timer: NodeJS.Timeout

  /** @param limitBytes memory and disk of the job together: its files lie in memory and count where it maps them */
  constructor(guard: number, limitBytes: number) {
    this.timer = setInterval(() => {
      const weight = jobMemoryBytes(guard, limitBytes)
      if (weight > 0) this.peakBytes = Math.max(this.peakBytes ?? 0, weight)
      if (weight > limitBytes) signalJob(guard, "SIGKILL")
    }, intervalMs)
  }

  stop(): void {
    clearInterval(this.timer)
  }
}
