/**
 * The mailbox: a bounded ring that belongs to an address, not to a life.
 *
 * Why not Effect's Queue: `takeAll` frees capacity at once and drained messages die with their fiber, and a sliding
 * queue drops askers silently. Here one envelope at a time leaves the ring, each ends in exactly one final state, and
 * giving up removes an envelope from the middle at amortised constant cost.
 */
import type { Exit } from "effect"
import type { OverflowPolicy } from "./ChildSpec.ts"
import { TimerNode } from "./Deadlines.ts"

/** Where an envelope is in its life. The last four are final and reached exactly once. */
export const EnvelopeState = {
  queued: 0,
  handling: 1,
  answered: 2,
  failed: 3,
  withdrawn: 4,
  evicted: 5
} as const
export type EnvelopeState = (typeof EnvelopeState)[keyof typeof EnvelopeState]

/** What settles an ask, or tells a waiting sender that its message has a place. */
export type Resume = (exit: Exit.Exit<never, never> | Exit.Exit<any, any>) => void

/**
 * One message on its way. It doubles as the node of the deadline queue, so that an ask allocates once.
 */
export abstract class Envelope extends TimerNode {
  readonly tag: string
  readonly payload: unknown
  /** Monotonic milliseconds at which the asker gives up; `Infinity` for told messages. */
  readonly deadlineMs: number
  /** Set for asks. */
  resume: Resume | undefined
  /** Set while a told message waits for a place in a full mailbox. */
  admitted: Resume | undefined = undefined
  state: EnvelopeState = EnvelopeState.queued
  /** Position in the ring that holds it. */
  slot = -1
  /** Whether it stands in the waiting line before a full mailbox. */
  waiting = false

  constructor(tag: string, payload: unknown, deadlineMs: number, resume: Resume | undefined) {
    super()
    this.tag = tag
    this.payload = payload
    this.deadlineMs = deadlineMs
    this.resume = resume
  }
}

const smallest = 8

/** A queue over a power-of-two array; removed entries leave holes that are compacted when the array is full. */
export class Ring<E extends { slot: number }> {
  private slots: Array<E | undefined> | undefined = undefined
  private head = 0
  private tail = 0
  /** Entries present. */
  size = 0

  push(entry: E): void {
    if (this.slots === undefined) {
      this.slots = new Array(smallest)
    } else if (this.tail - this.head === this.slots.length) {
      this.makeRoom()
    }
    const slots = this.slots as Array<E | undefined>
    entry.slot = this.tail
    slots[this.tail & (slots.length - 1)] = entry
    this.tail++
    this.size++
  }

  shift(): E | undefined {
    const slots = this.slots
    if (slots === undefined || this.size === 0) {
      return undefined
    }
    const mask = slots.length - 1
    while (true) {
      const at = this.head & mask
      const entry = slots[at]
      this.head++
      if (entry !== undefined) {
        slots[at] = undefined
        this.size--
        if (this.size === 0) {
          this.reset()
        }
        return entry
      }
    }
  }

  /** Removes an entry that is in this ring, wherever it stands. */
  remove(entry: E): void {
    const slots = this.slots as Array<E | undefined>
    slots[entry.slot & (slots.length - 1)] = undefined
    entry.slot = -1
    this.size--
    if (this.size === 0) {
      this.reset()
    }
  }

  /** An empty ring starts again at its first place, and gives back an array that a burst has blown up. */
  private reset(): void {
    this.head = 0
    this.tail = 0
    if ((this.slots as Array<E | undefined>).length > 1_024) {
      this.slots = undefined
    }
  }

  /** Called when every place is taken by an entry or a hole: closes the holes, and doubles if few were found. */
  private makeRoom(): void {
    const old = this.slots as Array<E | undefined>
    const length = this.size * 2 > old.length ? old.length * 2 : old.length
    const next: Array<E | undefined> = new Array(length)
    let count = 0
    for (let position = this.head; position < this.tail; position++) {
      const entry = old[position & (old.length - 1)]
      if (entry !== undefined) {
        entry.slot = count
        next[count++] = entry
      }
    }
    this.slots = next
    this.head = 0
    this.tail = count
  }
}

/** How a mailbox took an envelope. */
export type Offered = "accepted" | "waiting" | "full"

/**
 * The mailbox of one address. It keeps order and bounds; what a state change means to askers is the cell's business.
 */
export class Mailbox<E extends Envelope> {
  readonly capacity: number
  readonly overflow: OverflowPolicy
  private readonly queue = new Ring<E>()
  private line: Ring<E> | undefined = undefined
  private readonly lowWater: number
  /** The line moves while fewer than this many places are taken: the low water, or all while it is being let in. */
  private admitAt: number

  constructor(capacity: number, overflow: OverflowPolicy) {
    this.capacity = capacity
    this.overflow = overflow
    this.lowWater = Math.ceil(capacity / 2)
    this.admitAt = this.lowWater
  }

  /** Envelopes that have a place. */
  get depth(): number {
    return this.queue.size
  }

  /** Senders standing before a full mailbox. */
  get waiting(): number {
    return this.line === undefined ? 0 : this.line.size
  }

  /** Whether the next offer would find a place. */
  get hasRoom(): boolean {
    return this.queue.size < this.capacity
  }

  /** Gives the envelope a place, or a place in the line (policy `wait`, bounded like the mailbox), or neither. */
  offer(envelope: E): Offered {
    if (this.queue.size < this.capacity && (this.line === undefined || this.line.size === 0)) {
      this.queue.push(envelope)
      return "accepted"
    }
    if (this.overflow === "wait" && this.waiting < Math.max(this.capacity, 1_024)) {
      this.line ??= new Ring<E>()
      envelope.waiting = true
      this.line.push(envelope)
      return "waiting"
    }
    return "full"
  }

  /** Gives a place whatever the capacity: for the exits of tasks, which are bounded by the number of tasks. */
  force(envelope: E): void {
    this.queue.push(envelope)
  }

  /** Takes the oldest envelope. */
  shift(): E | undefined {
    return this.queue.shift()
  }

  /**
   * Moves the first of the line into a free place and returns it. The line moves only once the mailbox is half empty:
   * a sender woken for every single place would wait again after every message.
   */
  admit(): E | undefined {
    if (this.line === undefined || this.line.size === 0 || this.queue.size >= this.admitAt) {
      return undefined
    }
    const envelope = this.line.shift()
    if (envelope !== undefined) {
      envelope.waiting = false
      this.queue.push(envelope)
      // The letting in ends when the mailbox is full or nobody waits; the next begins at the low water again.
      const done = this.line.size === 0 || this.queue.size >= this.capacity
      this.admitAt = done ? this.lowWater : this.capacity
    }
    return envelope
  }

  /** Removes an envelope that has not been handed out yet. */
  remove(envelope: E): void {
    if (envelope.waiting) {
      envelope.waiting = false
      this.line?.remove(envelope)
    } else {
      this.queue.remove(envelope)
    }
  }

  /** Takes out everything, the line last. */
  drain(): Array<E> {
    const all: Array<E> = []
    for (let next = this.queue.shift(); next !== undefined; next = this.queue.shift()) {
      all.push(next)
    }
    for (let next = this.line?.shift(); next !== undefined; next = this.line?.shift()) {
      next.waiting = false
      all.push(next)
    }
    return all
  }
}
