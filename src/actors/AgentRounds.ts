/** Sends what waits, in rounds: together, in order, and past what cannot go now. */
import { Array as Arr, Effect, Result } from "effect"
import { AgentStore, type AgentStoreError, type Draft, type WaitingDraft } from "../ports/AgentStore.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import type { BusLink } from "../ports/MessageBus.ts"
import type { MessageId } from "../schemas/Message.ts"
import { type AgentName, brokerServices } from "../schemas/Topics.ts"
import type { AgentKnowledge } from "./AgentArrivals.ts"
import { holderOf, type Mail, makeMail } from "./AgentMail.ts"
import type { AgentSession } from "./AgentSession.ts"
import { monotonicMs } from "./Alarm.ts"

/** Drafts of one round. */
const roundDrafts = 64
/** Publications under way at once: a line that answers after a second, as over Tor, carries so many a second. */
const together = 8

/** Whatever was set aside is tried again after so long, and in the next session. */
const asideMs = 15 * 60_000

interface DraftMail extends Mail {
  readonly id: MessageId
  readonly place: number
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
  /** What would fail again and again, and hold up the others. */
  const aside = new Map<MessageId, { readonly place: number; readonly reason: string }>()
  let asideFromMs = 0
  return {
    /** Behind which place to look on. */
    begin: (current: AgentSession, nowMs: number): number => {
      if (session !== current) {
        session = current
        passed = 0
        lacking.clear()
        aside.clear()
      }
      for (const [holder, { key, place }] of lacking) {
        if (keyOf(holder) === key) continue
        lacking.delete(holder)
        passed = Math.min(passed, place - 1)
      }
      if (nowMs >= asideFromMs + asideMs) {
        for (const { place } of aside.values()) passed = Math.min(passed, place - 1)
        aside.clear()
      }
      return passed
    },
    lacks: (holder: AgentName, key: string | undefined, place: number): void => {
      if (!lacking.has(holder)) lacking.set(holder, { key, place })
    },
    setAside: (id: MessageId, place: number, reason: string) =>
      Effect.gen(function* () {
        const isFirst = aside.size === 0
        if (isFirst) asideFromMs = yield* monotonicMs
        aside.set(id, { place, reason })
        // A broker may refuse all of them.
        yield* isFirst
          ? Effect.logWarning(`message ${id} is set aside, to be tried again later: ${reason}`)
          : Effect.logDebug(`message ${id} is set aside as well: ${reason}`)
      }),
    isAside: (id: MessageId): boolean => aside.has(id),
    /** For people; empty where nothing was set aside. */
    detail: (): string => {
      const [first] = aside
      return first === undefined
        ? ""
        : `${aside.size} of the messages are set aside, to be tried again later. Message ${first[0]}: ${first[1].reason}`
    },
    pass: (place: number): void => {
      passed = place
    }
  }
}

/**
 * What the broker has acknowledged, until it is off the disk. Sent again in the same session it would count as a replay, and
 * a public one come twice.
 */
const makeDone = Effect.map(AgentStore, (store) => {
  const done = new Set<MessageId>()
  return {
    add: (ids: ReadonlyArray<MessageId>): void => {
      for (const id of ids) done.add(id)
    },
    has: (id: MessageId): boolean => done.has(id),
    /** Takes them off the disk. */
    strike: Effect.suspend(() => {
      const ids = [...done]
      const forget = Effect.sync(() => {
        for (const id of ids) done.delete(id)
      })
      return ids.length === 0 ? Effect.void : Effect.andThen(store.sent(ids), forget)
    })
  }
})

/** Publishes drafts, together and in their order; gives those that were acknowledged. */
const makePublishing = (course: ReturnType<typeof makeCourse>, done: Effect.Success<typeof makeDone>) =>
  Effect.gen(function* () {
    const mailOf = yield* makeMail
    /** Whatever becomes of the others, those that were acknowledged are sent, and those that were refused are not again. */
    const publish = Effect.fnUntraced(function* (mails: ReadonlyArray<DraftMail>, link: BusLink) {
      const results = yield* Effect.forEach(
        mails,
        (mail) =>
          Effect.map(Effect.result(link.publish(mail.topic, mail.wire)), (result) => ({ ...mail, result })),
        { concurrency: "unbounded" }
      )
      const taken = results.filter(({ result }) => Result.isSuccess(result)).map(({ id }) => id)
      done.add(taken)
      // What fails here is tried again, and told, at the end of the round.
      yield* Effect.ignore(done.strike)
      for (const { id, place, result } of results)
        if (Result.isFailure(result) && result.failure.code === "refused")
          yield* course.setAside(id, place, result.failure.message)
      const failures = Arr.getFailures(results.map(({ result }) => result))
      const broken = failures.find(({ code }) => code !== "refused")
      return broken === undefined ? taken : yield* broken
    })
    /** Its mail; null where it waits for a key, or nothing can be made of it. */
    const made = ({ draft, place }: WaitingDraft, { standing, topicRoot }: AgentSession, keyOf: KeyOf) => {
      const holder = holderOf(draft)
      const key = holder === null ? undefined : keyOf(holder)
      return mailOf(standing.name, draft, topicRoot, key).pipe(
        Effect.tap((mail) =>
          Effect.sync(() => {
            if (mail === null && holder !== null) course.lacks(holder, key, place)
          })
        ),
        Effect.catchDefect((defect) =>
          Effect.as(course.setAside(draft.id, place, `nothing can be made of it: ${String(defect)}`), null)
        )
      )
    }
    return Effect.fnUntraced(function* (
      drafts: ReadonlyArray<WaitingDraft>,
      session: AgentSession,
      keyOf: KeyOf
    ) {
      const mails: Array<DraftMail> = []
      for (const waiting of drafts) {
        const mail = yield* made(waiting, session, keyOf)
        if (mail !== null) mails.push({ ...mail, id: waiting.draft.id, place: waiting.place })
      }
      const sent: Array<MessageId> = []
      for (const some of byTopic(mails)) sent.push(...(yield* publish(some, session.link)))
      return sent
    })
  })

/** `settle` goes before each round. */
export const makeRounds = (knowledge: AgentKnowledge, settle: Effect.Effect<void, AgentStoreError>) =>
  Effect.gen(function* () {
    const store = yield* AgentStore
    const clock = yield* DeviceClock
    const keyOf: KeyOf = (holder) =>
      holder === brokerServices ? knowledge.services?.key : knowledge.peers.get(holder)?.agreement.key
    const course = makeCourse(keyOf)
    const done = yield* makeDone
    const publish = yield* makePublishing(course, done)
    let trouble = ""
    const canGo = ({ expires_at_ms, id }: Draft, nowMs: number): boolean =>
      expires_at_ms > nowMs && !done.has(id) && !course.isAside(id)
    const some = Effect.gen(function* () {
      const { services, session } = knowledge
      const sent: Array<MessageId> = []
      if (session === null || services === null) return sent
      yield* settle
      let behind = course.begin(session, yield* monotonicMs)
      for (let more = true; more && sent.length === 0; ) {
        const drafts = yield* store.queued(behind, roundDrafts, yield* clock.nowMs)
        more = drafts.length === roundDrafts
        for (const few of Arr.chunksOf(drafts, together)) {
          const nowMs = yield* clock.nowMs
          const now = few.filter(({ draft }) => canGo(draft, nowMs))
          sent.push(...(yield* publish(now, session, keyOf)))
          behind = few.at(-1)?.place ?? behind
          course.pass(behind)
        }
      }
      return sent
    })
    return {
      /** One round: those that the broker has acknowledged. Fails with the broker or the store; what went before is told. */
      round: some.pipe(
        Effect.tap(() => done.strike),
        Effect.tap(() =>
          Effect.sync(() => {
            trouble = ""
          })
        ),
        Effect.tapError((error) =>
          Effect.sync(() => {
            if (error._tag === "AgentStoreError") trouble = `the disk fails: ${error.message}`
          })
        )
      ),
      /** Why something is not sent, for people; empty where nothing is wrong. */
      detail: (): string => trouble || course.detail()
    }
  })
