/**
 * What an agent makes of what comes: every document is judged by what the trust root and broker services say of its sender.
 * What is refused is counted and has no effect.
 */
import { Effect, Result, Schema } from "effect"
import { parseStrict } from "../crypto/CanonicalJson.ts"
import { readDirectory, readHandshakeAnswer, readPing } from "../crypto/Handshakes.ts"
import { RefusedMessage, toWire } from "../crypto/Messages.ts"
import { AgentCrypto } from "../ports/AgentCrypto.ts"
import { AgentStore } from "../ports/AgentStore.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import type { BusError } from "../ports/MessageBus.ts"
import type { AgentStatus, Agreement, DirectoryEntry, HandshakeAnswer, Ping } from "../schemas/Agents.ts"
import { type MessageId, MessageLimits, PublicMessage } from "../schemas/Message.ts"
import { type AgentName, brokerServices, placeOf, topicOf } from "../schemas/Topics.ts"
import { type Pings, pingTimeoutMs } from "./AgentPings.ts"
import type { AgentSession } from "./AgentSession.ts"

type Verdict = HandshakeAnswer["verdict"]

/** What an agent knows of the others, in one life. */
export interface AgentKnowledge {
  session: AgentSession | null
  /** The last handshake of this session, and what it was answered. */
  shake: { readonly nonce: MessageId; answered: Verdict | null } | null
  /** The newest answer to any handshake of this session. */
  verdict: Verdict | null
  detail: string
  services: Agreement | null
  /** Of this session: broker services whose clock went back number their lists anew. */
  directoryVersion: number
  readonly peers: Map<AgentName, DirectoryEntry>
}

export const freshKnowledge = (): AgentKnowledge => ({
  session: null,
  shake: null,
  verdict: null,
  detail: "",
  services: null,
  directoryVersion: -1,
  peers: new Map()
})

const refused = (code: RefusedMessage["code"], detail: string) => new RefusedMessage({ code, detail })
const isByServices = (session: AgentSession, key: string): boolean => session.standing.services.has(key)

/** The answer of broker services to this session's last handshake; true where it is news that it let the agent in. */
const takeAnswer = Effect.fnUntraced(function* (
  knowledge: AgentKnowledge,
  session: AgentSession,
  wire: Uint8Array
) {
  const read = readHandshakeAnswer(yield* CryptoEngine, wire)
  if (Result.isFailure(read)) return yield* read.failure
  const answer = read.success
  const { shake } = knowledge
  if (!isByServices(session, answer.signing_key))
    return yield* refused("bad_signature", "it is signed with no key of broker services")
  if (
    answer.agent !== session.standing.name ||
    answer.session !== session.id ||
    shake === null ||
    answer.nonce !== shake.nonce
  )
    return yield* refused("replayed", "it answers another handshake")
  // Whoever has read the handshake can have it judged again, when it is too old to be taken.
  if (shake.answered === "known") {
    if (answer.verdict === "known") return false
    return yield* refused("replayed", "this handshake was answered before, and taken")
  }
  shake.answered = answer.verdict
  const isNews = answer.verdict === "known" && knowledge.verdict !== "known"
  knowledge.verdict = answer.verdict
  knowledge.detail = answer.detail
  knowledge.services = answer.verdict === "known" ? answer.agreement : null
  return isNews
})

/** The signed list of agents. A part of a newer list begins it anew. */
const takeDirectory = Effect.fnUntraced(function* (
  knowledge: AgentKnowledge,
  session: AgentSession,
  wire: Uint8Array,
  nowMs: number
) {
  const read = readDirectory(yield* CryptoEngine, wire)
  if (Result.isFailure(read)) return yield* read.failure
  const { agents, expires_at_ms, issued_at_ms, signing_key, version } = read.success
  if (!isByServices(session, signing_key))
    return yield* refused("bad_signature", "it is signed with no key of broker services")
  if (issued_at_ms > nowMs + MessageLimits.receivedFutureMs)
    return yield* refused("from_the_future", "it would stand above every list to come")
  if (expires_at_ms <= nowMs)
    return yield* refused("expired", "it may name keys that are their owners' no more")
  if (version < knowledge.directoryVersion)
    return yield* refused("replayed", "a newer list of agents is there already")
  if (version > knowledge.directoryVersion) knowledge.peers.clear()
  knowledge.directoryVersion = version
  for (const entry of agents) knowledge.peers.set(entry.agent, entry)
})

/** Says something to the broker without waiting for its acknowledgement. */
export type Say = (publication: Effect.Effect<unknown, BusError>) => Effect.Effect<void>

/** Tells broker services that this session is there, whatever they heard of an older one meanwhile. */
const makePresence = (say: Say) =>
  Effect.gen(function* () {
    const crypto = yield* AgentCrypto
    const clock = yield* DeviceClock
    return Effect.fnUntraced(function* ({ id, link, standing, topicRoot }: AgentSession) {
      const status = yield* crypto.sign<AgentStatus>({
        type: "postern/status/v1",
        agent: standing.name,
        session: id,
        status: "C",
        issued_at_ms: yield* clock.nowMs
      })
      yield* say(link.publish(topicOf(topicRoot, { agent: brokerServices, inbox: "status" }), toWire(status)))
    })
  })

/** A question or an answer whether somebody is there. */
const makePingTaker = (pings: Pings, say: Say) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const crypto = yield* AgentCrypto
    const clock = yield* DeviceClock
    return Effect.fnUntraced(function* (
      knowledge: AgentKnowledge,
      session: AgentSession,
      type: Ping["type"],
      wire: Uint8Array
    ) {
      const read = readPing(engine, wire)
      if (Result.isFailure(read)) return yield* read.failure
      const ping = read.success
      const me = session.standing.name
      if (ping.type !== type || ping.to !== me) return yield* refused("wrong_recipient", "it is for another")
      const isKnown =
        ping.from === brokerServices
          ? isByServices(session, ping.signing_key)
          : knowledge.peers.get(ping.from)?.signing_key === ping.signing_key
      if (!isKnown)
        return yield* refused("unknown_sender", `the list of agents does not name ${ping.from} with this key`)
      if (type === "postern/pong/v1") {
        if (!(yield* pings.answered(ping.from, ping.nonce)))
          return yield* refused("replayed", "nobody waits for this answer")
        return
      }
      const nowMs = yield* clock.nowMs
      if (Math.abs(ping.issued_at_ms - nowMs) > MessageLimits.futureMs)
        return yield* refused("expired", "it is too old")
      const admitted = yield* pings.admit(ping.from, ping.nonce)
      if (admitted !== "answer")
        return yield* refused(admitted, `${ping.from} asks too often, or another in its name`)
      const answer = yield* crypto.sign<Ping>({
        type: "postern/pong/v1",
        from: me,
        to: ping.from,
        nonce: ping.nonce,
        issued_at_ms: nowMs
      })
      const topic = topicOf(session.topicRoot, { agent: ping.from, inbox: "public/pingack" })
      yield* say(Effect.timeoutOption(session.link.publish(topic, toWire(answer)), pingTimeoutMs))
    })
  })

const decodePublic = Schema.decodeUnknownResult(PublicMessage, { onExcessProperty: "error" })

/** Takes messages: what is good goes into the application's inbox, once. */
const makeMailTaker = Effect.gen(function* () {
  const crypto = yield* AgentCrypto
  const store = yield* AgentStore
  const clock = yield* DeviceClock
  return {
    secure: Effect.fnUntraced(function* (
      knowledge: AgentKnowledge,
      session: AgentSession,
      inbox: "protected" | "private",
      wire: Uint8Array
    ) {
      const nowMs = yield* clock.nowMs
      const { name, services } = session.standing
      const keyOf = (agent: AgentName) => knowledge.peers.get(agent)?.signing_key
      const judged = yield* crypto.receive({ name, services, keyOf }, inbox, wire, nowMs)
      if (Result.isFailure(judged)) return yield* judged.failure
      const isNew = yield* store.take({ _tag: "Secure", message: judged.success, receivedAtMs: nowMs })
      // The broker may bring a message twice, so this is no attack.
      if (!isNew) yield* Effect.logDebug(`a message of ${judged.success.from} came again`)
      return isNew
    }),
    open: Effect.fnUntraced(function* (wire: Uint8Array) {
      const { bodyDepth, messageBytes } = MessageLimits
      const json = parseStrict(wire, { maximumBytes: messageBytes, maximumDepth: 1 + bodyDepth })
      const read = Result.isSuccess(json) ? decodePublic(json.success) : undefined
      if (read === undefined || Result.isFailure(read))
        return yield* refused("malformed", "it is no public message")
      const receivedAtMs = yield* clock.nowMs
      // Anybody may write these, as many as they like: to be brought again is not for them.
      return yield* Effect.catchIf(
        store.take({ _tag: "Public", message: read.success, receivedAtMs }),
        ({ code }) => code === "full",
        ({ reason }) => Effect.fail(refused("overloaded", reason))
      )
    })
  }
})

/** Takes whatever comes by a topic; true where it is for the application. Fails with a refusal, or where the store or the broker does. */
export const makeArrivals = (pings: Pings, say: Say) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const takePing = yield* makePingTaker(pings, say)
    const tellPresence = yield* makePresence(say)
    const mail = yield* makeMailTaker
    const clock = yield* DeviceClock
    const withEngine = Effect.provideService(CryptoEngine, engine)

    return Effect.fnUntraced(function* (knowledge: AgentKnowledge, topic: string, wire: Uint8Array) {
      const { session } = knowledge
      const place = session === null ? undefined : placeOf(session.topicRoot, topic)
      if (session === null || place === undefined) return false
      if (place.agent === brokerServices) {
        if (place.inbox === "discovery")
          yield* takeDirectory(knowledge, session, wire, yield* clock.nowMs).pipe(withEngine)
        return false
      }
      if (place.agent !== session.standing.name) return yield* refused("wrong_inbox", `it came by ${topic}`)
      switch (place.inbox) {
        case "handshake":
          if (yield* takeAnswer(knowledge, session, wire).pipe(withEngine)) yield* tellPresence(session)
          return false
        case "protected":
        case "private":
          return yield* mail.secure(knowledge, session, place.inbox, wire)
        case "public":
          return yield* mail.open(wire)
        case "public/pingreq":
          yield* takePing(knowledge, session, "postern/ping/v1", wire)
          return false
        case "public/pingack":
          yield* takePing(knowledge, session, "postern/pong/v1", wire)
          return false
        default:
          // Its own public handshake, as everybody sees it.
          return false
      }
    })
  })
