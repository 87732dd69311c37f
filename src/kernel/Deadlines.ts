/**
 * The deadline queue: one per system, for asks, start and shutdown time-outs, back-off and passivation alike.
 *
 * Deadlines are rounded up to whole milliseconds and kept in one bucket per millisecond; a single fiber sleeps until the
 * earliest bucket. Adding and cancelling cost a list operation, where an `Effect.timeout` per ask would cost a fiber.
 * Time is the monotonic time of Effect's Clock, so TestClock drives it and a stepping wall clock does not.
 */
import { Clock, Context, Duration, Effect, type Fiber } from "effect"

/** An entry of the deadline queue. */
export abstract class TimerNode {
  bucket: Bucket | undefined = undefined
  previous: TimerNode | undefined = undefined
  next: TimerNode | undefined = undefined
  /** Called once, when the time has come. */
  abstract expire(): void
}

interface Bucket {
  readonly atMs: number
  first: TimerNode | undefined
  last: TimerNode | undefined
}

/** A timer that calls a function. */
export class Timer extends TimerNode {
  private readonly callback: () => void
  constructor(callback: () => void) {
    super()
    this.callback = callback
  }
  override expire(): void {
    this.callback()
  }
}

/** The queue. */
export class Deadlines {
  private readonly clock: Clock.Clock
  private readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  private readonly buckets = new Map<number, Bucket>()
  /** Binary heap of the buckets by time. */
  private readonly heap: Array<Bucket> = []
  private newest: Bucket | undefined = undefined
  private sweeper: Fiber.Fiber<void> | undefined = undefined
  private wakeAtMs = Number.POSITIVE_INFINITY
  private sweeping = false
  private closed = false

  constructor(context: Context.Context<never>) {
    this.clock = Context.get(context, Clock.Clock)
    this.fork = Effect.runForkWith(context)
  }

  /** Monotonic milliseconds. */
  now(): number {
    return Number(this.clock.monotonicTimeNanosUnsafe()) / 1_000_000
  }

  /** Arranges for `node.expire()` at or just after the monotonic millisecond `atMs`. */
  add(node: TimerNode, atMs: number): void {
    const tick = Math.ceil(atMs)
    let bucket = this.newest
    if (bucket === undefined || bucket.atMs !== tick) {
      bucket = this.buckets.get(tick) ?? this.open(tick)
      this.newest = bucket
    }
    node.bucket = bucket
    node.previous = bucket.last
    node.next = undefined
    if (bucket.last === undefined) {
      bucket.first = node
    } else {
      bucket.last.next = node
    }
    bucket.last = node
    if (tick < this.wakeAtMs && !this.sweeping && !this.closed) {
      this.arm()
    }
  }

  /** Takes a node out; harmless when it has expired or was never added. */
  cancel(node: TimerNode): void {
    const bucket = node.bucket
    if (bucket === undefined) {
      return
    }
    if (node.previous === undefined) {
      bucket.first = node.next
    } else {
      node.previous.next = node.next
    }
    if (node.next === undefined) {
      bucket.last = node.previous
    } else {
      node.next.previous = node.previous
    }
    node.bucket = undefined
    node.previous = undefined
    node.next = undefined
  }

  /** Calls `callback` after `delayMs`; the timer can be cancelled. */
  after(delayMs: number, callback: () => void): Timer {
    const timer = new Timer(callback)
    this.add(timer, this.now() + delayMs)
    return timer
  }

  /** Sleeps through the queue; interruption takes the sleeper out. */
  sleep(delayMs: number): Effect.Effect<void> {
    return delayMs <= 0
      ? Effect.void
      : Effect.callback<void>((resume) => {
          const timer = this.after(delayMs, () => resume(Effect.void))
          return Effect.sync(() => this.cancel(timer))
        })
  }

  /** Stops the sweeping fiber. What is still queued never expires. */
  close(): void {
    this.closed = true
    this.sweeper?.interruptUnsafe()
    this.sweeper = undefined
  }

  private open(tick: number): Bucket {
    const bucket: Bucket = { atMs: tick, first: undefined, last: undefined }
    this.buckets.set(tick, bucket)
    const heap = this.heap
    let at = heap.length
    heap.push(bucket)
    while (at > 0) {
      const parent = (at - 1) >> 1
      if ((heap[parent] as Bucket).atMs <= tick) {
        break
      }
      heap[at] = heap[parent] as Bucket
      at = parent
    }
    heap[at] = bucket
    return bucket
  }

  private removeEarliest(): void {
    const heap = this.heap
    const bucket = heap[0] as Bucket
    this.buckets.delete(bucket.atMs)
    if (this.newest === bucket) {
      this.newest = undefined
    }
    const last = heap.pop() as Bucket
    const length = heap.length
    if (length === 0) {
      return
    }
    let at = 0
    while (true) {
      let child = 2 * at + 1
      if (child >= length) {
        break
      }
      if (child + 1 < length && (heap[child + 1] as Bucket).atMs < (heap[child] as Bucket).atMs) {
        child++
      }
      if ((heap[child] as Bucket).atMs >= last.atMs) {
        break
      }
      heap[at] = heap[child] as Bucket
      at = child
    }
    heap[at] = last
  }

  /** Expires what is due, oldest first, and forgets empty buckets at the front. */
  private sweep(): void {
    this.sweeping = true
    while (this.heap.length > 0) {
      const bucket = this.heap[0] as Bucket
      const node = bucket.first
      if (node === undefined) {
        this.removeEarliest()
      } else if (bucket.atMs <= this.now()) {
        this.cancel(node)
        node.expire()
      } else {
        break
      }
    }
    this.sweeping = false
  }

  /** Sends the sweeper to sleep until the earliest bucket. */
  private arm(): void {
    const earliest = this.heap[0] as Bucket
    this.wakeAtMs = earliest.atMs
    this.sweeper?.interruptUnsafe()
    this.sweeper = this.fork(this.run)
  }

  private readonly run: Effect.Effect<void> = Effect.suspend(() => {
    const delayMs = Math.max(this.wakeAtMs - this.now(), 0)
    return Effect.flatMap(this.clock.sleep(Duration.millis(delayMs)), () => {
      this.sweep()
      const earliest = this.heap[0]
      if (earliest === undefined || this.closed) {
        this.wakeAtMs = Number.POSITIVE_INFINITY
        this.sweeper = undefined
        return Effect.void
      }
      this.wakeAtMs = earliest.atMs
      return this.run
    })
  })
}
