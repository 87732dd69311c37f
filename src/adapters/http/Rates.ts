/**
 * How often each caller may ask: a bucket per caller that fills steadily and is emptied by requests. Rejects, and says
 * when there will be room again; nothing waits here.
 */
export class Rates {
  private readonly perMs: number
  private readonly capacity: number
  private readonly buckets = new Map<string, { left: number; atMs: number }>()

  constructor(perMinute: number) {
    this.perMs = perMinute / 60_000
    // Ten seconds' worth may come at once: tools ask in bursts.
    this.capacity = Math.max(1, perMinute / 6)
  }

  /** Takes one request of a caller. Gives 0, or after how many milliseconds the next one is taken. */
  take(caller: string, nowMs: number): number {
    const bucket = this.buckets.get(caller) ?? { left: this.capacity, atMs: nowMs }
    const left = Math.min(this.capacity, bucket.left + Math.max(0, nowMs - bucket.atMs) * this.perMs)
    const isTaken = left >= 1
    this.buckets.set(caller, { left: isTaken ? left - 1 : left, atMs: nowMs })
    return isTaken ? 0 : Math.ceil((1 - left) / this.perMs)
  }
}
