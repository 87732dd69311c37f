/** What an agent means to send: kept on disk until the broker has it, and sent in the order it was given. */
import { Effect } from "effect"
import { AgentStore, type Draft, type Moment } from "../ports/AgentStore.ts"
import type { MessageId } from "../schemas/Message.ts"
import { CannotSend } from "../schemas/protocols/SmartAgent.ts"
import type { AgentKnowledge } from "./AgentArrivals.ts"
import { checkedDraft } from "./AgentMail.ts"
import { makeRounds } from "./AgentRounds.ts"
import { makeDraftTime } from "./DraftTime.ts"

const defaultLifetimeMs = 24 * 3_600_000

/** What an application wants to be sent. */
export interface Letter extends Pick<Draft, "level" | "to" | "subject" | "body"> {
  /** Null: a day. */
  readonly lifetimeMs: number | null
}

/** When drafts begin and end. */
const makeDating = Effect.gen(function* () {
  const store = yield* AgentStore
  const time = yield* makeDraftTime
  /** Whether times may be on disk that were guessed. */
  let isOpen = true
  return {
    now: time.now,
    dated: ({ guessedIn }: Moment): void => {
      isOpen ||= guessedIn !== null
    },
    /** Puts right what was guessed, once that can be. */
    settle: Effect.gen(function* () {
      const guess = isOpen ? yield* time.guess : null
      if (guess === null) return
      isOpen = false
      yield* Effect.onError(store.settle(guess), () =>
        Effect.sync(() => {
          isOpen = true
        })
      )
    })
  }
})

export const makeOutgoingMail = (knowledge: AgentKnowledge) =>
  Effect.gen(function* () {
    const store = yield* AgentStore
    const dating = yield* makeDating
    const rounds = yield* makeRounds(knowledge, dating.settle)
    /** Nothing is opened only to be pruned. */
    let isUsed = false
    const tellUnsent = ({ length }: ReadonlyArray<MessageId>) =>
      length === 0 ? Effect.void : Effect.logWarning(`${length} messages expired before they could be sent`)
    return {
      /** Keeps a letter for sending. */
      keep: Effect.fnUntraced(function* ({ lifetimeMs, to, ...letter }: Letter, id: MessageId) {
        const moment = yield* dating.now
        const issued_at_ms = moment.nowMs
        const expires_at_ms = issued_at_ms + (lifetimeMs ?? defaultLifetimeMs)
        const draft = yield* Effect.fromResult(
          checkedDraft({ ...letter, id, to: [...new Set(to)], issued_at_ms, expires_at_ms })
        )
        const unsent = yield* Effect.mapError(store.queue(draft, moment.guessedIn), ({ code, reason }) => {
          const isFull = code === "full"
          return new CannotSend({
            code: isFull ? "full" : "failed",
            reason: `the message was not kept: ${reason}`
          })
        })
        isUsed = true
        dating.dated(moment)
        yield* tellUnsent(unsent)
      }),
      counts: Effect.orElseSucceed(store.counts, () => ({ drafts: 0, inbox: 0 })),
      /** Whether anything can go out. */
      canSend: (): boolean => knowledge.session !== null && knowledge.services !== null,
      round: rounds.round,
      /** Why something is not sent, for people; empty where nothing is wrong. */
      trouble: rounds.detail,
      /** Forgets what has ended. */
      prune: Effect.gen(function* () {
        isUsed ||= knowledge.session !== null
        if (!isUsed) return
        const pruned = Effect.flatMap(Effect.andThen(dating.settle, dating.now), store.prune)
        const { unsent, untaken } = yield* Effect.orElseSucceed(pruned, () => ({ unsent: [], untaken: 0 }))
        yield* tellUnsent(unsent)
        if (untaken > 0) yield* Effect.logInfo(`${untaken} messages expired before any program took them`)
      })
    }
  })
