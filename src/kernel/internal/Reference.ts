/**
 * References at work: finding the cell behind a name, telling and asking.
 */
import { Effect, Exit, Fiber } from "effect"
import type { ActorKey } from "../ActorKey.ts"
import type { AskOptions } from "../ActorRef.ts"
import { AskCycle, AskTimeout, Fenced, type MailboxFull, NotFound } from "../Errors.ts"
import { CurrentLife } from "../Fence.ts"
import type { Cell } from "./Cell.ts"
import type { Kernel } from "./Kernel.ts"
import { Letter } from "./Letter.ts"
import type { Life } from "./Life.ts"

/** What a reference leads to: a cell, or the error that a send fails with. */
export abstract class Address {
  readonly kernel: Kernel
  constructor(kernel: Kernel) {
    this.kernel = kernel
  }

  abstract get path(): string
  abstract resolve(tag: string): Cell | Error

  tell(tag: string, payload?: unknown): Effect.Effect<void, any> {
    return Effect.withFiber((fiber) => {
      const life = fiber.getRef(CurrentLife)
      if (life?.fenced === true) {
        return Effect.fail(refuseFenced(this, life, tag))
      }
      const cell = this.resolve(tag)
      if (cell instanceof Error) {
        return Effect.fail(cell)
      }
      const letter = new Letter(cell, tag, payload, Number.POSITIVE_INFINITY, 0, undefined, undefined)
      const refused = cell.send(letter)
      return refused === undefined
        ? Effect.void
        : refused === "waiting"
          ? inLine(cell, letter)
          : Effect.fail(refused)
    })
  }

  ask(tag: string, payload?: unknown, options?: AskOptions): Effect.Effect<any, any> {
    return askFor(this, undefined, undefined, tag, payload, options)
  }
}

const refuseFenced = (
  address: Address,
  life: { readonly path: string; refuse(): void },
  tag: string
): Fenced => {
  life.refuse()
  address.kernel.deadLetters.record(address.path, tag, "fenced")
  return new Fenced({ path: life.path })
}

/** Waits until a letter in the line has a place; gives up like an ask does. */
const inLine = (cell: Cell, letter: Letter): Effect.Effect<void, MailboxFull> =>
  Effect.callback<void, MailboxFull>((resume) => {
    if (!letter.waiting) {
      resume(Exit.void)
      return
    }
    letter.admitted = resume
    const { deadlines, settings } = cell.kernel
    deadlines.add(letter, deadlines.now() + settings.askTimeoutMs)
    return Effect.sync(() => cell.abandoned(letter))
  })

/** The ring of paths an ask from `asker` to `target` would close, or `undefined`. */
const findRing = (asker: Life, target: Cell, seen: Set<Cell> | undefined): Array<string> | undefined => {
  if (target === asker.cell) {
    return [target.path]
  }
  const waits = target.life?.waits
  if (waits === undefined || waits.length === 0 || seen?.has(target) === true) {
    return undefined
  }
  const visited = seen ?? new Set<Cell>()
  visited.add(target)
  for (const wait of waits) {
    const ring = findRing(asker, wait.cell, visited)
    if (ring !== undefined) {
      return [target.path, ...ring]
    }
  }
  return undefined
}

/**
 * An ask. `life` and `inHand` are given when a handler asks through its request; an ask made through a plain reference
 * from the fiber of a life that has a message in hand counts as that handler's too.
 */
export const askFor = (
  address: Address,
  life: Life | undefined,
  inHand: Letter | undefined,
  tag: string,
  payload: unknown,
  options: AskOptions | undefined
): Effect.Effect<any, any> =>
  Effect.callback((resume) => {
    const fiber = Fiber.getCurrent() as Fiber.Fiber<unknown>
    // Only lives put themselves there.
    const mark = fiber.getRef(CurrentLife) as Life | undefined
    if (mark?.fenced === true) {
      return resume(Exit.fail(refuseFenced(address, mark, tag)))
    }
    // A request kept beyond its message asks like anybody else.
    let asker = life !== undefined && life.inHand === inHand ? life : undefined
    let before = asker === undefined ? undefined : inHand
    if (asker === undefined && mark !== undefined && mark.fiber === fiber && mark.inHand !== undefined) {
      asker = mark
      before = mark.inHand
    }
    const cell = address.resolve(tag)
    if (cell instanceof Error) {
      return resume(Exit.fail(cell))
    }
    const ring = asker === undefined ? undefined : findRing(asker, cell, undefined)
    if (ring !== undefined) {
      return resume(Exit.fail(new AskCycle({ path: cell.path, tag, ring: [(asker as Life).path, ...ring] })))
    }
    const { deadlines, settings } = address.kernel
    const now = deadlines.now()
    const timeoutMs = Math.max(
      Math.min(options?.timeoutMs ?? settings.askTimeoutMs, (before?.deadlineMs ?? Infinity) - now),
      0
    )
    if (timeoutMs === 0) {
      return resume(Exit.fail(new AskTimeout({ path: cell.path, tag, timeoutMs })))
    }
    const letter = new Letter(cell, tag, payload, now + timeoutMs, timeoutMs, resume, asker)
    const refused = cell.send(letter)
    if (refused !== undefined && refused !== "waiting") {
      return resume(Exit.fail(refused))
    }
    if (asker !== undefined) {
      asker.waits ??= []
      asker.waits.push(letter)
    }
    deadlines.add(letter, letter.deadlineMs)
    return Effect.sync(() => cell.abandoned(letter))
  })

/** A reference to a cell that is known. */
export class CellAddress extends Address {
  private readonly cell: Cell
  constructor(cell: Cell) {
    super(cell.kernel)
    this.cell = cell
  }
  get path(): string {
    return this.cell.path
  }
  resolve(): Cell {
    return this.cell
  }
}

/** Crashes the current life of the actor a key names; false when nothing is bound to it or it has no life. */
export const restartNamed = (kernel: Kernel, key: ActorKey<any>, reason: string): Effect.Effect<boolean> =>
  Effect.sync(() => {
    const cell = kernel.registry.get(key.name)?.resolve(undefined, "")
    return cell !== undefined && !(cell instanceof Error) && cell.restart(reason)
  })

/** A reference by name, bound at each send: what stands behind the name may come and go. */
export class NamedAddress extends Address {
  private readonly name: string
  private readonly id: string | undefined
  constructor(kernel: Kernel, name: string, id: string | undefined) {
    super(kernel)
    this.name = name
    this.id = id
  }
  get path(): string {
    const path = this.kernel.registry.get(this.name)?.path
    const last = this.id === undefined ? "" : `/${this.id}`
    return path === undefined ? `?${this.name}${last}` : `${path}${last}`
  }
  resolve(tag: string): Cell | Error {
    const registered = this.kernel.registry.get(this.name)
    const found = registered?.resolve(this.id, tag)
    if (found !== undefined) {
      return found
    }
    this.kernel.deadLetters.record(this.path, tag, "not-found")
    return new NotFound({ path: this.path, tag })
  }
}
