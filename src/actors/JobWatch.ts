/** The job watch: see its protocol. Waiting costs a map entry, never a fiber of this actor. */
import { Deferred, Effect } from "effect"
import { Behaviour } from "../kernel/index.ts"
import type { OrderId } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import { JobWatchProtocol, TooManyWatchers } from "../schemas/protocols/JobWatch.ts"

type Watchers = Map<number, Deferred.Deferred<void>>

export const jobWatch = Behaviour.make(JobWatchProtocol, (context) =>
  Effect.gen(function* () {
    const byOrder = new Map<OrderId, Watchers>()
    let waiting = 0
    let next = 0

    const remove = (order: OrderId, ticket: number): void => {
      const watchers = byOrder.get(order)
      if (watchers?.delete(ticket) !== true) return
      waiting--
      if (watchers.size === 0) byOrder.delete(order)
    }
    const wake = (order: OrderId): void => {
      const watchers = byOrder.get(order)
      if (watchers === undefined) return
      byOrder.delete(order)
      waiting -= watchers.size
      for (const answer of watchers.values()) Deferred.doneUnsafe(answer, Effect.void)
    }
    // Whoever waits looks again, whatever ended this life.
    yield* Effect.addFinalizer(() => Effect.sync(() => [...byOrder.keys()].forEach(wake)))

    return context.handlers({
      Watch: ({ payload }) =>
        Effect.suspend(() => {
          if (waiting >= Limits.jobWatchers) return Effect.fail(new TooManyWatchers())
          const watchers: Watchers = byOrder.get(payload.order) ?? new Map()
          byOrder.set(payload.order, watchers)
          const id = next++
          const answer = Deferred.makeUnsafe<void>()
          watchers.set(id, answer)
          waiting++
          return Effect.succeed({ id, waitMs: Limits.logFollowMs, answer })
        }),
      Leave: ({ payload }) => Effect.sync(() => remove(payload.order, payload.ticket)),
      Changed: ({ payload }) => Effect.sync(() => payload.orders.forEach(wake))
    })
  })
)
