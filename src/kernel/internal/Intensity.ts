/** Restart intensity: at most so many restarts within a sliding period. */
export class Intensity {
  private readonly limit: number
  private readonly periodMs: number
  private times: Array<number> = []

  constructor(limit: number, periodMs: number) {
    this.limit = limit
    this.periodMs = periodMs
  }

  /** Counts a restart now; false when it is one too many. */
  count(nowMs: number): boolean {
    const from = nowMs - this.periodMs
    this.times = this.times.filter((time) => time > from)
    this.times.push(nowMs)
    if (this.times.length <= this.limit) {
      return true
    }
    this.times = this.times.slice(-this.limit - 1)
    return false
  }

  /** A supervisor that starts anew counts anew. */
  clear(): void {
    this.times = []
  }
}
