/**
 * The request object a handler receives: a message in hand, and asking on its behalf.
 */
import { Effect } from "effect"
import type { AskOptions } from "../ActorRef.ts"
import type { Letter } from "./Letter.ts"
import type { Life } from "./Life.ts"
import { type Address, askFor } from "./Reference.ts"

export class Handling {
  private readonly life: Life
  private readonly letter: Letter

  constructor(life: Life, letter: Letter) {
    this.life = life
    this.letter = letter
  }

  get tag(): string {
    return this.letter.tag
  }

  get payload(): any {
    return this.letter.payload
  }

  get deadlineMs(): number {
    return this.letter.deadlineMs
  }

  get remainingMs(): Effect.Effect<number> {
    return Effect.sync(() => Math.max(this.letter.deadlineMs - this.life.cell.kernel.deadlines.now(), 0))
  }

  ask(ref: unknown, tag: string, payload?: unknown, options?: AskOptions): Effect.Effect<any, any> {
    return askFor(ref as Address, this.life, this.letter, tag, payload, options)
  }
}
