/**
 * What came to broker services: kept in a table first, then acknowledged, then dealt with. So a message that takes long holds
 * up no connection, and a crash loses none. Each sender's are dealt with in their order, and no sender waits for another.
 *
 * Mosquitto does not say who sent a publication. Who it claims to be from has to sign for it, and is counted for it.
 */
import { createHash } from "node:crypto"
import { Clock, Effect, Schema } from "effect"
import type { BrokerHandlers } from "../../ports/MessageBroker.ts"
import { MessageLimits } from "../../schemas/Message.ts"
import { AgentName, brokerServices, placeOf } from "../../schemas/Topics.ts"
import type { DatabaseHost } from "../sqlite/Database.ts"
import type { MosquittoMethods } from "../sqlite/messages/MosquittoRows.ts"

/** Of one sender: read together, and kept at the most. */
const together = 16
const maximumOfOne = 20_000
const retryMs = 1_000
/** What fails so often in a row lets those behind it pass. */
const maximumTries = 300
/** Documents by which agents come and go, and for how long one that came counts as the same. */
const maximumSeen = 100_000
const seenMs = 2 * MessageLimits.futureMs

const Claiming = Schema.Union([Schema.Struct({ agent: AgentName }), Schema.Struct({ from: AgentName })])
const readClaim = Schema.decodeUnknownOption(Schema.fromJsonString(Claiming))

/** Whom a publication says it is from: messages and questions say `from`, handshakes and status `agent`. */
export const claimedSender = (payload: Uint8Array): AgentName | undefined => {
  const claim = readClaim(new TextDecoder().decode(payload))
  if (claim._tag === "None") return undefined
  const sender = "agent" in claim.value ? claim.value.agent : claim.value.from
  return sender === brokerServices ? undefined : sender
}

/** What came before, within the time in which it would still be taken. */
const makeSeen = () => {
  const seen = new Map<string, number>()
  const digestOf = (payload: Uint8Array) => createHash("sha256").update(payload).digest("base64")
  return {
    has: (payload: Uint8Array): boolean => seen.has(digestOf(payload)),
    add: (payload: Uint8Array, nowMs: number): void => {
      for (const [old, atMs] of seen) {
        if (seen.size < maximumSeen && atMs > nowMs - seenMs) break
        seen.delete(old)
      }
      seen.set(digestOf(payload), nowMs)
    }
  }
}

/** The first message of a sender that fails holds up those behind it: for a while only. */
const makeTroubles = (database: DatabaseHost<MosquittoMethods>) => {
  const troubles = new Map<AgentName, { readonly place: number; readonly count: number }>()
  return {
    /** A message failed. After so many times it goes behind the others. */
    met: Effect.fnUntraced(function* (sender: AgentName, place: number, reason: string) {
      yield* Effect.logWarning(`a message of ${sender} waits, with all that came after it: ${reason}`)
      const before = troubles.get(sender)
      const count = before?.place === place ? before.count + 1 : 1
      troubles.set(sender, { place, count })
      if (count >= maximumTries) yield* database.call("arrivalLast", place)
    }),
    /** The table failed: it is asked again a moment later. */
    ours: (sender: AgentName, reason: string) =>
      Effect.andThen(Effect.logError(`what came from ${sender} waits: ${reason}`), Effect.sleep(retryMs)),
    /** Nothing of a sender waits any more. */
    over: (sender: AgentName): void => void troubles.delete(sender)
  }
}

export interface ArrivalsOptions {
  readonly topicRoot: string
  readonly database: DatabaseHost<MosquittoMethods>
  readonly handlers: Pick<BrokerHandlers, "received" | "refused">
  /** Whether somebody has an account. */
  readonly isKnown: (agent: AgentName) => boolean
  /** Ends when what came can be answered. */
  readonly whenOpen: Effect.Effect<unknown>
}

/** Takes what comes, for as long as the scope is open. */
export const makeArrivals = ({ database, handlers, isKnown, topicRoot, whenOpen }: ArrivalsOptions) =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    const busy = new Set<AgentName>()
    const waiting = new Map<AgentName, number>(
      (yield* database.call("arrivalCounts")).map(({ count, sender }) => [sender, count])
    )
    const seen = makeSeen()
    const troubles = makeTroubles(database)

    /**
     * One round of a sender, one after the other: what is dealt with is forgotten, what fails comes again, and nothing
     * overtakes it. Together they would be no faster: one actor takes all of a sender's.
     */
    const round = Effect.fnUntraced(function* (sender: AgentName) {
      const rows = yield* database.call("arrivals", sender, together)
      const places: Array<number> = []
      for (const { payload, place, topic } of rows) {
        const problem = yield* handlers
          .received({ from: sender, role: "agent", topic, payload })
          .pipe(Effect.match({ onFailure: ({ message }) => message, onSuccess: () => null }))
        if (problem !== null) {
          yield* troubles.met(sender, place, problem)
          break
        }
        places.push(place)
      }
      yield* database.call("arrivalsDone", places)
      waiting.set(sender, Math.max(0, (waiting.get(sender) ?? 0) - places.length))
      if (places.length === 0 || places.length < rows.length) yield* Effect.sleep(retryMs)
    })
    const lane = (sender: AgentName): Effect.Effect<void> =>
      Effect.suspend(() => {
        if ((waiting.get(sender) ?? 0) > 0) {
          return Effect.andThen(whenOpen, round(sender)).pipe(
            Effect.catch((error) => troubles.ours(sender, error.message)),
            Effect.andThen(lane(sender))
          )
        }
        waiting.delete(sender)
        troubles.over(sender)
        busy.delete(sender)
        return Effect.void
      })
    const wake = (sender: AgentName) =>
      Effect.suspend(() => {
        if (busy.has(sender)) return Effect.void
        busy.add(sender)
        return Effect.asVoid(Effect.forkIn(lane(sender), scope))
      })
    for (const sender of [...waiting.keys()]) yield* wake(sender)

    return Effect.fnUntraced(function* (topic: string, payload: Uint8Array) {
      if (payload.length > MessageLimits.wireBytes) return yield* handlers.refused(null, "too_large")
      const sender = claimedSender(payload)
      if (sender === undefined) return yield* handlers.refused(null, "malformed")
      if (!isKnown(sender)) return yield* handlers.refused(null, "unknown_sender")
      const inbox = placeOf(topicRoot, topic)?.inbox
      const isWord = inbox === "handshake" || inbox === "status" || inbox === "public/pingreq"
      // Whoever reads along could send it again: it would say that somebody is there who has left.
      if (isWord && seen.has(payload)) return
      if ((waiting.get(sender) ?? 0) >= maximumOfOne) return yield* handlers.refused(sender, "overloaded")
      yield* database.call("arrived", { sender, topic, payload })
      if (isWord) seen.add(payload, yield* Clock.currentTimeMillis)
      waiting.set(sender, (waiting.get(sender) ?? 0) + 1)
      yield* wake(sender)
    })
  })
