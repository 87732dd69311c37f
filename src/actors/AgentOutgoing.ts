/** What an agent means to send: kept on disk until the broker has it, and sent in the order it was given. */
import { Array as Arr, Effect } from "effect"
import { AgentStore, type Draft } from "../ports/AgentStore.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import type { BusLink } from "../ports/MessageBus.ts"
import type { Agreement } from "../schemas/Agents.ts"
import type { MessageId } from "../schemas/Message.ts"
import { CannotSend } from "../schemas/protocols/SmartAgent.ts"
import type { AgentName } from "../schemas/Topics.ts"
import type { AgentKnowledge } from "./AgentArrivals.ts"
import { draftFlaw, type Mail, makeMail } from "./AgentMail.ts"
import type { AgentSession } from "./AgentSession.ts"

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

/** Publishes drafts, together and in their order, and forgets those that were acknowledged. */
const makePublishing = (knowledge: AgentKnowledge) =>
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
      drafts: ReadonlyArray<Draft>,
      { link, standing, topicRoot }: AgentSession,
      services: Agreement
    ) {
      const peer = (name: AgentName) => knowledge.peers.get(name)
      const mails = yield* Effect.forEach(drafts, (draft) =>
        Effect.map(mailOf(standing.name, draft, { services, peer, topicRoot }), (mail) =>
          // A peer's key is not known yet: others need not wait for it.
          mail === null ? [] : [{ ...mail, id: draft.id }]
        )
      )
      const sent: Array<MessageId> = []
      for (const some of byTopic(mails.flat())) sent.push(...(yield* publish(some, link)))
      return sent
    })
  })

export const makeOutgoingMail = (knowledge: AgentKnowledge) =>
  Effect.gen(function* () {
    const store = yield* AgentStore
    const clock = yield* DeviceClock
    const publish = yield* makePublishing(knowledge)
    return {
      /** Keeps a letter for sending. */
      keep: Effect.fnUntraced(function* ({ lifetimeMs, to, ...letter }: Letter, id: MessageId) {
        const issued_at_ms = yield* clock.nowMs
        const expires_at_ms = issued_at_ms + (lifetimeMs ?? defaultLifetimeMs)
        const draft: Draft = { ...letter, id, to: [...new Set(to)], issued_at_ms, expires_at_ms }
        const flaw = draftFlaw(draft)
        if (flaw !== undefined) return yield* flaw
        yield* Effect.mapError(
          store.queue(draft),
          ({ reason }) => new CannotSend({ code: "full", reason: `the message was not kept: ${reason}` })
        )
      }),
      counts: Effect.orElseSucceed(store.counts, () => ({ drafts: 0, inbox: 0 })),
      /** Whether anything can go out. */
      canSend: (): boolean => knowledge.session !== null && knowledge.services !== null,
      /** One round: those that the broker has acknowledged. Fails with the broker or the store; what went before is told. */
      round: Effect.gen(function* () {
        const { services, session } = knowledge
        const sent: Array<MessageId> = []
        if (session === null || services === null) return sent
        for (let looked = 0, more = true; more && sent.length === 0; looked += roundDrafts) {
          const drafts = yield* store.queued(looked + roundDrafts)
          more = drafts.length === looked + roundDrafts
          for (const some of Arr.chunksOf(drafts.slice(looked), together))
            sent.push(...(yield* publish(some, session, services)))
        }
        return sent
      }),
      prune: (nowMs: number) =>
        Effect.flatMap(
          Effect.orElseSucceed(store.prune(nowMs), () => ({ unsent: [], untaken: 0 })),
          ({ unsent: { length }, untaken }) =>
            Effect.all([
              length === 0
                ? Effect.void
                : Effect.logWarning(`${length} messages expired before they could be sent`),
              untaken === 0
                ? Effect.void
                : Effect.logInfo(`${untaken} messages expired before any program took them`)
            ])
        )
    }
  })
