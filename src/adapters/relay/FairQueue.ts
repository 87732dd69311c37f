/**
 * A queue that serves its keys in turn: who puts a thousand things in waits behind himself alone. Bounded as a whole and for
 * each key.
 */

export interface FairQueueBounds {
  readonly total: number
  readonly perKey: number
}

export class FairQueue<A> {
  /** In the order in which their turns come. */
  private readonly lines = new Map<string, Array<A>>()
  private readonly bounds: FairQueueBounds
  private count = 0

  constructor(bounds: FairQueueBounds) {
    this.bounds = bounds
  }

  get size(): number {
    return this.count
  }

  /** False where the queue, or this key's part of it, is full. */
  offer(key: string, item: A): boolean {
    const line = this.lines.get(key)
    if (this.count >= this.bounds.total || (line?.length ?? 0) >= this.bounds.perKey) return false
    if (line === undefined) this.lines.set(key, [item])
    else line.push(item)
    this.count++
    return true
  }

  /** What is next; its key's turn then comes after all others'. */
  take(): A | undefined {
    const next = this.lines.entries().next()
    if (next.done === true) return undefined
    const [key, line] = next.value
    const item = line.shift()
    this.lines.delete(key)
    if (line.length > 0) this.lines.set(key, line)
    this.count--
    return item
  }

  /** Takes something out of its turn; false where it is not in the queue any more. */
  remove(key: string, item: A): boolean {
    const line = this.lines.get(key)
    const at = line?.indexOf(item) ?? -1
    if (line === undefined || at < 0) return false
    line.splice(at, 1)
    if (line.length === 0) this.lines.delete(key)
    this.count--
    return true
  }

  /** Empties it. */
  drain(): ReadonlyArray<A> {
    const all = [...this.lines.values()].flat()
    this.lines.clear()
    this.count = 0
    return all
  }
}
