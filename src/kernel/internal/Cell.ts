/**
 * A cell is what stands at an address: the mailbox, the counters, and at most one current life. It outlives its lives.
 */
import { Cause, type Context, Exit } from "effect"
import type { ActorKey } from "../ActorKey.ts"
import type { Behaviour } from "../Behaviour.ts"
import type { ActorOptions, ChildSpec } from "../ChildSpec.ts"
import { AskTimeout, Evicted, MailboxFull, Stopped } from "../Errors.ts"
import type { Inspection } from "../Inspection.ts"
import { EnvelopeState, Mailbox } from "../Mailbox.ts"
import type { TraceOutcome } from "../Trace.ts"
import { inspectCell } from "./inspectCell.ts"
import type { Kernel } from "./Kernel.ts"
import type { Letter } from "./Letter.ts"
import { Life } from "./Life.ts"
import type { ChildView, Down, LastFailure, Node, Owner } from "./Node.ts"

/** Where a cell is between its lives. `waiting` means that the supervisor will begin another life. */
export type CellState = "idle" | "starting" | "running" | "stopping" | "waiting" | "stopped"

export class Cell implements Node {
  readonly kind = "actor"
  readonly kernel: Kernel
  /** What lives are run with, besides their own Scope. */
  readonly context: Context.Context<never>
  readonly id: string
  readonly path: string
  readonly options: ActorOptions
  readonly behaviour: Behaviour<any, any>
  readonly key: ActorKey<any> | undefined
  readonly owner: Owner
  readonly mailbox: Mailbox<Letter>
  state: CellState = "idle"
  life: Life | undefined = undefined
  lives = 0
  handled = 0
  failedReplies = 0
  crashes = 0
  withdrawn = 0
  lateReplies = 0
  refused = 0
  lastFailure: LastFailure | undefined = undefined
  lastActiveMs = 0
  /** The parked loop of the current life. */
  parked: (() => void) | undefined = undefined
  private ready = false
  /** Nothing is taken in any more. */
  private closed = false

  constructor(
    kernel: Kernel,
    parentPath: string,
    spec: {
      readonly options: ActorOptions
      readonly behaviour: Behaviour<any, any>
      readonly key: ActorKey<any> | undefined
    },
    owner: Owner,
    context: Context.Context<never> = kernel.context
  ) {
    this.kernel = kernel
    this.context = context
    this.options = spec.options
    this.id = spec.options.id
    this.path = `${parentPath}/${spec.options.id}`
    this.behaviour = spec.behaviour
    this.key = spec.key
    this.owner = owner
    this.mailbox = new Mailbox(spec.options.mailbox.capacity, spec.options.mailbox.overflow)
    if (spec.key !== undefined) {
      kernel.registry.set(spec.key.name, this)
    }
  }

  /** Makes the cell of a temporary child. */
  makeChild(spec: ChildSpec<any, any>, owner: Owner, context: Context.Context<never>): Cell {
    return new Cell(this.kernel, this.path, spec, owner, context)
  }

  /** As the bearer of a plain key. */
  resolve(): Cell {
    return this
  }

  // ---------------------------------------------------------------------------------------------------------------
  // Messages

  /** Takes a message in: `undefined` when it has a place, `"waiting"` when it stands in line, else the refusal. */
  send(letter: Letter): undefined | "waiting" | Stopped | MailboxFull {
    if (this.closed) {
      return this.refuse(letter, "stopped")
    }
    const offered = this.mailbox.offer(letter)
    if (offered === "accepted") {
      this.wake()
      return undefined
    }
    if (offered === "waiting") {
      return "waiting"
    }
    if (this.mailbox.overflow !== "drop-oldest") {
      return this.refuse(letter, "full")
    }
    const oldest = this.mailbox.shift() as Letter
    this.kernel.deadLetters.record(this.path, oldest.tag, "evicted")
    this.trace(oldest.tag, "evicted")
    // First the newcomer takes the place: the evicted asker may send again at once.
    this.mailbox.offer(letter)
    this.wake()
    this.settle(oldest, EnvelopeState.evicted, Exit.fail(new Evicted({ path: this.path, tag: oldest.tag })))
    return undefined
  }

  /** Takes the exit of a task in, whatever the capacity. */
  sendForced(letter: Letter): void {
    if (this.closed) {
      this.refuse(letter, "stopped")
      return
    }
    this.mailbox.force(letter)
    this.wake()
  }

  private refuse(letter: Letter, reason: "stopped" | "full"): Stopped | MailboxFull {
    letter.state = EnvelopeState.failed
    this.kernel.deadLetters.record(this.path, letter.tag, reason)
    this.trace(letter.tag, reason === "full" ? "rejected" : "undelivered")
    return reason === "full"
      ? new MailboxFull({ path: this.path, tag: letter.tag, capacity: this.mailbox.capacity })
      : new Stopped({ path: this.path, tag: letter.tag })
  }

  /** Gives up a message that no life may receive any more. */
  discard(letter: Letter): void {
    this.kernel.deadLetters.record(this.path, letter.tag, "stopped")
    this.trace(letter.tag, "undelivered")
    this.settle(letter, EnvelopeState.failed, Exit.fail(new Stopped({ path: this.path, tag: letter.tag })))
  }

  /** Hands out the oldest message and lets the first of the line move up. */
  take(): Letter | undefined {
    const letter = this.mailbox.shift()
    if (letter !== undefined && this.mailbox.waiting > 0) {
      this.admitFromLine()
    }
    return letter
  }

  private admitFromLine(): void {
    for (let letter = this.mailbox.admit(); letter !== undefined; letter = this.mailbox.admit()) {
      const resume = letter.admitted
      if (resume !== undefined) {
        letter.admitted = undefined
        this.kernel.deadlines.cancel(letter)
        this.kernel.resume(resume, Exit.void)
      }
    }
  }

  /** Gives a letter its final state, once; later calls change nothing and return false. */
  settle(letter: Letter, state: EnvelopeState, exit: Exit.Exit<any, any>): boolean {
    if (letter.state > EnvelopeState.handling) {
      return false
    }
    letter.state = state
    this.kernel.deadlines.cancel(letter)
    letter.asker?.stopWaiting(letter)
    const resume = letter.resume ?? letter.admitted
    letter.resume = undefined
    letter.admitted = undefined
    if (resume !== undefined) {
      this.kernel.resume(resume, exit)
    }
    return true
  }

  /** The asker (or the sender in line) has gone away or run out of time. */
  withdraw(letter: Letter, outcome: "withdrawn" | "timed-out"): boolean {
    if (letter.state > EnvelopeState.handling) {
      return false
    }
    if (letter.state === EnvelopeState.queued) {
      const hadPlace = !letter.waiting
      this.mailbox.remove(letter)
      if (hadPlace && this.mailbox.waiting > 0) {
        this.admitFromLine()
      }
    }
    this.withdrawn++
    this.kernel.totals.withdrawn++
    this.trace(letter.tag, outcome)
    return true
  }

  /** Called by the deadline queue. */
  expired(letter: Letter): void {
    if (!this.withdraw(letter, "timed-out")) {
      return
    }
    const { path } = this
    const error =
      letter.admitted === undefined
        ? new AskTimeout({ path, tag: letter.tag, timeoutMs: letter.timeoutMs })
        : new MailboxFull({ path, tag: letter.tag, capacity: this.mailbox.capacity })
    this.settle(letter, EnvelopeState.withdrawn, Exit.fail(error))
  }

  /** Called when the fiber that waits for a letter is interrupted. */
  abandoned(letter: Letter): void {
    if (this.withdraw(letter, "withdrawn")) {
      letter.resume = undefined
      letter.admitted = undefined
      this.settle(letter, EnvelopeState.withdrawn, Exit.void)
    }
  }

  /** Sees to it that the loop runs, if there is a loop and it is parked. */
  wake(): void {
    if (this.parked !== undefined && !this.ready) {
      this.ready = true
      this.kernel.later(this.wakeUp)
    } else if (this.life === undefined && this.state === "idle") {
      this.owner.messageForIdle?.(this)
    }
  }

  private readonly wakeUp = (): void => {
    this.ready = false
    this.wakeNow()
  }

  /** Lets the parked loop go on. */
  wakeNow(): void {
    const resume = this.parked
    if (resume !== undefined) {
      this.parked = undefined
      resume()
    }
  }

  inspect(view: ChildView, childLimit: number): Inspection {
    return inspectCell(this, view, childLimit)
  }

  trace(tag: string, outcome: TraceOutcome): void {
    const { kernel } = this
    if (kernel.trace !== undefined) {
      kernel.trace({ atMs: kernel.deadlines.now(), path: this.path, tag, outcome })
    }
  }

  // ---------------------------------------------------------------------------------------------------------------
  // Lives

  /** Begins a life; `started` is called once with the outcome of the factory. */
  begin(started: (failure: Down | undefined) => void): void {
    this.lives++
    this.closed = false
    this.state = "starting"
    this.life = new Life(this, this.lives, started)
    this.life.begin()
  }

  /**
   * Ends the current life in order, and the address too when `forGood`. `done` is called when nothing of it runs any
   * more, or what still runs has been fenced. Calls during a running stop join it.
   */
  stop(forGood: boolean, done: () => void): void {
    const { life } = this
    if (forGood) {
      this.close()
    }
    if (life === undefined) {
      if (forGood) {
        this.retire()
      } else if (this.state !== "stopped") {
        this.state = "waiting"
      }
      done()
      return
    }
    life.stop(forGood, () => {
      if (forGood) {
        this.retire()
      }
      done()
    })
  }

  /**
   * Crashes the current life from outside, bypassing the mailbox: the handler in hand is interrupted, and fenced if it does
   * not heed. What follows is up to the supervisor. False when there is no life to end.
   */
  restart(reason: string): boolean {
    return this.life?.crashWith(Cause.die(reason)) ?? false
  }

  /** Closes the address of an actor that is down. */
  retire(): void {
    this.state = "stopped"
    this.close()
  }

  /** What waits in the mailbox fails, and so does everything sent from now on. */
  private close(): void {
    this.closed = true
    for (const letter of this.mailbox.drain()) {
      this.discard(letter)
    }
  }

  /** The life has ended (or was abandoned): remembers why and tells the supervisor, unless the supervisor asked. */
  lifeEnded(life: Life, down: Down, asked: boolean): void {
    if (this.life !== life) {
      return
    }
    this.life = undefined
    this.parked = undefined
    if (this.state !== "stopped") {
      this.state = "waiting"
    }
    if (down._tag === "Crash") {
      this.crashes++
      this.kernel.totals.crashes++
      this.lastFailure = { atMs: this.kernel.wallMs(), reason: down.reason }
    }
    if (!asked) {
      this.owner.childDown(this, down)
    }
  }
}
