/**
 * Letters: the envelopes of the kernel's own mailboxes.
 */
import { Envelope, type Resume } from "../Mailbox.ts"
import type { Cell } from "./Cell.ts"
import type { Life } from "./Life.ts"

/**
 * An envelope that knows its receiver, and the life it belongs to: the one whose handler waits for the answer, or the one
 * whose task has ended (then no other life may receive it).
 */
export class Letter extends Envelope {
  readonly cell: Cell
  readonly asker: Life | undefined
  readonly timeoutMs: number

  constructor(
    cell: Cell,
    tag: string,
    payload: unknown,
    deadlineMs: number,
    timeoutMs: number,
    resume: Resume | undefined,
    asker: Life | undefined
  ) {
    super(tag, payload, deadlineMs, resume)
    this.cell = cell
    this.timeoutMs = timeoutMs
    this.asker = asker
  }

  override expire(): void {
    this.cell.expired(this)
  }

  /** Whether this is the exit of a task of another life. */
  isForeignTo(life: Life): boolean {
    return this.asker !== undefined && this.asker !== life && this.resume === undefined
  }
}
