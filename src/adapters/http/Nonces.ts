/**
 * Nonces seen lately, so that a request counts once. In memory and bounded: what was made before this process started
 * is refused by its time, what is older than the skew likewise.
 */
export class Nonces {
  private readonly maximum: number
  private readonly maximumPerKey: number
  private readonly keepMs: number
  /** Key and nonce, with the time until which it is kept; in the order of coming, so also of going. */
  private readonly seen = new Map<string, { readonly key: string; readonly untilMs: number }>()
  private readonly perKey = new Map<string, number>()

  constructor(options: {
    readonly maximum: number
    readonly maximumPerKey: number
    readonly keepMs: number
  }) {
    this.maximum = options.maximum
    this.maximumPerKey = options.maximumPerKey
    this.keepMs = options.keepMs
  }

  get size(): number {
    return this.seen.size
  }

  private prune(nowMs: number): void {
    for (const [entry, { key, untilMs }] of this.seen) {
      if (untilMs > nowMs) return
      this.seen.delete(entry)
      const left = (this.perKey.get(key) ?? 1) - 1
      if (left === 0) this.perKey.delete(key)
      else this.perKey.set(key, left)
    }
  }

  /** Whether the nonce was taken, and is remembered. */
  has(key: string, nonce: string): boolean {
    return this.seen.has(`${key} ${nonce}`)
  }

  /** Takes a nonce of a key: `new`, `replayed`, or `full` when there is no room to remember it. */
  take(key: string, nonce: string, nowMs: number): "new" | "replayed" | "full" {
    this.prune(nowMs)
    const entry = `${key} ${nonce}`
    if (this.seen.has(entry)) return "replayed"
    const ofKey = this.perKey.get(key) ?? 0
    if (this.seen.size >= this.maximum || ofKey >= this.maximumPerKey) return "full"
    this.seen.set(entry, { key, untilMs: nowMs + this.keepMs })
    this.perKey.set(key, ofKey + 1)
    return "new"
  }
}
