/** Keeps an agent's session with the broker: opens one, notices its end, and says how the next may be begun. */
import { Deferred, Effect, type Exit, Result } from "effect"
import type { BusError } from "../ports/MessageBus.ts"
import type { AgentKnowledge } from "./AgentArrivals.ts"
import { type Appearance, makeSessions } from "./AgentSession.ts"
import { delayAfter } from "./Delays.ts"

/** How a session ended, or why it never began. */
export interface SessionEnd {
  readonly code: BusError["code"]
  readonly reason: string
}

const pauses = { firstMs: 1_000, factor: 2, maximumMs: 60_000 }
/** A broker that turns the agent away may take it once an operator has decided. */
const refusedPauses = { firstMs: 5_000, factor: 2, maximumMs: 300_000 }
const cameTimeoutMs = 30_000

export const makeConnection = (
  self: {
    readonly came: (
      topic: string,
      payload: Uint8Array,
      timeoutMs: number
    ) => Effect.Effect<void, { readonly message: string }>
    readonly due: Effect.Effect<void>
  },
  topicRoot: string,
  knowledge: AgentKnowledge,
  initial: Appearance
) =>
  Effect.gen(function* () {
    const sessions = yield* makeSessions(topicRoot)
    let appearance = initial
    let failures = 0
    return {
      /** One session, from its beginning to its end. */
      run: Effect.gen(function* () {
        // What waited in the session may come before the session is known here.
        const begun = yield* Deferred.make<void>()
        const open = yield* sessions.open(({ payload, topic }) =>
          Effect.andThen(Deferred.await(begun), self.came(topic, payload, cameTimeoutMs))
        )
        knowledge.session = open
        yield* Deferred.succeed(begun, undefined)
        yield* Effect.addFinalizer(() => sessions.leave(open))
        yield* sessions.subscribe(open)
        yield* sessions.shakeHands(open, appearance)
        failures = 0
        yield* self.due
        return yield* open.link.ended
      }).pipe(Effect.scoped, Effect.result),
      endOf: (exit: Exit.Exit<Result.Result<string, BusError>>): SessionEnd => {
        if (exit._tag === "Failure") return { code: "unreachable", reason: "the session broke off" }
        return Result.isFailure(exit.value)
          ? { code: exit.value.failure.code, reason: exit.value.failure.reason }
          : { code: "unreachable", reason: exit.value.success }
      },
      /** Forgets the session; how long to wait for the next. */
      ended: ({ code }: SessionEnd) =>
        Effect.suspend(() => {
          Object.assign(knowledge, { session: null, verdict: null, services: null })
          failures++
          return delayAfter(code === "refused" ? refusedPauses : pauses, failures)
        }),
      /** What others may know of this agent from now on. */
      appear: (next: Appearance) =>
        Effect.suspend(() => {
          appearance = next
          const open = knowledge.session
          return open === null ? Effect.void : Effect.ignore(sessions.shakeHands(open, next))
        })
    }
  })
