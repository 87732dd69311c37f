/**
 * A device as an agent: see its protocol. It keeps a session with the broker, comes again whenever it was lost, sends what
 * waits in the order it was given, and puts what is good into the application's inbox, once.
 */
import { Clock, Effect, Exit } from "effect"
import { type RefusedMessage, toWire } from "../crypto/Messages.ts"
import { Behaviour } from "../kernel/index.ts"
import { AgentCrypto } from "../ports/AgentCrypto.ts"
import { AgentStore, type Draft } from "../ports/AgentStore.ts"
import { AgentTrust } from "../ports/AgentTrust.ts"
import type { Ping } from "../schemas/Agents.ts"
import type { MessageId, MessageRefusal } from "../schemas/Message.ts"
import {
  type AgentReport,
  CannotSend,
  NoAnswer,
  NotKept,
  SmartAgentProtocol
} from "../schemas/protocols/SmartAgent.ts"
import { type AgentName, topicOf } from "../schemas/Topics.ts"
import { freshKnowledge, makeArrivals } from "./AgentArrivals.ts"
import { draftFlaw, makeMail } from "./AgentMail.ts"
import { makePings } from "./AgentPings.ts"
import { type Appearance, makeIds, makeSessions } from "./AgentSession.ts"
import { makeAlarm } from "./Alarm.ts"
import { SmartAgentKey } from "./ClientKeys.ts"
import { delayAfter } from "./Delays.ts"

export interface SmartAgentOptions extends Appearance {
  readonly topicRoot: string
}

const defaultLifetimeMs = 24 * 3_600_000
const pauses = { firstMs: 1_000, factor: 2, maximumMs: 60_000 }
/** A broker that turns the agent away may take it once an operator has decided. */
const refusedPauses = { firstMs: 5_000, factor: 2, maximumMs: 300_000 }
const pingTimeoutMs = 10_000
const cameTimeoutMs = 30_000
/** Drafts that are on their way together. */
const flushTogether = 16
const pruneMs = 60_000

export const smartAgent = (options: SmartAgentOptions) =>
  Behaviour.make(SmartAgentProtocol, (context) =>
    Effect.gen(function* () {
      const store = yield* AgentStore
      const crypto = yield* AgentCrypto
      const trust = yield* AgentTrust
      const pings = makePings()
      const sessions = yield* makeSessions(options.topicRoot)
      const arrive = yield* makeArrivals(options.topicRoot, pings)
      const mailOf = yield* makeMail(options.topicRoot)
      const newId = yield* makeIds
      const alarm = yield* makeAlarm(context.self.tell("Due"))
      const self = context.ref(SmartAgentKey)
      const knowledge = freshKnowledge()
      const counts: Partial<Record<MessageRefusal, number>> = {}
      let appearance: Appearance = options
      let isConnecting = false
      let isFlushing = false
      let failures = 0
      let trouble = ""
      let prunedAtMs = yield* Clock.currentTimeMillis

      /** One session, from its beginning to its end. */
      const session = Effect.gen(function* () {
        const open = yield* sessions.open(({ payload, topic }) =>
          self.ask("Came", { topic, payload }, { timeoutMs: cameTimeoutMs })
        )
        knowledge.session = open
        yield* Effect.addFinalizer(() => sessions.leave(open))
        yield* sessions.shakeHands(open, appearance)
        failures = 0
        yield* Effect.ignore(self.tell("Due"))
        return yield* open.link.ended
      }).pipe(Effect.scoped)

      const begin = Effect.gen(function* () {
        if (isConnecting) return
        isConnecting = true
        yield* context.startTask(Effect.result(session), (exit) => [
          "Ended",
          Exit.isSuccess(exit) && exit.value._tag === "Failure"
            ? { code: exit.value.failure.code, reason: exit.value.failure.reason }
            : {
                code: "unreachable" as const,
                reason: Exit.isSuccess(exit) ? exit.value.success : "it broke off"
              }
        ])
      })

      /** Sends drafts until one cannot go yet; those that went. */
      const flush = Effect.fnUntraced(function* (drafts: ReadonlyArray<Draft>) {
        const { peers, services } = knowledge
        const open = knowledge.session
        const sent: Array<MessageId> = []
        if (open === null || services === null) return sent
        const peer = (name: AgentName) => peers.get(name)
        for (const draft of drafts) {
          const mail = yield* mailOf(open.standing.name, draft, { services, peer })
          // A peer's key is not known yet: others need not wait for it.
          if (mail === null) continue
          yield* open.link.publish(mail.topic, mail.wire)
          sent.push(draft.id)
        }
        return sent
      })

      const startFlush = Effect.gen(function* () {
        if (isFlushing || knowledge.services === null) return
        const drafts = yield* store.queued(flushTogether)
        if (drafts.length === 0) return
        isFlushing = true
        yield* context.startTask(flush(drafts), (exit) => [
          "Flushed",
          Exit.isSuccess(exit) ? { sent: exit.value, failed: false } : { sent: [], failed: true }
        ])
      }).pipe(Effect.catch((error) => Effect.logWarning(error.message)))

      const report = Effect.gen(function* () {
        const { detail, session: open, verdict } = knowledge
        const state: AgentReport["state"] =
          trust.current() === null
            ? "no_trust"
            : open === null
              ? isConnecting
                ? "connecting"
                : "offline"
              : (verdict ?? "connected")
        const queued = yield* Effect.orElseSucceed(store.queued(10_000), () => [])
        return {
          name: trust.current()?.name ?? null,
          state,
          detail: open === null ? trouble : detail,
          queued: queued.length,
          refused: counts as AgentReport["refused"],
          links: pings.links()
        } satisfies AgentReport
      })

      yield* alarm.ringIn(0)
      return context.handlers({
        Send: Effect.fnUntraced(function* ({ payload: { body, level, lifetimeMs, subject, to } }) {
          const issued_at_ms = yield* Clock.currentTimeMillis
          const id = (yield* newId) as MessageId
          const expires_at_ms = issued_at_ms + (lifetimeMs ?? defaultLifetimeMs)
          const draft: Draft = { id, level, to: [...new Set(to)], subject, body, issued_at_ms, expires_at_ms }
          const flaw = draftFlaw(draft)
          if (flaw !== undefined) return yield* flaw
          yield* Effect.mapError(
            store.queue(draft),
            ({ reason }) => new CannotSend({ code: "full", reason: `the message was not kept: ${reason}` })
          )
          yield* startFlush
          return id
        }),
        Ping: Effect.fnUntraced(function* ({ payload: { to } }) {
          const open = knowledge.session
          if (open === null) return yield* new NoAnswer({ reason: "there is no broker at the moment" })
          const nonce = (yield* newId) as MessageId
          const ping = yield* crypto.sign<Ping>({
            type: "postern/ping/v1",
            from: open.standing.name,
            to,
            nonce,
            issued_at_ms: yield* Clock.currentTimeMillis
          })
          const topic = topicOf(options.topicRoot, { agent: to, inbox: "public/pingreq" })
          const rttMs = yield* pings
            .ask(to, nonce, open.link.publish(topic, toWire(ping)), pingTimeoutMs)
            .pipe(Effect.mapError((error) => new NoAnswer({ reason: error.message })))
          return rttMs ?? (yield* new NoAnswer({ reason: `${to} did not answer within ${pingTimeoutMs} ms` }))
        }),
        Peers: () => Effect.sync(() => [...knowledge.peers.values()]),
        Report: () => report,
        Show: Effect.fnUntraced(function* ({ payload }) {
          appearance = payload
          const open = knowledge.session
          if (open !== null) yield* Effect.ignore(sessions.shakeHands(open, appearance))
        }),
        Came: Effect.fnUntraced(
          function* ({ payload: { payload, topic } }) {
            const before = knowledge.services
            yield* arrive(knowledge, topic, payload)
            if (knowledge.services !== before || knowledge.peers.size > 0) yield* startFlush
          },
          Effect.catchTag("RefusedMessage", (error: RefusedMessage) =>
            Effect.andThen(
              Effect.sync(() => {
                counts[error.code] = (counts[error.code] ?? 0) + 1
              }),
              Effect.logDebug(`something that came was refused: ${error.message}`)
            )
          ),
          Effect.catchTag("BusError", (error) => Effect.logDebug(error.message)),
          Effect.catchTag("AgentStoreError", ({ reason }) => Effect.fail(new NotKept({ reason })))
        ),
        Ended: Effect.fnUntraced(function* ({ payload: { code, reason } }) {
          isConnecting = false
          knowledge.session = null
          knowledge.verdict = null
          knowledge.services = null
          trouble = reason
          failures++
          yield* alarm.ringIn(yield* delayAfter(code === "refused" ? refusedPauses : pauses, failures))
        }),
        Flushed: Effect.fnUntraced(function* ({ payload: { failed, sent } }) {
          isFlushing = false
          yield* Effect.catch(store.sent(sent), (error) => Effect.logWarning(error.message))
          if (!failed && sent.length > 0) yield* startFlush
        }),
        Due: Effect.fnUntraced(function* () {
          const nowMs = yield* Clock.currentTimeMillis
          if (nowMs - prunedAtMs > pruneMs) {
            prunedAtMs = nowMs
            const lost = yield* Effect.orElseSucceed(store.prune(nowMs), () => [])
            if (lost.length > 0)
              yield* Effect.logWarning(`${lost.length} messages expired before they could be sent`)
          }
          yield* begin
          yield* startFlush
        })
      })
    })
  )
