/** Retention: see its protocol. Rounds are tasks, one at a time, so that it answers meanwhile. */
import { Deferred, Effect, Exit } from "effect"
import { Behaviour } from "../kernel/index.ts"
import { Limits } from "../schemas/Limits.ts"
import type { StorageView } from "../schemas/ManagementViews.ts"
import { type Dropped, RetentionProtocol } from "../schemas/protocols/Retention.ts"
import type { RetentionConfig } from "../schemas/ServerConfig.ts"
import { makeAlarm } from "./Alarm.ts"
import { nothingDropped, retentionRound } from "./RetentionRound.ts"

/** After a start there is more urgent work. */
const firstMs = 10_000
/** How long whoever asked for a round waits. */
const sweepMs = 120_000

export const retention = (rules: RetentionConfig) =>
  Behaviour.make(RetentionProtocol, (context) =>
    Effect.gen(function* () {
      let storage: StorageView | null = null
      let running = false
      let count = 0
      let waiting: Array<Deferred.Deferred<Dropped>> = []
      const settle = (dropped: Dropped) => {
        for (const answer of waiting) Deferred.doneUnsafe(answer, Effect.succeed(dropped))
        waiting = []
      }
      yield* Effect.addFinalizer(() => Effect.sync(() => settle(nothingDropped)))
      const alarm = yield* makeAlarm(context.self.tell("Due"))
      yield* alarm.ringIn(firstMs)
      const begin = Effect.suspend(() => {
        if (running) return Effect.void
        running = true
        return context.startTask(retentionRound(rules), (exit) => [
          "Swept",
          Exit.isSuccess(exit) ? exit.value : { dropped: nothingDropped, storage }
        ])
      })
      return context.handlers({
        Storage: () => Effect.sync(() => storage),
        Sweep: () =>
          Effect.suspend(() => {
            const answer = Deferred.makeUnsafe<Dropped>()
            waiting.push(answer)
            return Effect.as(begin, { id: count++, waitMs: sweepMs, answer })
          }),
        Due: () => begin,
        Swept: ({ payload }) =>
          Effect.suspend(() => {
            running = false
            storage = payload.storage ?? storage
            settle(payload.dropped)
            return alarm.ringIn(Limits.retentionIntervalMs)
          })
      })
    })
  )
