/**
 * What all cells of one system share. Nothing here is global: a process may hold many systems.
 */
import { Clock, Context, Effect, type Fiber, Scheduler } from "effect"
import { DeadLetters } from "../DeadLetters.ts"
import { Deadlines } from "../Deadlines.ts"
import type { TraceEvent } from "../Trace.ts"
import type { Cell } from "./Cell.ts"

/** What a registered name leads to. */
export interface Registered {
  readonly path: string
  /** The cell of a plain key, or of the child `id` of a dynamic key (started on demand). */
  resolve(id: string | undefined, tag: string): Cell | Error
}

/** Settings of a system that cells read. */
export interface KernelSettings {
  readonly askTimeoutMs: number
  readonly interruptGraceMs: number
  readonly maximumFencedLives: number
  readonly trace: ((event: TraceEvent) => void) | undefined
  readonly tooManyFenced: () => void
}

export class Kernel {
  readonly context: Context.Context<never>
  readonly settings: KernelSettings
  readonly deadlines: Deadlines
  readonly deadLetters: DeadLetters
  /** Plain and dynamic keys by name. */
  readonly registry = new Map<string, Registered>()
  /** Counters of the whole system. */
  readonly totals = { handled: 0, crashes: 0, restarts: 0, failedReplies: 0, lateReplies: 0, withdrawn: 0, refused: 0 }
  /** Abandoned lives whose fiber still runs, and all there ever were. */
  fencedNow = 0
  fencedTotal = 0
  readonly trace: ((event: TraceEvent) => void) | undefined
  private readonly clock: Clock.Clock
  private readonly dispatcher: Scheduler.SchedulerDispatcher
  private ready: Array<Cell> = []
  private scheduled = false

  constructor(context: Context.Context<never>, settings: KernelSettings) {
    this.context = context
    this.settings = settings
    this.trace = settings.trace
    this.clock = Context.get(context, Clock.Clock)
    this.deadlines = new Deadlines(context)
    this.deadLetters = new DeadLetters(() => this.wallMs())
    this.dispatcher = Context.get(context, Scheduler.Scheduler).makeDispatcher()
  }

  /** Wall-clock milliseconds, for people to read. */
  wallMs(): number {
    return this.clock.currentTimeMillisUnsafe()
  }

  /** Runs kernel work in a fiber of its own. */
  fork<A, E>(effect: Effect.Effect<A, E>): Fiber.Fiber<A, E> {
    return Effect.runForkWith(this.context)(effect)
  }

  /** Puts a parked cell on the run queue; all cells made ready in one turn wake in the order they were made so. */
  makeReady(cell: Cell): void {
    this.ready.push(cell)
    if (!this.scheduled) {
      this.scheduled = true
      this.dispatcher.scheduleTask(this.runReady, 0)
    }
  }

  private readonly runReady = (): void => {
    this.scheduled = false
    const ready = this.ready
    this.ready = []
    for (const cell of ready) {
      cell.wakeNow()
    }
  }

  /** Counts a life as abandoned. */
  fenced(): void {
    this.fencedNow++
    this.fencedTotal++
    if (this.fencedNow > this.settings.maximumFencedLives) {
      this.settings.tooManyFenced()
    }
  }
}
