/**
 * One life of an actor: a Scope, a fiber that runs the factory and then the loop, and its orderly or disorderly end.
 */
import { type Cause, Context, Effect, Exit, type Fiber, Scope } from "effect"
import type { Timer } from "../Deadlines.ts"
import { ActorCrashed, Stopped } from "../Errors.ts"
import { CurrentLife, type LifeMark } from "../Fence.ts"
import { EnvelopeState } from "../Mailbox.ts"
import { makeContext } from "./ActorContext.ts"
import type { Cell } from "./Cell.ts"
import { describeCause } from "./describeCause.ts"
import type { Letter } from "./Letter.ts"
import { Loop } from "./Loop.ts"
import type { Down } from "./Node.ts"
import type { Spawned } from "./Spawned.ts"

export class Life implements LifeMark {
  readonly cell: Cell
  readonly number: number
  readonly startedMs: number
  readonly scope: Scope.Closeable = Scope.makeUnsafe("sequential")
  /** The context of the life's fiber: the system's services, this Scope, and the mark of this life. */
  readonly context: Context.Context<never>
  fiber: Fiber.Fiber<void, unknown> | undefined = undefined
  /** Asks the handler in hand is waiting for. */
  waits: Array<Letter> | undefined = undefined
  spawned: Spawned | undefined = undefined
  tasks = 0
  beatMs: number
  fenced = false
  private phase: "starting" | "running" | "ending" | "ended" = "starting"
  private readonly loop: Loop
  private stopping: "no" | "self" | "restart" | "for-good" = "no"
  private failure: string | undefined = undefined
  private started: ((failure: Down | undefined) => void) | undefined
  private timer: Timer | undefined = undefined
  /** An abandoned handler whose reply is still to come. */
  private owesReply = false
  private done: Array<() => void> | undefined = undefined

  constructor(cell: Cell, number: number, started: (failure: Down | undefined) => void) {
    this.cell = cell
    this.number = number
    this.started = started
    this.startedMs = cell.kernel.deadlines.now()
    this.beatMs = this.startedMs
    this.loop = new Loop(this)
    this.context = Context.add(Context.add(cell.context, Scope.Scope, this.scope), CurrentLife, this)
  }

  /** The message in hand. */
  get inHand(): Letter | undefined {
    return this.loop.inHand
  }

  get path(): string {
    return this.cell.path
  }

  /** Counts a deed of this abandoned life that was refused. */
  refuse(): void {
    this.cell.refused++
    this.cell.kernel.totals.refused++
  }

  /** Counts the reply of an abandoned handler, once. */
  refuseReply(): void {
    if (this.owesReply) {
      this.owesReply = false
      this.refuse()
    }
  }

  // ---------------------------------------------------------------------------------------------------------------
  // Start

  begin(): void {
    const { cell } = this
    this.timer = cell.kernel.deadlines.after(cell.options.startTimeoutMs, () => this.startTimedOut())
    const program = Effect.flatMap(
      Effect.suspend(() => cell.behaviour.build(makeContext(this))),
      (handlers) => {
        this.loop.handlers = handlers as unknown as Loop["handlers"]
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
    return this.loop.run
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

  /** The handler no longer waits for this ask. */
  stopWaiting(letter: Letter): void {
    const at = this.waits === undefined ? -1 : this.waits.indexOf(letter)
    if (at >= 0) {
      this.waits?.splice(at, 1)
    }
  }

  // ---------------------------------------------------------------------------------------------------------------
  // The end

  /** Whether this life can still begin things. */
  get isAlive(): boolean {
    return !this.fenced && (this.phase === "starting" || this.phase === "running")
  }

  /** Ends this life as if its handler had crashed; false when it is ending anyway. */
  crashWith(cause: Cause.Cause<unknown>): boolean {
    const isFirst = this.isAlive && this.loop.crash === undefined
    if (isFirst) {
      this.loop.crash = cause
      this.loop.isHalted = true
      if (this.loop.inHand === undefined && this.phase === "running") {
        this.unpark()
      } else {
        this.interrupt()
      }
    }
    return isFirst
  }

  /** Ends this life after the message in hand, as its own wish. */
  stopSelf(): void {
    if (this.stopping === "no") {
      this.stopping = "self"
      this.loop.isHalted = true
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
    this.loop.isHalted = true
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
      this.refuseReply()
      this.cell.kernel.fencedNow--
      return
    }
    if (this.phase === "ended" || this.phase === "ending") {
      return
    }
    const unexpected = Exit.isFailure(exit) && (this.stopping === "no" || this.stopping === "self")
    if (unexpected && this.loop.crash === undefined) {
      this.loop.crash = exit.cause
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
    return this.loop.crash === undefined
      ? { _tag: "Normal" }
      : { _tag: "Crash", reason: describeCause(this.loop.crash), during }
  }

  /** The message in hand when the life ends fails to its asker. */
  private failInHand(): void {
    const letter = this.loop.inHand
    if (letter === undefined) {
      return
    }
    this.loop.inHand = undefined
    const { path, cell } = this
    const { tag } = letter
    const error =
      this.stopping === "for-good"
        ? new Stopped({ path, tag })
        : new ActorCrashed({ path, tag, reason: this.reason() })
    cell.trace(tag, this.loop.crash === undefined ? "interrupted" : "crashed")
    cell.settle(letter, EnvelopeState.failed, Exit.fail(error))
  }

  private reason(): string {
    const down = this.down()
    return down._tag === "Crash" ? down.reason : "it was stopped to be started again"
  }

  private get stopSpawned(): Effect.Effect<void> {
    return this.spawned === undefined ? Effect.void : this.spawned.stopAll
  }

  /** Stops temporary children (each within its own shutdown time-out), then closes the Scope within this life's. */
  private close(): void {
    this.phase = "ending"
    const { cell, scope, spawned } = this
    if (spawned === undefined && scope.state._tag === "Empty") {
      this.end()
      return
    }
    const { kernel } = cell
    const closeScope = Effect.suspend(() => {
      const limitMs = cell.options.shutdownMs + kernel.settings.interruptGraceMs
      this.timer = kernel.deadlines.after(limitMs, () => this.abandon())
      return Scope.close(scope, Exit.void)
    })
    this.fiber = kernel.fork(Effect.andThen(this.stopSpawned, closeScope))
    this.fiber.addObserver((exit) => {
      if (this.fenced) {
        kernel.fencedNow--
        return
      }
      if (Exit.isFailure(exit) && this.loop.crash === undefined) {
        this.loop.crash = exit.cause
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
    this.owesReply = this.loop.inHand !== undefined
    this.failInHand()
    this.waits = undefined
    cell.trace("", "fenced")
    if (this.phase !== "ending") {
      // Resources such as ports and files must become free for the next life even if this one never returns.
      cell.kernel.fork(Effect.andThen(this.stopSpawned, Scope.close(scope, Exit.void)))
    }
    this.failure ??= "it did not end within its shutdown time-out and was abandoned"
    cell.kernel.fenced()
    this.end()
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
