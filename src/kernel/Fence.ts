/**
 * Fencing: an abandoned life must not change the world any more.
 *
 * A life that outlives its shutdown cannot be killed, but it can be cut off. The kernel refuses its replies and sends;
 * adapters that write to a store call `Fence.guard` (or `Fence.check`) so that its writes are refused too. Outside any
 * actor there is nothing to fence and the check passes.
 */
import { Context, Effect } from "effect"
import { Fenced } from "./Errors.ts"

/** What the fiber of a life (and of its tasks) knows about that life. */
export interface LifeMark {
  readonly path: string
  /** True from the moment the life has been abandoned. */
  readonly fenced: boolean
  /** Counts a refused deed. */
  refuse(): void
}

/** The life the current fiber belongs to; `undefined` outside of actors. */
export const CurrentLife: Context.Reference<LifeMark | undefined> = Context.Reference<LifeMark | undefined>(
  "postern/kernel/CurrentLife",
  { defaultValue: () => undefined }
)

const check: Effect.Effect<void, Fenced> = Effect.withFiber((fiber) => {
  const life = fiber.getRef(CurrentLife)
  if (life === undefined || !life.fenced) {
    return Effect.void
  }
  life.refuse()
  return Effect.fail(new Fenced({ path: life.path }))
})

export const Fence = {
  /** Whether the current fiber may still act: false only for an abandoned life. */
  isCurrent: Effect.withFiber((fiber) => Effect.succeed(fiber.getRef(CurrentLife)?.fenced !== true)),
  /** Fails with `Fenced` (and counts the refusal) when the current fiber belongs to an abandoned life. */
  check,
  /** Runs the effect unless the current fiber belongs to an abandoned life. */
  guard: <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | Fenced, R> =>
    Effect.andThen(check, effect)
}
