/**
 * The directory: see its protocol. It alone writes the book of agents. What it tells others is signed with a key that the
 * trust root names, and holds nobody who did not choose to be seen.
 */
import { Clock, Effect, Result } from "effect"
import { partsOf, readHandshake, readPing, readStatus } from "../crypto/Handshakes.ts"
import { RefusedMessage, toWire } from "../crypto/Messages.ts"
import type { SignedJson } from "../crypto/SignedJson.ts"
import { type ActorContext, Behaviour } from "../kernel/index.ts"
import { AgentBook } from "../ports/AgentBook.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { FleetStore } from "../ports/FleetStore.ts"
import { type AgentRow, MessageStore } from "../ports/MessageStore.ts"
import { RelayCrypto } from "../ports/RelayCrypto.ts"
import type {
  AgentStatus,
  Directory,
  DirectoryEntry,
  Handshake,
  HandshakeAnswer,
  Ping
} from "../schemas/Agents.ts"
import { MessageLimits, type MessageRefusal } from "../schemas/Message.ts"
import { DirectoryProtocol } from "../schemas/protocols/Directory.ts"
import type { TopicRole } from "../schemas/TopicRights.ts"
import { type AgentName, brokerServices, type Inbox, topicOf } from "../schemas/Topics.ts"
import { makeDecisions } from "./AgentDecisions.ts"
import { makeClaims, makeTeller } from "./AgentDoor.ts"
import { makePings } from "./AgentPings.ts"
import { type Later, makeAgentRows } from "./AgentRows.ts"
import { makeAgentViews } from "./AgentViews.ts"
import { type Alarm, makeAlarm } from "./Alarm.ts"
import { BrokerKeeperKey } from "./ServerKeys.ts"

export interface DirectoryOptions {
  readonly topicRoot: string
  /** Between two publications of the list, where nothing has changed. */
  readonly intervalMs: number
}

/** Changes that come together are told together. */
const gatherMs = 500
/** A list is good for so many intervals, and in any case for so long: clocks differ, and services may be away. */
const listIntervals = 3
const listLifeMs = 15 * 60_000
/** The list names everybody and goes to everybody: so many entries are sent in a millisecond. */
const entriesPerMs = 20

/** How long changes are gathered before they are told. */
const gatheringMs = (agents: ReadonlyArray<AgentRow>, intervalMs: number): number => {
  const seen = agents.filter(({ visible }) => visible).length
  return Math.min(intervalMs, Math.max(gatherMs, (seen * agents.length) / entriesPerMs))
}

/** Publishes documents of broker services. */
const makeMouth = (context: Pick<ActorContext<never>, "ref">, topicRoot: string) =>
  Effect.gen(function* () {
    const crypto = yield* RelayCrypto
    const keeper = context.ref(BrokerKeeperKey)
    return Effect.fnUntraced(function* <A extends SignedJson>(
      agent: AgentName,
      inbox: Inbox,
      unsigned: Omit<A, "signature" | "signing_key">,
      retain = false
    ) {
      const wire = toWire(yield* crypto.sign<A>(unsigned))
      yield* keeper.tell("Publish", { topic: topicOf(topicRoot, { agent, inbox }), wire, retain })
    })
  })

const tooOld = (issuedAtMs: number, nowMs: number): boolean =>
  Math.abs(nowMs - issuedAtMs) > MessageLimits.futureMs

/** What the book says after a handshake. */
const shaken = (shake: Handshake, before: AgentRow | undefined, nowMs: number): AgentRow => ({
  agent: shake.agent,
  device: shake.device,
  signingKey: shake.signing_key,
  // The key of a later version stays, whatever an older handshake says.
  agreement:
    before !== undefined &&
    before.device === shake.device &&
    before.agreement.version > shake.agreement.version
      ? before.agreement
      : shake.agreement,
  visible: shake.visible,
  edgeDevices: shake.edge_devices,
  session: shake.session,
  status: "C",
  statusAtMs: nowMs,
  shakenAtMs: shake.issued_at_ms
})

const makeHandshakeAnswers = (context: Pick<ActorContext<never>, "ref">, topicRoot: string) =>
  Effect.gen(function* () {
    const crypto = yield* RelayCrypto
    const publish = yield* makeMouth(context, topicRoot)
    return Effect.fnUntraced(function* (
      shake: Handshake,
      verdict: HandshakeAnswer["verdict"],
      detail: string,
      nowMs: number
    ) {
      yield* publish<HandshakeAnswer>(shake.agent, "handshake", {
        type: "postern/handshake-answer/v1",
        agent: shake.agent,
        session: shake.session,
        nonce: shake.nonce,
        verdict,
        detail,
        agreement: yield* crypto.agreement,
        issued_at_ms: nowMs
      })
    })
  })

interface HandshakeParts {
  readonly topicRoot: string
  readonly later: Later
  /** Cuts somebody off who is to come again. */
  readonly comeAgain: (agent: AgentName) => Effect.Effect<void>
}

/** Takes handshakes: judges who it is, writes the book, answers. */
const makeHandshakes = (
  context: Pick<ActorContext<never>, "ref">,
  { comeAgain, later, topicRoot }: HandshakeParts
) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const book = yield* AgentBook
    const claimOf = yield* makeClaims
    const tell = makeTeller()
    const answer = yield* makeHandshakeAnswers(context, topicRoot)

    /** Gives whether the book has changed. */
    return Effect.fnUntraced(function* (from: AgentName, wire: Uint8Array, nowMs: number, role: TopicRole) {
      const read = readHandshake(engine, wire)
      if (Result.isFailure(read)) return yield* read.failure
      const shake = read.success
      if (shake.agent !== from)
        return yield* new RefusedMessage({
          code: "wrong_sender",
          detail: `it is the handshake of ${shake.agent}`
        })
      if (tooOld(shake.issued_at_ms, nowMs)) {
        const detail = `the handshake is ${shake.issued_at_ms - nowMs} ms off this clock`
        yield* answer(shake, "refused", detail, nowMs)
        return yield* new RefusedMessage({ code: "expired", detail })
      }
      const claim = yield* claimOf(from, shake.device, shake.signing_key)
      if (claim._tag === "Stranger") {
        yield* answer(shake, "waiting", "no operator has accepted this device yet", nowMs)
        return false
      }
      if (claim._tag === "Refused") {
        yield* tell(`${from} is claimed by ${shake.device}: ${claim.reason}`, nowMs)
        yield* answer(shake, "refused", claim.reason, nowMs)
        return yield* new RefusedMessage({ code: "not_permitted", detail: claim.reason })
      }
      if (role !== "agent") {
        // Accepted after it came, and nobody told of it: what it sends as a stranger would be lost.
        yield* answer(shake, "waiting", "the device is accepted now, and is to come again", nowMs)
        yield* comeAgain(from)
        return false
      }
      const before = book.get(from)
      // Everybody can read handshakes, so one that was overtaken may be another's doing.
      if (before?.device === shake.device && shake.issued_at_ms < before.shakenAtMs) {
        const detail = `a handshake of ${before.shakenAtMs - shake.issued_at_ms} ms later was taken already`
        yield* answer(shake, "refused", detail, nowMs)
        return yield* new RefusedMessage({ code: "replayed", detail })
      }
      const row = shaken(shake, before, nowMs)
      book.set(row)
      const came = context.ref(BrokerKeeperKey).tell("Came", { agent: from })
      yield* later(row, Effect.andThen(answer(shake, "known", "", nowMs), came))
      return true
    })
  })

/** Takes words on who is there. A will of an older session says nothing of a newer. */
const makeStatuses = Effect.fnUntraced(function* (later: Later) {
  const engine = yield* CryptoEngine
  const book = yield* AgentBook
  return Effect.fnUntraced(function* (from: AgentName, wire: Uint8Array, nowMs: number) {
    const read = readStatus(engine, wire)
    if (Result.isFailure(read)) return yield* read.failure
    const status: AgentStatus = read.success
    const row = book.get(from)
    if (row === undefined)
      return yield* new RefusedMessage({ code: "unknown_sender", detail: "it has not shaken hands" })
    if (status.agent !== from || status.signing_key !== row.signingKey)
      return yield* new RefusedMessage({
        code: "bad_signature",
        detail: "it is signed with another key than its sender's"
      })
    if (status.session !== row.session)
      return yield* new RefusedMessage({ code: "replayed", detail: "it is of another session" })
    if (row.status === status.status) return false
    const next = { ...row, status: status.status, statusAtMs: nowMs }
    book.set(next)
    yield* later(next)
    return true
  })
})

/** Answers whoever asks whether broker services are there. */
const makePingAnswers = (context: Pick<ActorContext<never>, "ref">, topicRoot: string) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const book = yield* AgentBook
    const publish = yield* makeMouth(context, topicRoot)
    const pings = makePings()
    return Effect.fnUntraced(function* (from: AgentName, wire: Uint8Array, nowMs: number) {
      const read = readPing(engine, wire)
      if (Result.isFailure(read)) return yield* read.failure
      const ping = read.success
      if (
        ping.type !== "postern/ping/v1" ||
        ping.from !== from ||
        ping.to !== brokerServices ||
        from === brokerServices
      )
        return yield* new RefusedMessage({
          code: "wrong_recipient",
          detail: "it is no question to broker services"
        })
      if (ping.signing_key !== book.get(from)?.signingKey)
        return yield* new RefusedMessage({
          code: "bad_signature",
          detail: "it is signed with another key than its sender's"
        })
      if (tooOld(ping.issued_at_ms, nowMs))
        return yield* new RefusedMessage({ code: "expired", detail: "the question is too old or too young" })
      const admitted = yield* pings.admit(from, ping.nonce)
      if (admitted !== "answer")
        return yield* new RefusedMessage({ code: admitted, detail: `${from} asks too often` })
      yield* publish<Ping>(from, "public/pingack", {
        type: "postern/pong/v1",
        from: brokerServices,
        to: from,
        nonce: ping.nonce,
        issued_at_ms: nowMs
      })
      return false
    })
  })

const entryOf = (row: AgentRow): DirectoryEntry => ({
  agent: row.agent,
  device: row.device,
  signing_key: row.signingKey,
  agreement: row.agreement,
  status: row.status,
  edge_devices: row.edgeDevices
})

/** Tells everybody who may be seen, in parts. */
const makeList = (context: Pick<ActorContext<never>, "ref">, { intervalMs, topicRoot }: DirectoryOptions) =>
  Effect.gen(function* () {
    const book = yield* AgentBook
    const publish = yield* makeMouth(context, topicRoot)
    const lifeMs = Math.max(listLifeMs, listIntervals * intervalMs)
    let version = 0
    return Effect.fnUntraced(function* (nowMs: number) {
      version = Math.max(version + 1, nowMs)
      const parts = partsOf(
        book
          .all()
          .filter(({ visible }) => visible)
          .map(entryOf)
      )
      for (const [index, agents] of parts.entries()) {
        const document = {
          type: "postern/directory/v1" as const,
          version,
          part: index + 1,
          parts: parts.length,
          agents: [...agents],
          issued_at_ms: nowMs,
          expires_at_ms: nowMs + lifeMs
        }
        // What stays for those who come later is the first part; the next publication brings them the rest.
        yield* publish<Directory>(brokerServices, "discovery", document, index === 0)
      }
    })
  })

/** Counts words that are refused, and makes no news of them. */
const makeRefusals = Effect.gen(function* () {
  const store = yield* MessageStore
  const book = yield* AgentBook
  const fleet = yield* FleetStore
  return <R>(from: AgentName, effect: Effect.Effect<boolean, { readonly message: string }, R>) =>
    Effect.catch(effect, (error) =>
      Effect.gen(function* () {
        yield* Effect.logDebug(`a word of ${from} is refused: ${error.message}`)
        const code: MessageRefusal = error instanceof RefusedMessage ? error.code : "overloaded"
        // Strangers choose their names, and are counted together.
        const isNamed = book.get(from) !== undefined || (yield* fleet.deviceNamed(from)) !== null
        yield* store.refused(isNamed ? from : null, code, yield* Clock.currentTimeMillis)
        return false
      }).pipe(Effect.orElseSucceed(() => false))
    )
})

/** Tells the list when it has changed, and at intervals: `changed` sets the alarm, which is to bring `due`. */
const makePacedList = (context: Pick<ActorContext<never>, "ref">, options: DirectoryOptions, alarm: Alarm) =>
  Effect.gen(function* () {
    const book = yield* AgentBook
    const tell = yield* makeList(context, options)
    let isGathering = false
    return {
      changed: Effect.suspend(() => {
        // Those who keep changing must not put off the list for ever.
        if (isGathering) return Effect.void
        isGathering = true
        return alarm.ringIn(gatheringMs(book.all(), options.intervalMs))
      }),
      due: Effect.gen(function* () {
        isGathering = false
        yield* Effect.ignore(tell(yield* Clock.currentTimeMillis))
        yield* alarm.ringIn(options.intervalMs)
      })
    }
  })

/** Who has this name says so again when the broker has ended what stood under it. */
const beingCutOff = new RefusedMessage({
  code: "overloaded",
  detail: "the name is just being cut off at the broker"
})

/** Writes down of somebody who went without a word that it is gone. */
const makeFarewell = (later: Later, changed: Effect.Effect<void>) =>
  Effect.map(AgentBook, (book) =>
    Effect.fnUntraced(function* (agent: AgentName) {
      const row = book.get(agent)
      if (row === undefined || row.status !== "C") return
      const next = { ...row, status: "DU" as const, statusAtMs: yield* Clock.currentTimeMillis }
      book.set(next)
      yield* later(next)
      if (row.visible) yield* changed
    })
  )

/** The behaviour. */
export const directory = (options: DirectoryOptions) =>
  Behaviour.make(DirectoryProtocol, (context) =>
    Effect.gen(function* () {
      const store = yield* MessageStore
      const book = yield* AgentBook
      const { kept, later } = yield* makeAgentRows((work) => context.startTask(work, () => ["Kept"]))
      const hear = yield* makeStatuses(later)
      const pong = yield* makePingAnswers(context, options.topicRoot)
      const alarm = yield* makeAlarm(context.self.tell("Due"))
      for (const row of yield* store.agents) book.set(row)

      const list = yield* makePacedList(context, options, alarm)
      const { changed } = list
      const gone = yield* makeFarewell(later, changed)
      const decisions = yield* makeDecisions(context, options.topicRoot, { changed, gone })
      const { topicRoot } = options
      const shake = yield* makeHandshakes(context, { topicRoot, later, comeAgain: decisions.comeAgain })
      const orRefused = yield* makeRefusals

      yield* alarm.ringIn(gatherMs)
      return context.handlers({
        Arrived: Effect.fnUntraced(function* ({ payload: { from, inbox, role, wire } }) {
          const nowMs = yield* Clock.currentTimeMillis
          const take = decisions.isLeaving(from)
            ? () => Effect.fail(beingCutOff)
            : inbox === "handshake"
              ? shake
              : inbox === "status"
                ? hear
                : pong
          const wasSeen = book.get(from)?.visible === true
          const isNew = yield* orRefused(from, take(from, wire, nowMs, role))
          if (isNew && (wasSeen || book.get(from)?.visible === true)) yield* changed
        }),
        Present: Effect.fnUntraced(function* ({ payload: { agent, connected, role } }) {
          yield* decisions.present(agent, connected, role)
          // Who comes says so itself; who is gone may have been cut off without a will.
          if (!connected) yield* gone(agent)
        }),
        ...decisions.handlers,
        ...(yield* makeAgentViews),
        Kept: () => kept,
        Due: () => list.due
      })
    })
  )
