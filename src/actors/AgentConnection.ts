/** Keeps an agent's session with the broker: opens one, notices its end, and says how the next may be begun. */
import { Deferred, Effect, type Exit, Result } from "effect"
import { AgentStore } from "../ports/AgentStore.ts"
import { AgentTrust } from "../ports/AgentTrust.ts"
import type { BusError, NotTaken } from "../ports/MessageBus.ts"
import type { MessageId } from "../schemas/Message.ts"
import type { AgentKnowledge } from "./AgentArrivals.ts"
import { type AgentSession, type Appearance, makeIds, makeSessions } from "./AgentSession.ts"
import { monotonicMs } from "./Alarm.ts"
import { type Delays, delayAfter } from "./Delays.ts"

/** How a session ended, or why it never began. `changed`: who the agent is, or whom it believes, is another now. */
export interface SessionEnd {
  readonly code: BusError["code"] | "changed"
  readonly reason: string
}

const pauses: Readonly<Record<BusError["code"], Delays>> = {
  unreachable: { firstMs: 1_000, factor: 2, maximumMs: 60_000 },
  // A broker that turns the agent away may take it once an operator has decided.
  refused: { firstMs: 5_000, factor: 2, maximumMs: 300_000 },
  // A server without messaging is asked now and then, for it may have some one day.
  none: { firstMs: 60_000, factor: 2, maximumMs: 900_000 }
}
/** A session that lasted for so long was no failure, however it ended. */
const goodMs = 30_000
const cameTimeoutMs = 30_000
/**
 * An answer to its handshake that did not come was lost on the way, and one that is not `known` may be another a while
 * later, when a clock was put right: it shakes hands once more. The delays rise above the time that any answer takes, since
 * the last handshake's alone counts.
 */
const shakeDelays: Delays = { firstMs: 30_000, factor: 2, maximumMs: 300_000 }

/** Messages to the agent itself. */
interface Self {
  readonly came: (topic: string, payload: Uint8Array, timeoutMs: number) => Effect.Effect<void, NotTaken>
  readonly due: Effect.Effect<void>
}

const endOf = (exit: Exit.Exit<Result.Result<SessionEnd, BusError>>): SessionEnd => {
  if (exit._tag === "Failure") return { code: "unreachable", reason: "the session broke off" }
  if (Result.isSuccess(exit.value)) return exit.value.success
  const { code, reason } = exit.value.failure
  return { code, reason }
}

/** The handshakes of one session after another. */
const makeShaking = (
  sessions: Effect.Success<typeof makeSessions>,
  knowledge: AgentKnowledge,
  initial: Appearance
) =>
  Effect.gen(function* () {
    const newId = yield* makeIds
    let appearance = initial
    /** Done when there is something new to tell. */
    let wanted = yield* Deferred.make<void>()
    const tell = Effect.suspend(() => Effect.asVoid(Deferred.succeed(wanted, undefined)))

    const shakeHands = Effect.fnUntraced(function* (open: AgentSession) {
      wanted = yield* Deferred.make<void>()
      const nonce = (yield* newId) as MessageId
      knowledge.shake = { nonce, answered: null }
      yield* sessions.shakeHands(open, nonce, appearance)
    })
    return {
      shakeHands,
      /** Tells the keys once more, since they have changed. */
      tell,
      /** What others may know of this agent from now on. */
      appear: (next: Appearance) =>
        Effect.suspend(() => {
          appearance = next
          return tell
        }),
      /** Shakes hands again where there is something new to tell, and until the last handshake is answered `known`. */
      again: Effect.fnUntraced(function* (open: AgentSession) {
        for (let attempts = 1; ; attempts++) {
          const isNews = yield* Effect.raceFirst(
            Effect.as(Deferred.await(wanted), true),
            Effect.flatMap(delayAfter(shakeDelays, attempts), Effect.sleep).pipe(
              Effect.andThen(
                Effect.suspend(() => (knowledge.shake?.answered === "known" ? Effect.never : Effect.void))
              ),
              Effect.as(false)
            )
          )
          if (isNews) attempts = 0
          yield* Effect.ignore(shakeHands(open))
        }
      })
    }
  })

export const makeConnection = (self: Self, knowledge: AgentKnowledge, initial: Appearance) =>
  Effect.gen(function* () {
    const trust = yield* AgentTrust
    const store = yield* AgentStore
    const sessions = yield* makeSessions
    const shaking = yield* makeShaking(sessions, knowledge, initial)
    let failures = 0
    let goodFromMs = Number.POSITIVE_INFINITY
    let believed: ReadonlySet<string> = new Set()
    /** Forgets the list of agents where a key that may have signed it counts no more. */
    const believe = (services: ReadonlySet<string>): void => {
      if (![...believed].every((key) => services.has(key))) knowledge.peers.clear()
      believed = services
    }

    return {
      /** One session, from its beginning to its end. */
      run: Effect.gen(function* () {
        const changed = Effect.as(trust.changed(), {
          code: "changed",
          reason: "its name, or whom it believes, has changed"
        } satisfies SessionEnd)
        // What waited in the session may come before the session is known here.
        const begun = yield* Deferred.make<void>()
        const open = yield* sessions.open({
          received: ({ payload, topic }) =>
            Effect.andThen(Deferred.await(begun), self.came(topic, payload, cameTimeoutMs)),
          // A store that fails says so with what comes next.
          hasRoom: Effect.orElseSucceed(store.hasRoom, () => false)
        })
        yield* Effect.addFinalizer(() => sessions.leave(open))
        believe(open.standing.services)
        knowledge.session = open
        yield* Deferred.succeed(begun, undefined)
        yield* sessions.subscribe(open)
        yield* shaking.shakeHands(open)
        goodFromMs = (yield* monotonicMs) + goodMs
        yield* self.due
        const ended = Effect.map(open.link.ended, (reason): SessionEnd => ({ code: "unreachable", reason }))
        return yield* Effect.raceAllFirst([ended, changed, shaking.again(open)])
      }).pipe(Effect.scoped, Effect.result),
      endOf,
      /** Forgets the session; how long to wait for the next. */
      ended: Effect.fnUntraced(function* ({ code }: SessionEnd) {
        Object.assign(knowledge, {
          session: null,
          shake: null,
          verdict: null,
          detail: "",
          services: null,
          directoryVersion: -1
        })
        // Not with the next session alone: there may be none.
        if (code === "changed") believe(trust.current()?.services ?? new Set())
        const wasGood = (yield* monotonicMs) >= goodFromMs
        goodFromMs = Number.POSITIVE_INFINITY
        failures = code === "changed" ? 0 : wasGood ? 1 : failures + 1
        return code === "changed" ? 0 : yield* delayAfter(pauses[code], failures)
      }),
      appear: shaking.appear,
      shakeAgain: shaking.tell
    }
  })
