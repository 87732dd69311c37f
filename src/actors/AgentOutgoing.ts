/** What an agent means to send: kept on disk until the broker has it, and sent in the order it was given. */
import { Array as Arr, Effect } from "effect"
import {
  AgentStore,
  type AgentStoreError,
  type Draft,
  type Moment,
  type WaitingDraft
} from "../ports/AgentStore.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import type { BusLink } from "../ports/MessageBus.ts"
import type { MessageId } from "../schemas/Message.ts"
import { CannotSend } from "../schemas/protocols/SmartAgent.ts"
import { type AgentName, brokerServices } from "../schemas/Topics.ts"
import type { AgentKnowledge } from "./AgentArrivals.ts"
import { draftFlaw, holderOf, type Mail, makeMail } from "./AgentMail.ts"
import type { AgentSession } from "./AgentSession.ts"
import { makeDraftTime } from "./DraftTime.ts"

const defaultLifetimeMs = 24 * 3_600_000
/** Drafts of one round. */
const roundDrafts = 64
/** Publications under way at once: a line that answers after a second, as over Tor, carries so many a second. */
const together = 8

interface DraftMail extends Mail {
  readonly id: MessageId
}

/** What an application wants to be sent. */
export interface Letter extends Pick<Draft, "level" | "to" | "subject" | "body"> {
  /** Null: a day. */
  readonly lifetimeMs: number | null
}

/** Neighbours of the same topic together: a broker may keep no order between topics. */
const byTopic = (mails: ReadonlyArray<DraftMail>): ReadonlyArray<ReadonlyArray<DraftMail>> =>
  Arr.match(mails, {
    onEmpty: () => [],
    onNonEmpty: Arr.groupWith((one, next) => one.topic === next.topic)
  })

type KeyOf = (holder: AgentName) => string | undefined

/**
 * How far the drafts were looked through in a session: each once, and again those that wait for a key when another is known.
 */
const makeCourse = (keyOf: KeyOf) => {
  let session: AgentSession | null = null
  let passed = 0
  /** Whose key is missing, or cannot be sealed to; and the first draft that waits for it. */
  const lacking = new Map<AgentName, { readonly key: string | undefined; readonly place: number }>()
  return {
    /** Behind which place to look on. */
    begin: (current: AgentSession): number => {
      if (session !== current) {
        session = current
        passed = 0
        lacking.clear()
      }
      for (const [holder, { key, place }] of lacking) {
        if (keyOf(holder) === key) continue
        lacking.delete(holder)
        passed = Math.min(passed, place - 1)
      }
      return passed
    },
    lacks: (holder: AgentName, key: string | undefined, place: number): void => {
      if (!lacking.has(holder)) lacking.set(holder, { key, place })
    },
    pass: (place: number): void => {
      passed = place
    }
  }
}

/** Publishes drafts, together and in their order, and forgets those that were acknowledged. */
const makePublishing = (course: ReturnType<typeof makeCourse>, keyOf: KeyOf) =>
  Effect.gen(function* () {
    const store = yield* AgentStore
    const mailOf = yield* makeMail
    /** Whatever becomes of the others, those that were acknowledged are sent. */
    const publish = Effect.fnUntraced(function* (mails: ReadonlyArray<DraftMail>, link: BusLink) {
      const results = yield* Effect.forEach(
        mails,
        ({ id, topic, wire }) => Effect.result(Effect.as(link.publish(topic, wire), id)),
        { concurrency: "unbounded" }
      )
      const taken = Arr.getSuccesses(results)
      if (taken.length > 0) yield* store.sent(taken)
      const [failure] = Arr.getFailures(results)
      return failure === undefined ? taken : yield* failure
    })
    return Effect.fnUntraced(function* (
      drafts: ReadonlyArray<WaitingDraft>,
      { link, standing, topicRoot }: AgentSession
    ) {
      const mails: Array<DraftMail> = []
      for (const { draft, place } of drafts) {
        const holder = holderOf(draft)
        const key = holder === null ? undefined : keyOf(holder)
        const mail = yield* mailOf(standing.name, draft, topicRoot, key)
        if (mail !== null) mails.push({ ...mail, id: draft.id })
        // Others need not wait for a key.
        else if (holder !== null) course.lacks(holder, key, place)
      }
      const sent: Array<MessageId> = []
      for (const some of byTopic(mails)) sent.push(...(yield* publish(some, link)))
      return sent
    })
  })

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

/** Sends what waits, in rounds. */
const makeRounds = (knowledge: AgentKnowledge, settle: Effect.Effect<void, AgentStoreError>) =>
  Effect.gen(function* () {
    const store = yield* AgentStore
    const clock = yield* DeviceClock
    const keyOf = (holder: AgentName) =>
      holder === brokerServices ? knowledge.services?.key : knowledge.peers.get(holder)?.agreement.key
    const course = makeCourse(keyOf)
    const publish = yield* makePublishing(course, keyOf)
    /** One round: those that the broker has acknowledged. Fails with the broker or the store; what went before is told. */
    return Effect.gen(function* () {
      const { services, session } = knowledge
      const sent: Array<MessageId> = []
      if (session === null || services === null) return sent
      yield* settle
      let behind = course.begin(session)
      for (let more = true; more && sent.length === 0; ) {
        const drafts = yield* store.queued(behind, roundDrafts, yield* clock.nowMs)
        more = drafts.length === roundDrafts
        for (const some of Arr.chunksOf(drafts, together)) {
          const nowMs = yield* clock.nowMs
          sent.push(
            ...(yield* publish(
              some.filter(({ draft }) => draft.expires_at_ms > nowMs),
              session
            ))
          )
          behind = some.at(-1)?.place ?? behind
          course.pass(behind)
        }
      }
      return sent
    })
  })

export const makeOutgoingMail = (knowledge: AgentKnowledge) =>
  Effect.gen(function* () {
    const store = yield* AgentStore
    const dating = yield* makeDating
    const round = yield* makeRounds(knowledge, dating.settle)
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
        const draft: Draft = { ...letter, id, to: [...new Set(to)], issued_at_ms, expires_at_ms }
        const flaw = draftFlaw(draft)
        if (flaw !== undefined) return yield* flaw
        const unsent = yield* Effect.mapError(
          store.queue(draft, moment.guessedIn),
          ({ reason }) => new CannotSend({ code: "full", reason: `the message was not kept: ${reason}` })
        )
        isUsed = true
        dating.dated(moment)
        yield* tellUnsent(unsent)
      }),
      counts: Effect.orElseSucceed(store.counts, () => ({ drafts: 0, inbox: 0 })),
      /** Whether anything can go out. */
      canSend: (): boolean => knowledge.session !== null && knowledge.services !== null,
      round,
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
