/**
 * A device as an agent: see its protocol. It keeps a session with the broker, comes again whenever it was lost, sends what
 * waits in the order it was given, and puts what is good into the application's inbox, once.
 */
import { Deferred, Effect, Exit, Schedule } from "effect"
import type { RpcGroup } from "effect/rpc"
import { type RefusedMessage, toWire } from "../crypto/Messages.ts"
import { type ActorContext, Behaviour } from "../kernel/index.ts"
import { AgentCrypto } from "../ports/AgentCrypto.ts"
import { AgentStore, type AgentStoreError } from "../ports/AgentStore.ts"
import { AgentTrust } from "../ports/AgentTrust.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import type { BusError, NotTaken } from "../ports/MessageBus.ts"
import type { Ping } from "../schemas/Agents.ts"
import type { MessageId, MessageRefusal } from "../schemas/Message.ts"
import {
  type AgentReport,
  CannotRead,
  NoBus,
  NotKept,
  SmartAgentProtocol
} from "../schemas/protocols/SmartAgent.ts"
import { type AgentName, topicOf } from "../schemas/Topics.ts"
import { type AgentKnowledge, freshKnowledge, makeArrivals } from "./AgentArrivals.ts"
import { makeConnection, type SessionEnd } from "./AgentConnection.ts"
import { makeOutgoingMail } from "./AgentOutgoing.ts"
import { makePings, type Pings, pingTimeoutMs } from "./AgentPings.ts"
import { type Appearance, makeIds } from "./AgentSession.ts"
import { makeAlarm, monotonicMs } from "./Alarm.ts"
import { AgentInboxKey, SmartAgentKey } from "./ClientKeys.ts"

export type SmartAgentOptions = Appearance

const pruneMs = 60_000
/** What comes while programs ask for more than fits into the mailbox waits, and holds up what comes behind it. */
const comeAgainMs = 100
/** Sending that failed while the session stands is tried again after this. */
const sendAgainMs = 2_000

/** Asks a peer whether it is there. */
const makeAsker = (knowledge: AgentKnowledge, pings: Pings) =>
  Effect.gen(function* () {
    const crypto = yield* AgentCrypto
    const clock = yield* DeviceClock
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
        issued_at_ms: yield* clock.nowMs
      })
      const topic = topicOf(session.topicRoot, { agent: to, inbox: "public/pingreq" })
      const publication = Effect.timeoutOption(session.link.publish(topic, toWire(question)), pingTimeoutMs)
      return { publication, nonce, answer }
    })
  })

const stateOf = (
  knowledge: AgentKnowledge,
  hasTrust: boolean,
  isConnecting: boolean,
  last: SessionEnd["code"] | null
): AgentReport["state"] => {
  if (!hasTrust) return "no_trust"
  if (knowledge.session === null) {
    if (last === "none") return "no_messaging"
    return isConnecting ? "connecting" : "offline"
  }
  return knowledge.verdict ?? "connected"
}

type Lack = Exclude<AgentStoreError["code"], "failed">
const lacks: Readonly<Record<Lack, string>> = {
  full: "the inbox is full: what comes stays with the broker until a program takes messages",
  ids_full:
    "no more ids of messages are remembered: what comes stays with the broker until older ones have expired"
}

/** Why it is so. */
const detailOf = (
  knowledge: AgentKnowledge,
  last: SessionEnd | null,
  lack: Lack | null,
  unsent: string
): string => {
  if (knowledge.session === null) return last?.reason ?? ""
  return knowledge.detail || (lack === null ? unsent : lacks[lack])
}

/** Counts what was refused; what could not be kept must come again. */
const makeTally = () => {
  const counts: Partial<Record<MessageRefusal, number>> = {}
  let lack: Lack | null = null
  return {
    /** Why what came last for the application, in this session, found no room; null where it did. */
    lack: () => lack,
    /** The same, as a word. */
    full: () => ({ inbox_full: lack === "full", ids_full: lack === "ids_full" }),
    /** Something found room, or the session is over: what was left with the broker may find room in the next. */
    hasRoom: (): void => {
      lack = null
    },
    notKept: ({ code, reason }: AgentStoreError) =>
      Effect.suspend(() => {
        if (code !== "failed") lack = code
        return Effect.fail(new NotKept({ reason, isFull: code !== "failed" }))
      }),
    counts: () => counts as AgentReport["refused"],
    refused: (error: RefusedMessage) =>
      Effect.suspend(() => {
        counts[error.code] = (counts[error.code] ?? 0) + 1
        return Effect.logDebug(`something that came was refused: ${error.message}`)
      })
  }
}

/** The parts of one life. */
type Parts = Effect.Success<ReturnType<typeof makeParts>>
const makeParts = (context: ActorContext<never>, options: SmartAgentOptions) =>
  Effect.gen(function* () {
    const self = context.ref(SmartAgentKey)
    const knowledge = freshKnowledge()
    const pings = makePings()
    const say = (publication: Effect.Effect<unknown, BusError>) =>
      context.startTask(Effect.ignore(publication), said)
    const came = (topic: string, payload: Uint8Array, timeoutMs: number) =>
      self.ask("Came", { topic, payload }, { timeoutMs }).pipe(
        Effect.retry({
          while: ({ _tag }) => _tag === "MailboxFull",
          schedule: Schedule.spaced(comeAgainMs),
          times: timeoutMs / comeAgainMs
        }),
        Effect.mapError((error): NotTaken => {
          // The session ends with this life, and by a word of its own: what comes meanwhile must not cut it off before.
          const isEnding = error._tag === "Stopped" || error._tag === "ActorCrashed"
          const isFull = error._tag === "MailboxFull" || (error._tag === "NotKept" && error.isFull)
          return { message: error.message, isLeft: isEnding || isFull }
        })
      )
    return {
      knowledge,
      pings,
      say,
      trust: yield* AgentTrust,
      newId: yield* makeIds,
      ask: yield* makeAsker(knowledge, pings),
      mail: yield* makeOutgoingMail(knowledge),
      arrive: yield* makeArrivals(pings, say),
      connection: yield* makeConnection({ came, due: Effect.ignore(self.tell("Due")) }, knowledge, options),
      tally: makeTally()
    }
  })

const said = () => ["Said"] as never

type Context = ActorContext<RpcGroup.Rpcs<typeof SmartAgentProtocol>>

/** What goes on beside the messages: the session, and sending what waits. */
const makeWork = (context: Context, { connection, knowledge, mail, pings, tally, trust }: Parts) => {
  /** `late`: something came to be sent while a round was on its way, which may not have seen it. */
  const is = { connecting: false, flushing: false, late: false }
  let last: SessionEnd | null = null
  let lackingFromMs: number | null = null
  const now = () => ({
    state: stateOf(knowledge, trust.current() !== null, is.connecting, last?.code ?? null),
    detail: detailOf(knowledge, last, tally.lack(), mail.trouble())
  })
  const flush: Effect.Effect<void> = Effect.suspend(() => {
    if (!mail.canSend()) return Effect.void
    if (is.flushing) {
      is.late = true
      return Effect.void
    }
    Object.assign(is, { flushing: true, late: false })
    return context.startTask(mail.round, (exit) => [
      "Flushed",
      { sent: Exit.isSuccess(exit) ? exit.value : [], failed: Exit.isFailure(exit) }
    ])
  })
  return {
    /** Keeps a session, where there is trust; one at a time. */
    begin: Effect.suspend(() => {
      if (is.connecting || trust.current() === null) return Effect.void
      is.connecting = true
      return context.startTask(connection.run, (exit) => ["Ended", connection.endOf(exit)])
    }),
    /** The session ended; how long to wait for the next. */
    ended: Effect.fnUntraced(function* (end: SessionEnd) {
      is.connecting = false
      tally.hasRoom()
      const isNews = last?.reason !== end.reason
      last = end
      if (isNews && trust.current() !== null && end.code !== "none")
        yield* Effect.logInfo(`no session with the MQTT broker: ${end.reason}`)
      return yield* connection.ended(end)
    }),
    /** Sends what waits, in rounds. */
    flush,
    /** A round failed: the next one begins when it is time. */
    failed: Effect.sync(() => {
      is.flushing = false
    }),
    /** A round is done; the next one begins where more may wait. */
    flushed: (isMore: boolean) =>
      Effect.suspend(() => {
        is.flushing = false
        return isMore || is.late ? flush : Effect.void
      }),
    standing: Effect.map(monotonicMs, (nowMs) => {
      const word = now()
      const isLacking = !["known", "no_trust", "no_messaging"].includes(word.state)
      lackingFromMs = isLacking ? (lackingFromMs ?? nowMs) : null
      return { ...word, lacking_ms: nowMs - (lackingFromMs ?? nowMs), ...tally.full() }
    }),
    report: Effect.map(mail.counts, ({ drafts, inbox }): AgentReport => {
      return {
        name: trust.current()?.name ?? null,
        ...now(),
        queued: drafts,
        waiting: inbox,
        refused: tally.counts(),
        links: pings.links()
      }
    })
  }
}

/** Rings whenever who the agent is, or whom it believes, has changed; and once at the start. */
const followTrust = ({ trust }: Parts, due: Effect.Effect<void>) =>
  Effect.suspend(() => {
    const changed = trust.changed()
    return Effect.andThen(due, changed)
  }).pipe(Effect.forever, Effect.forkScoped)

const makeLife = (context: Context, options: SmartAgentOptions) =>
  Effect.gen(function* () {
    const parts = yield* makeParts(context as never, options)
    const work = makeWork(context, parts)
    const alarm = yield* makeAlarm(context.self.tell("Due"))
    let prunedMs = yield* monotonicMs
    yield* followTrust(parts, Effect.ignore(context.self.tell("Due")))
    return {
      parts,
      work,
      alarm,
      due: Effect.gen(function* () {
        const nowMs = yield* monotonicMs
        if (nowMs - prunedMs >= pruneMs) {
          prunedMs = nowMs
          yield* parts.mail.prune
        }
        yield* alarm.ringIn(pruneMs)
        yield* work.begin
        yield* work.flush
      })
    }
  })

/** The behaviour. */
export const smartAgent = (options: SmartAgentOptions) =>
  Behaviour.make(SmartAgentProtocol, (context) =>
    Effect.gen(function* () {
      const store = yield* AgentStore
      const { alarm, due, parts, work } = yield* makeLife(context, options)
      const { arrive, ask, connection, knowledge, mail, newId, pings, say, tally } = parts
      const inbox = context.ref(AgentInboxKey)
      return context.handlers({
        Send: Effect.fnUntraced(function* ({ payload }) {
          const id = (yield* newId) as MessageId
          yield* mail.keep(payload, id)
          yield* work.flush
          return id
        }),
        Unsent: ({ payload: { id } }) =>
          Effect.mapError(store.isQueued(id), ({ message }) => new CannotRead({ reason: message })),
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
        Report: () => work.report,
        Standing: () => work.standing,
        Show: ({ payload }) => connection.appear(payload),
        Rotated: () => connection.shakeAgain,
        Said: () => Effect.void,
        Came: ({ payload: { payload, topic } }) =>
          arrive(knowledge, topic, payload).pipe(
            Effect.flatMap((isMail) => {
              if (!isMail) return Effect.void
              tally.hasRoom()
              return Effect.ignore(inbox.tell("Arrived"))
            }),
            Effect.catchTags({ RefusedMessage: tally.refused, AgentStoreError: tally.notKept }),
            Effect.andThen(work.flush)
          ),
        Ended: ({ payload }) => Effect.flatMap(work.ended(payload), alarm.ringIn),
        Flushed: ({ payload: { failed, sent } }) =>
          failed
            ? Effect.andThen(
                work.failed,
                // Between two sessions the alarm is set to the next one's time.
                knowledge.session === null ? Effect.void : alarm.ringIn(sendAgainMs)
              )
            : work.flushed(sent.length > 0),
        Due: () => due
      })
    })
  )
