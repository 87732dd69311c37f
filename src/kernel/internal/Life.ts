/**
 * One life of an actor: a Scope, a fiber that runs the factory and then the loop, and its orderly or disorderly end.
 */
import { Cause, Context, Effect, Exit, type Fiber, Scope } from "effect"
import { ActorCrashed, Stopped } from "../Errors.ts"
import { CurrentLife, type LifeMark } from "../Fence.ts"
import { EnvelopeState } from "../Mailbox.ts"
import type { Timer } from "../Deadlines.ts"
import { makeContext } from "./ActorContext.ts"
import type { Cell, Letter } from "./Cell.ts"
import { describeCause } from "./describe.ts"
import { Handling } from "./Handling.ts"
import type { Down } from "./Node.ts"
import type { Spawned } from "./Spawned.ts"

type Handler = (request: Handling) => Effect.Effect<unknown, unknown, never>

/** Messages handled without a break before other fibers get a turn. */
const turn = 128

export class Life implements LifeMark {
  readonly cell: Cell
  readonly number: number
  readonly startedMs: number
  readonly scope: Scope.Closeable = Scope.makeUnsafe("sequential")
  /** The context of the life's fiber: the system's services, this Scope, and the mark of this life. */
  readonly context: Context.Context<never>
  fiber: Fiber.Fiber<void, unknown> | undefined = undefined
  /** The message in hand. */
  inHand: Letter | undefined = undefined
  /** Asks the handler in hand is waiting for. */
  waits: Array<Letter> | undefined = undefined
  spawned: Spawned | undefined = undefined
  tasks = 0
  beatMs: number
  fenced = false
  private phase: "starting" | "running" | "ending" | "ended" = "starting"
  private handlers: Record<string, Handler> | undefined = undefined
  private stopping: "no" | "self" | "restart" | "for-good" = "no"
  private crash: Cause.Cause<unknown> | undefined = undefined
  private failure: string | undefined = undefined
  private started: ((failure: Down | undefined) => void) | undefined
  private timer: Timer | undefined = undefined
  private done: Array<() => void> | undefined = undefined

  constructor(
    cell: Cell,
    number: number,
    started: (failure: Down | undefined) => void,
    base: Context.Context<never> = cell.kernel.context
  ) {
    this.cell = cell
    this.number = number
    this.started = started
    this.startedMs = cell.kernel.deadlines.now()
    this.beatMs = this.startedMs
    this.context = Context.add(Context.add(base, Scope.Scope, this.scope), CurrentLife, this)
  }

  get path(): string {
    return this.cell.path
  }

  /** Counts a deed of this abandoned life that was refused. */
  refuse(): void {
    this.cell.refused++
    this.cell.kernel.totals.refused++
  }

  // ---------------------------------------------------------------------------------------------------------------
  // Start

  begin(): void {
    const { cell } = this
    this.timer = cell.kernel.deadlines.after(cell.options.startTimeoutMs, () => this.startTimedOut())
    const program = Effect.flatMap(
      Effect.suspend(() => cell.behaviour.build(makeContext(this))),
      (handlers) => {
        this.handlers = handlers as unknown as Record<string, Handler>
        return this.enter()
      }
    )
    const fiber = Effect.runForkWith(this.context)(program as Effect.Effect<void, unknown, never>)
    this.fiber = fiber
    fiber.addObserver((exit) => this.fiberEnded(exit))
  }

  /** The factory has run: the actor is up. */
  private enter(): Effect.Effect<void> {
    if (this.phase !== "starting" || this.stopping === "restart" || this.stopping === "for-good") {
      return Effect.void
    }
    this.clearTimer()
    this.phase = "running"
    this.cell.state = "running"
    this.cell.trace("", "started")
    this.reportStarted(undefined)
    return this.loop
  }

  private reportStarted(failure: Down | undefined): boolean {
    const { started } = this
    this.started = undefined
    started?.(failure)
    return started !== undefined
  }

  private startTimedOut(): void {
    this.failure = `it did not start within ${this.cell.options.startTimeoutMs} ms`
    this.interrupt()
  }

  // ---------------------------------------------------------------------------------------------------------------
  // The loop

  private readonly loop: Effect.Effect<void> = Effect.whileLoop({
    while: () => this.stopping === "no" && this.crash === undefined,
    body: () => this.next(),
    step: () => undefined
  })

  private readonly park: Effect.Effect<void> = Effect.callback<void>((resume) => {
    this.cell.parked = () => resume(Effect.void)
  })

  private readonly outcome = {
    onSuccess: (value: unknown): void => this.succeeded(value),
    onFailure: (cause: Cause.Cause<unknown>): void => this.failed(cause)
  }

  /** Handles messages until one needs the fiber, the mailbox is empty or the turn is over. */
  private next(): Effect.Effect<void> {
    const { cell } = this
    for (let left = turn; left > 0; left--) {
      const letter = cell.take()
      if (letter === undefined) {
        return this.park
      }
      letter.state = EnvelopeState.handling
      this.inHand = letter
      const effect = this.handle(letter)
      if (!Exit.isExit(effect)) {
        return Effect.matchCause(effect, this.outcome)
      }
      if (Exit.isSuccess(effect)) {
        this.succeeded(effect.value)
      } else {
        this.failed(effect.cause)
      }
      if (this.stopping !== "no" || this.crash !== undefined) {
        return Effect.void
      }
    }
    return Effect.yieldNow
  }

  private handle(letter: Letter): Effect.Effect<unknown, unknown> {
    const handler = (this.handlers as Record<string, Handler>)[letter.tag]
    if (handler === undefined) {
      return Exit.fail(new Stopped({ path: this.path, tag: letter.tag }))
    }
    try {
      return handler(new Handling(this, letter))
    } catch (defect) {
      return Exit.die(defect)
    }
  }

  private succeeded(value: unknown): void {
    this.answer(EnvelopeState.answered, Exit.succeed(value))
  }

  private failed(cause: Cause.Cause<unknown>): void {
    // A typed error belongs to the asker; a defect, and a handler that interrupts itself, to the supervisor.
    if (Cause.hasDies(cause) || Cause.hasInterrupts(cause)) {
      this.crash = cause
      return
    }
    const letter = this.inHand
    if (letter !== undefined && letter.resume === undefined && letter.state === EnvelopeState.handling) {
      this.cell.failedReplies++
      this.cell.kernel.totals.failedReplies++
      this.cell.kernel.fork(
        Effect.logWarning(`${this.path} failed to handle the told message ${letter.tag}: ${describeCause(cause)}`)
      )
    }
    this.answer(EnvelopeState.failed, Exit.failCause(cause))
  }

  private answer(state: EnvelopeState, exit: Exit.Exit<unknown, unknown>): void {
    const { cell } = this
    const letter = this.inHand as Letter
    this.inHand = undefined
    if (this.fenced) {
      this.refuse()
      return
    }
    cell.handled++
    cell.kernel.totals.handled++
    if (!cell.settle(letter, state, exit)) {
      cell.lateReplies++
      cell.kernel.totals.lateReplies++
    }
    if (cell.kernel.trace !== undefined) {
      cell.trace(letter.tag, state === EnvelopeState.answered ? "answered" : "failed")
    }
  }

  /** The handler no longer waits for this ask. */
  stopWaiting(letter: Letter): void {
    const at = this.waits === undefined ? -1 : this.waits.indexOf(letter)
    if (at >= 0) {
      this.waits?.splice(at, 1)
    }
  }

  // ---------------------------------------------------------------------------------------------------------------
  // The end

  /** Ends this life after the message in hand, as its own wish. */
  stopSelf(): void {
    if (this.stopping === "no") {
      this.stopping = "self"
      this.unpark()
    }
  }

  /** Ends this life as the supervisor's wish: the handler in hand gets the shutdown time-out, then is interrupted. */
  stop(forGood: boolean, done: () => void): void {
    this.done ??= []
    this.done.push(done)
    const { cell } = this
    cell.state = "stopping"
    const before = this.stopping
    this.stopping = forGood ? "for-good" : before === "for-good" ? before : "restart"
    if (before === "restart" || before === "for-good" || this.phase === "ending") {
      return
    }
    this.clearTimer()
    if (this.phase === "starting" || cell.options.shutdownMs === 0) {
      this.interrupt()
      return
    }
    this.timer = cell.kernel.deadlines.after(cell.options.shutdownMs, () => this.interrupt())
    this.unpark()
  }

  private unpark(): void {
    const { cell } = this
    if (cell.life === this) {
      cell.wakeNow()
    }
  }

  /** Interrupts the fiber, and abandons it if it does not heed. */
  private interrupt(): void {
    const { kernel } = this.cell
    this.clearTimer()
    this.timer = kernel.deadlines.after(kernel.settings.interruptGraceMs, () => this.abandon())
    this.fiber?.interruptUnsafe()
  }

  private fiberEnded(exit: Exit.Exit<void, unknown>): void {
    if (this.fenced) {
      this.cell.kernel.fencedNow--
      return
    }
    if (this.phase === "ended" || this.phase === "ending") {
      return
    }
    const unexpected = Exit.isFailure(exit) && (this.stopping === "no" || this.stopping === "self")
    if (unexpected && this.crash === undefined) {
      this.crash = exit.cause
    }
    this.clearTimer()
    this.failInHand()
    this.close()
  }

  /** Why the life has ended. */
  private down(): Down {
    const during = this.started === undefined ? "run" : "start"
    if (this.failure !== undefined) {
      return { _tag: "Crash", reason: this.failure, during }
    }
    return this.crash === undefined
      ? { _tag: "Normal" }
      : { _tag: "Crash", reason: describeCause(this.crash), during }
  }

  /** The message in hand when the life ends fails to its asker. */
  private failInHand(): void {
    const letter = this.inHand
    if (letter === undefined) {
      return
    }
    this.inHand = undefined
    const { path, cell } = this
    const { tag } = letter
    const error =
      this.stopping === "for-good"
        ? new Stopped({ path, tag })
        : new ActorCrashed({ path, tag, reason: this.reason() })
    cell.trace(tag, this.crash === undefined ? "interrupted" : "crashed")
    cell.settle(letter, EnvelopeState.failed, Exit.fail(error))
  }

  private reason(): string {
    const down = this.down()
    return down._tag === "Crash" ? down.reason : "it was stopped to be started again"
  }

  /** Stops temporary children and closes the Scope, within the shutdown time-out. */
  private close(): void {
    this.phase = "ending"
    const { cell, scope, spawned } = this
    if (spawned === undefined && scope.state._tag === "Empty") {
      this.end()
      return
    }
    const { kernel } = cell
    this.timer = kernel.deadlines.after(cell.options.shutdownMs + kernel.settings.interruptGraceMs, () => this.abandon())
    const closing = Effect.andThen(spawned === undefined ? Effect.void : spawned.stopAll, Scope.close(scope, Exit.void))
    this.fiber = kernel.fork(closing)
    this.fiber.addObserver((exit) => {
      if (this.fenced) {
        kernel.fencedNow--
        return
      }
      if (Exit.isFailure(exit) && this.crash === undefined) {
        this.crash = exit.cause
      }
      this.clearTimer()
      this.end()
    })
  }

  /** Cuts the life off: from here on nothing it does has an effect through the kernel. */
  private abandon(): void {
    const { cell, scope } = this
    this.timer = undefined
    this.fenced = true
    this.failInHand()
    this.waits = undefined
    cell.trace("", "fenced")
    if (this.phase !== "ending") {
      // Resources such as ports and files must become free for the next life even if this one never returns.
      cell.kernel.fork(Scope.close(scope, Exit.void))
    }
    this.failure ??= "it did not end within its shutdown time-out and was abandoned"
    this.end()
    cell.kernel.fenced()
  }

  private end(): void {
    this.phase = "ended"
    const down = this.down()
    const { done, cell } = this
    this.done = undefined
    const asked = this.stopping === "restart" || this.stopping === "for-good"
    cell.trace("", down._tag === "Crash" ? (down.during === "start" ? "start-failed" : "crashed") : "stopped")
    const wasStarting = this.started !== undefined
    cell.lifeEnded(this, down, asked || wasStarting)
    this.reportStarted(down)
    for (const callback of done ?? []) {
      callback()
    }
  }

  private clearTimer(): void {
    if (this.timer !== undefined) {
      this.cell.kernel.deadlines.cancel(this.timer)
      this.timer = undefined
    }
  }
}
