/**
 * The loop of one life: takes one message at a time out of the mailbox and lets the behaviour handle it.
 *
 * This is the hot path. A handler that returns a finished effect costs no fiber operation; any other runs in the life's
 * own fiber. No span, no schema, no generator per message.
 */
import { Cause, Effect, Exit } from "effect"
import { Stopped } from "../Errors.ts"
import { EnvelopeState } from "../Mailbox.ts"
import { describeCause } from "./describeCause.ts"
import { Handling } from "./Handling.ts"
import type { Letter } from "./Letter.ts"
import type { Life } from "./Life.ts"

type Handler = (request: Handling) => Effect.Effect<unknown, unknown>

/** Messages handled without a break before other fibers get a turn. */
const turn = 128

export class Loop {
  private readonly life: Life
  handlers: Record<string, Handler> = {}
  /** The message in hand. */
  inHand: Letter | undefined = undefined
  /** Set when the loop shall end after the message in hand. */
  isHalted = false
  /** Why a handler crashed. */
  crash: Cause.Cause<unknown> | undefined = undefined

  constructor(life: Life) {
    this.life = life
  }

  /** Runs until halted or crashed. */
  readonly run: Effect.Effect<void> = Effect.whileLoop({
    while: () => !this.isHalted,
    body: () => this.next(),
    step: () => undefined
  })

  private readonly park: Effect.Effect<void> = Effect.callback<void>((resume) => {
    this.life.cell.parked = () => resume(Effect.void)
  })

  private readonly outcome = {
    onSuccess: (value: unknown): void => this.succeeded(value),
    onFailure: (cause: Cause.Cause<unknown>): void => this.failed(cause)
  }

  /** Handles messages until one needs the fiber, the mailbox is empty or the turn is over. */
  private next(): Effect.Effect<void> {
    const { cell } = this.life
    for (let left = turn; left > 0; left--) {
      const letter = cell.take()
      if (letter === undefined) {
        return this.park
      }
      if (letter.isForeignTo(this.life)) {
        cell.discard(letter)
        continue
      }
      letter.state = EnvelopeState.handling
      this.inHand = letter
      let effect = this.handle(letter)
      if (cell.kernel.settings.spans) {
        effect = Effect.withSpan(effect, letter.tag, { attributes: { actor: cell.path } })
      }
      if (!Exit.isExit(effect)) {
        return Effect.matchCause(effect, this.outcome)
      }
      if (Exit.isSuccess(effect)) {
        this.succeeded(effect.value)
      } else {
        this.failed(effect.cause)
      }
      if (this.isHalted) {
        return Effect.void
      }
    }
    return Effect.yieldNow
  }

  private handle(letter: Letter): Effect.Effect<unknown, unknown> {
    const handler = this.handlers[letter.tag]
    if (handler === undefined) {
      return Exit.fail(new Stopped({ path: this.life.path, tag: letter.tag }))
    }
    try {
      return handler(new Handling(this.life, letter))
    } catch (defect) {
      return Exit.die(defect)
    }
  }

  private succeeded(value: unknown): void {
    // A told message has nobody to give the value to.
    this.answer(EnvelopeState.answered, this.inHand?.resume === undefined ? Exit.void : Exit.succeed(value))
  }

  private failed(cause: Cause.Cause<unknown>): void {
    // A typed error belongs to the asker; a defect, and a handler that interrupts itself, to the supervisor.
    if (Cause.hasDies(cause) || Cause.hasInterrupts(cause)) {
      this.crash = cause
      this.isHalted = true
      return
    }
    const { cell } = this.life
    const letter = this.inHand
    if (letter !== undefined && letter.resume === undefined && letter.state === EnvelopeState.handling) {
      cell.failedReplies++
      cell.kernel.totals.failedReplies++
      cell.kernel.warn(
        `${cell.path} failed to handle the told message ${letter.tag}: ${describeCause(cause)}`
      )
    }
    this.answer(EnvelopeState.failed, Exit.failCause(cause))
  }

  private answer(state: EnvelopeState, exit: Exit.Exit<unknown, unknown>): void {
    const { life } = this
    const { cell } = life
    const letter = this.inHand
    this.inHand = undefined
    if (life.fenced || letter === undefined) {
      life.refuseReply()
      return
    }
    cell.handled++
    cell.kernel.totals.handled++
    if (cell.kernel.trace !== undefined) {
      cell.trace(letter.tag, state === EnvelopeState.answered ? "answered" : "failed")
    }
    if (!cell.settle(letter, state, exit)) {
      cell.lateReplies++
      cell.kernel.totals.lateReplies++
    }
  }
}
