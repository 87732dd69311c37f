/**
 * What all cells of one system share. Nothing here is global: a process may hold many systems.
 */
import { Clock, Context, Effect, type Exit, type Fiber, Scheduler } from "effect"
import { DeadLetters } from "../DeadLetters.ts"
import { Deadlines } from "../Deadlines.ts"
import type { Resume } from "../Mailbox.ts"
import type { TraceEvent } from "../Trace.ts"
import type { Cell } from "./Cell.ts"

/** What a registered name leads to. */
export interface Registered {
  readonly path: string
  /** The cell of a plain key, or of the child `id` of a dynamic key (started on demand). */
  resolve(id: string | undefined, tag: string): Cell | Error
}

/** Fibers resumed inside each other at most. */
const deepest = 32

/** Settings of a system that cells read. */
export interface KernelSettings {
  readonly askTimeoutMs: number
  readonly interruptGraceMs: number
  readonly maximumFencedLives: number
  readonly trace: ((event: TraceEvent) => void) | undefined
  readonly spans: boolean
  readonly tooManyFenced: () => void
}

/** A trace that throws must not break what it watches. */
const harmless =
  (trace: (event: TraceEvent) => void) =>
  (event: TraceEvent): void => {
    try {
      trace(event)
    } catch {
      // The watcher's own trouble: there is nobody here to tell.
    }
  }

export class Kernel {
  readonly context: Context.Context<never>
  readonly settings: KernelSettings
  readonly deadlines: Deadlines
  readonly deadLetters: DeadLetters
  /** Plain and dynamic keys by name. */
  readonly registry = new Map<string, Registered>()
  /** Counters of the whole system. */
  readonly totals = {
    handled: 0,
    crashes: 0,
    restarts: 0,
    failedReplies: 0,
    lateReplies: 0,
    withdrawn: 0,
    refused: 0
  }
  /** Abandoned lives whose fiber still runs, and all there ever were. */
  fencedNow = 0
  fencedTotal = 0
  readonly trace: ((event: TraceEvent) => void) | undefined
  private readonly clock: Clock.Clock
  private readonly dispatcher: Scheduler.SchedulerDispatcher
  private ready: Array<() => void> = []
  private depth = 0
  private scheduled = false

  constructor(context: Context.Context<never>, settings: KernelSettings) {
    this.context = context
    this.settings = settings
    this.trace = settings.trace === undefined ? undefined : harmless(settings.trace)
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

  /** Puts something on the run queue; what is put there in one turn runs in the next, in order. */
  later(work: () => void): void {
    this.ready.push(work)
    if (!this.scheduled) {
      this.scheduled = true
      this.dispatcher.scheduleTask(this.runReady, 0)
    }
  }

  private readonly runReady = (): void => {
    this.scheduled = false
    const ready = this.ready
    this.ready = []
    for (const work of ready) {
      work()
    }
  }

  /**
   * Resumes a waiting fiber, which runs at once, inside the caller. A long chain of actors that ask each other would
   * nest as deep as it is long, so beyond a few levels the rest waits for the run queue.
   */
  resume(resume: Resume, exit: Exit.Exit<any, any>): void {
    if (this.depth >= deepest) {
      this.later(() => resume(exit))
      return
    }
    this.depth++
    try {
      resume(exit)
    } finally {
      this.depth--
    }
  }

  /** Logs a warning. */
  warn(text: string): void {
    this.fork(Effect.logWarning(text))
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
