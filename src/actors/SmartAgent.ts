/**
 * A device as an agent: see its protocol. It keeps a session with the broker, comes again whenever it was lost, sends what
 * waits in the order it was given, and puts what is good into the application's inbox, once.
 */
import { Clock, Deferred, Effect, Exit } from "effect"
import { type RefusedMessage, toWire } from "../crypto/Messages.ts"
import { type ActorContext, Behaviour } from "../kernel/index.ts"
import { AgentCrypto } from "../ports/AgentCrypto.ts"

import { AgentTrust } from "../ports/AgentTrust.ts"
import type { BusError } from "../ports/MessageBus.ts"
import type { Ping } from "../schemas/Agents.ts"
import type { MessageId, MessageRefusal } from "../schemas/Message.ts"
import { type AgentReport, NoBus, NotKept, SmartAgentProtocol } from "../schemas/protocols/SmartAgent.ts"
import { type AgentName, topicOf } from "../schemas/Topics.ts"
import { type AgentKnowledge, freshKnowledge, makeArrivals } from "./AgentArrivals.ts"
import { makeConnection } from "./AgentConnection.ts"
import { makeOutgoingMail } from "./AgentOutgoing.ts"
import { makePings, type Pings } from "./AgentPings.ts"
import { type Appearance, makeIds } from "./AgentSession.ts"
import { makeAlarm } from "./Alarm.ts"
import { SmartAgentKey } from "./ClientKeys.ts"

export interface SmartAgentOptions extends Appearance {
  readonly topicRoot: string
}

const pingTimeoutMs = 10_000
const pruneMs = 60_000

/** Asks a peer whether it is there. */
const makeAsker = (topicRoot: string, knowledge: AgentKnowledge, pings: Pings) =>
  Effect.gen(function* () {
    const crypto = yield* AgentCrypto
    const newId = yield* makeIds
    /** The question, to be published, and the ticket for its answer. */
    return Effect.fnUntraced(function* (to: AgentName) {
      const { session } = knowledge
      const nonce = (yield* newId) as MessageId
      const answer = session === null ? null : yield* pings.expect(to, nonce)
      if (session === null || answer === null)
        return yield* new NoBus({ reason: "there is no broker at the moment, or too many questions wait" })
      const question = yield* crypto.sign<Ping>({
        type: "postern/ping/v1",
        from: session.standing.name,
        to,
        nonce,
        issued_at_ms: yield* Clock.currentTimeMillis
      })
      const topic = topicOf(topicRoot, { agent: to, inbox: "public/pingreq" })
      return { publication: session.link.publish(topic, toWire(question)), nonce, answer }
    })
  })

const stateOf = (
  knowledge: AgentKnowledge,
  hasTrust: boolean,
  isConnecting: boolean
): AgentReport["state"] => {
  if (!hasTrust) return "no_trust"
  if (knowledge.session === null) return isConnecting ? "connecting" : "offline"
  return knowledge.verdict ?? "connected"
}

/** Counts what was refused; what could not be kept must come again. */
const makeTally = () => {
  const counts: Partial<Record<MessageRefusal, number>> = {}
  return {
    counts: () => counts as AgentReport["refused"],
    refused: (error: RefusedMessage) =>
      Effect.suspend(() => {
        counts[error.code] = (counts[error.code] ?? 0) + 1
        return Effect.logDebug(`something that came was refused: ${error.message}`)
      })
  }
}

/** The parts of one life. */
const makeParts = (context: ActorContext<never>, options: SmartAgentOptions) =>
  Effect.gen(function* () {
    const { topicRoot } = options
    const self = context.ref(SmartAgentKey)
    const knowledge = freshKnowledge()
    const pings = makePings()
    const say = (publication: Effect.Effect<void, BusError>) =>
      context.startTask(Effect.ignore(publication), said)
    const came = (topic: string, payload: Uint8Array, timeoutMs: number) =>
      self.ask("Came", { topic, payload }, { timeoutMs })
    return {
      knowledge,
      pings,
      say,
      trust: yield* AgentTrust,
      newId: yield* makeIds,
      ask: yield* makeAsker(topicRoot, knowledge, pings),
      mail: yield* makeOutgoingMail(topicRoot, knowledge),
      arrive: yield* makeArrivals(topicRoot, pings, say),
      connection: yield* makeConnection(
        { came, due: Effect.ignore(self.tell("Due")) },
        topicRoot,
        knowledge,
        options
      ),
      tally: makeTally()
    }
  })

const said = () => ["Said"] as never

/** The behaviour. */
export const smartAgent = (options: SmartAgentOptions) =>
  Behaviour.make(SmartAgentProtocol, (context) =>
    Effect.gen(function* () {
      const parts = yield* makeParts(context as never, options)
      const { arrive, ask, connection, knowledge, mail, newId, pings, say, tally, trust } = parts
      const alarm = yield* makeAlarm(context.self.tell("Due"))
      const is = { connecting: false, flushing: false }
      let trouble = ""
      let prunedAtMs = yield* Clock.currentTimeMillis

      const begin = Effect.suspend(() => {
        if (is.connecting) return Effect.void
        is.connecting = true
        return context.startTask(connection.run, (exit) => ["Ended", connection.endOf(exit)])
      })
      const flush = Effect.suspend(() => {
        if (is.flushing || !mail.canSend()) return Effect.void
        is.flushing = true
        return context.startTask(mail.round, (exit) => [
          "Flushed",
          { sent: Exit.isSuccess(exit) ? exit.value : [], failed: Exit.isFailure(exit) }
        ])
      })
      const report = Effect.map(mail.queued, (queued): AgentReport => {
        const standing = trust.current()
        return {
          name: standing?.name ?? null,
          state: stateOf(knowledge, standing !== null, is.connecting),
          detail: knowledge.session === null ? trouble : knowledge.detail,
          queued,
          refused: tally.counts(),
          links: pings.links()
        }
      })

      yield* alarm.ringIn(0)
      return context.handlers({
        Send: Effect.fnUntraced(function* ({ payload }) {
          const id = (yield* newId) as MessageId
          yield* mail.keep(payload, id)
          yield* flush
          return id
        }),
        Ping: Effect.fnUntraced(function* ({ payload: { to } }) {
          const { answer, nonce, publication } = yield* ask(to)
          yield* say(publication)
          const settled = yield* Deferred.make<number | null>()
          const waiting = Effect.flatMap(pings.settle(to, nonce, answer, pingTimeoutMs), (rttMs) =>
            Deferred.succeed(settled, rttMs)
          )
          yield* context.startTask(waiting, () => ["Said"])
          return { id: 0, waitMs: pingTimeoutMs, answer: settled }
        }),
        Peers: () => Effect.sync(() => [...knowledge.peers.values()]),
        Report: () => report,
        Show: ({ payload }) => connection.appear(payload),
        Said: () => Effect.void,
        Came: ({ payload: { payload, topic } }) =>
          arrive(knowledge, topic, payload).pipe(
            Effect.catchTag("RefusedMessage", tally.refused),
            Effect.catchTag("AgentStoreError", ({ reason }) => Effect.fail(new NotKept({ reason }))),
            Effect.andThen(flush)
          ),
        Ended: Effect.fnUntraced(function* ({ payload }) {
          is.connecting = false
          trouble = payload.reason
          yield* alarm.ringIn(yield* connection.ended(payload))
        }),
        Flushed: ({ payload: { failed, sent } }) => {
          is.flushing = false
          return failed || sent.length === 0 ? Effect.void : flush
        },
        Due: Effect.fnUntraced(function* () {
          const nowMs = yield* Clock.currentTimeMillis
          if (nowMs - prunedAtMs > pruneMs) {
            prunedAtMs = nowMs
            yield* mail.prune(nowMs)
          }
          yield* begin
          yield* flush
        })
      })
    })
  )
