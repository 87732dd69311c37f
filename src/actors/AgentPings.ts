/** Questions whether a peer is there: who waits for which answer, how good each way is, and how often others may ask. */
import { Deferred, Effect } from "effect"
import { type MessageId, MessageLimits } from "../schemas/Message.ts"
import type { LinkQuality } from "../schemas/protocols/SmartAgent.ts"
import type { AgentName } from "../schemas/Topics.ts"
import { monotonicMs } from "./Alarm.ts"

/** How long an answer is waited for, and the acknowledgement of what asks or answers. */
export const pingTimeoutMs = 10_000
/** Peers whose quality is kept, the most recently asked. */
const maximumPeers = 1_000
const maximumWaiting = 1_000
/** Of each peer, so many questions at once are answered, and then so many a second. */
const burst = 5
const perSecond = 1
/** Questions that were answered, for as long as they could come again and look fresh. */
const maximumAnswered = 10_000
const answeredMs = 2 * MessageLimits.futureMs

interface Waiting {
  readonly to: AgentName
  readonly sentMs: number
  readonly answer: Deferred.Deferred<number>
}

/** Smoothing of RFC 6298: an eighth of each new round trip. */
const smoothed = (before: number | null, rttMs: number): number =>
  before === null ? rttMs : before + (rttMs - before) / 8

/**
 * Whether a peer's question is to be answered, and why not. One that comes again is not its peer's doing: whoever reads
 * along may send it, so it takes nothing from the peer's allowance.
 */
const makeAdmission = () => {
  const allowances = new Map<AgentName, { left: number; atMs: number }>()
  /** By who asked and the nonce: others could take a nonce that they read, and use it first. */
  const answeredAtMs = new Map<string, number>()
  const forgetAnswered = (nowMs: number): void => {
    for (const [question, atMs] of answeredAtMs) {
      if (answeredAtMs.size <= maximumAnswered && atMs > nowMs - answeredMs) break
      answeredAtMs.delete(question)
    }
  }
  return (from: AgentName, nonce: MessageId) =>
    Effect.map(monotonicMs, (nowMs): "answer" | "replayed" | "overloaded" => {
      const question = `${from} ${nonce}`
      if (answeredAtMs.has(question)) return "replayed"
      const { atMs, left } = allowances.get(from) ?? { atMs: nowMs, left: burst }
      const now = Math.min(burst, left + ((nowMs - atMs) / 1_000) * perSecond)
      allowances.delete(from)
      allowances.set(from, { atMs: nowMs, left: now >= 1 ? now - 1 : now })
      if (allowances.size > maximumPeers) allowances.delete(allowances.keys().next().value as AgentName)
      if (now < 1) return "overloaded"
      answeredAtMs.set(question, nowMs)
      forgetAnswered(nowMs)
      return "answer"
    })
}

export const makePings = () => {
  const waiting = new Map<MessageId, Waiting>()
  const links = new Map<AgentName, LinkQuality>()
  const linkTo = (agent: AgentName): LinkQuality =>
    links.get(agent) ?? { agent, pings: 0, lost: 0, last_rtt_ms: null, smoothed_rtt_ms: null }
  const note = (link: LinkQuality): void => {
    // Deleted first, so that the map's order is that of the last use.
    links.delete(link.agent)
    links.set(link.agent, link)
    if (links.size > maximumPeers) links.delete(links.keys().next().value as AgentName)
  }

  return {
    links: (): ReadonlyArray<LinkQuality> => [...links.values()],
    /** Notes a question that is about to be sent; null where too many wait for an answer already. */
    expect: (to: AgentName, nonce: MessageId) =>
      Effect.gen(function* () {
        if (waiting.size >= maximumWaiting) return null
        const answer = yield* Deferred.make<number>()
        waiting.set(nonce, { to, sentMs: yield* monotonicMs, answer })
        return answer
      }),
    /** Waits for the answer to a question; null when it did not come in time. The way's quality is noted. */
    settle: (to: AgentName, nonce: MessageId, answer: Deferred.Deferred<number>, timeoutMs: number) =>
      Effect.gen(function* () {
        const rttMs = yield* Effect.timeoutOrElse(Deferred.await(answer), {
          duration: timeoutMs,
          orElse: () => Effect.succeed(null)
        }).pipe(Effect.ensuring(Effect.sync(() => waiting.delete(nonce))))
        const link = linkTo(to)
        const pings = link.pings + 1
        note(
          rttMs === null
            ? { ...link, pings, lost: link.lost + 1 }
            : { ...link, pings, last_rtt_ms: rttMs, smoothed_rtt_ms: smoothed(link.smoothed_rtt_ms, rttMs) }
        )
        return rttMs
      }),
    /** An answer came; false where nobody waits for it. */
    answered: (from: AgentName, nonce: MessageId) =>
      Effect.gen(function* () {
        const asked = waiting.get(nonce)
        if (asked === undefined || asked.to !== from) return false
        yield* Deferred.succeed(asked.answer, (yield* monotonicMs) - asked.sentMs)
        return true
      }),
    admit: makeAdmission()
  }
}
export type Pings = ReturnType<typeof makePings>
