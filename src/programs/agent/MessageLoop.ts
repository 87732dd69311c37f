/** What a program's loop over an agent's messages asks: promises over one listener of its own. */
import { Deferred, Effect, Exit, Scope } from "effect"
import type { AgentDesk, AgentListener } from "../../ports/AgentDesk.ts"
import type { AgentTrouble } from "../../schemas/AgentLocal.ts"
import { AgentError, type Message } from "./Api.ts"
import { shownMessage } from "./Conversions.ts"

/** How long one look for messages lasts. */
const takeMs = 30_000

/** What runs Effects for a program, until its agent is closed. */
export interface LoopRunner {
  readonly run: <A>(effect: Effect.Effect<A, AgentTrouble | AgentError>) => Promise<A>
  /** Closed as somebody wished. */
  readonly isClosed: () => boolean
}

const over: IteratorReturnResult<undefined> = { done: true, value: undefined }

/**
 * One loop. It is done with a message when the next is asked for. No generator, since the `return` of one waits for what
 * its `next` waits for: whoever leaves this while it waits, leaves no listener behind that takes what others wait for.
 */
export const makeMessageLoop = (
  desk: AgentDesk,
  { isClosed, run }: LoopRunner
): AsyncIterableIterator<Message, undefined, unknown> => {
  const scope = Scope.makeUnsafe()
  const left = Deferred.makeUnsafe<never, AgentError>()
  let listener: AgentListener | undefined
  let last: (() => Promise<void>) | undefined
  let isOver = false
  /** What is under way, one after the other. */
  let turn: Promise<unknown> = Promise.resolve()
  const unlessLeft = <A>(effect: Effect.Effect<A, AgentTrouble>): Promise<A> =>
    run(Effect.raceFirst(effect, Deferred.await(left)))
  const doneWith = (from: AgentListener, place: number) => {
    let deal: Promise<void> | undefined
    return (): Promise<void> => {
      deal ??= run(from.done([place])).catch((error: unknown) => {
        // Whoever goes on nevertheless has it tried again, at the latest by asking for the next.
        deal = undefined
        throw error
      })
      return deal
    }
  }
  const step = async (): Promise<IteratorResult<Message, undefined>> => {
    await last?.()
    last = undefined
    while (!isOver) {
      listener ??= await unlessLeft(Scope.provide(desk.listen, scope))
      const [found] = await unlessLeft(listener.take(1, takeMs))
      if (found === undefined) continue
      last = doneWith(listener, found.place)
      return { done: false, value: shownMessage(found, last) }
    }
    return over
  }
  const close = (): Promise<void> => {
    isOver = true
    return Effect.runPromise(Scope.close(scope, Exit.void))
  }
  const next = async (): Promise<IteratorResult<Message, undefined>> => {
    if (isOver) return over
    try {
      return await step()
    } catch (error) {
      // Whoever leaves the loop or closes the agent ends it; that is no failure of it.
      const isMeant = isOver || isClosed()
      await close()
      if (!isMeant) throw error
      return over
    }
  }
  const inTurn = <A>(work: () => Promise<A>): Promise<A> => {
    const result = turn.then(work, work)
    turn = result
    return result
  }
  const loop: AsyncIterableIterator<Message, undefined, unknown> = {
    [Symbol.asyncIterator]: () => loop,
    next: () => inTurn(next),
    return: async () => {
      isOver = true
      Deferred.doneUnsafe(left, Effect.fail(new AgentError("closed", "the loop was left")))
      // A look that goes on would be heard behind the listener's leaving, and make a listener of it again.
      await inTurn(close)
      return over
    }
  }
  return loop
}
