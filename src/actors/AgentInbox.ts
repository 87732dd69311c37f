/** See its protocol. What it knows of listeners ends with its life: whatever they had in hand is then given out again. */
import { Deferred, Effect } from "effect"
import { Behaviour } from "../kernel/index.ts"
import { AgentStore, type AgentStoreError, type WaitingMessage } from "../ports/AgentStore.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { AgentLocalLimits, type InboxMessage } from "../schemas/AgentLocal.ts"
import { AgentInboxProtocol, type Handful, InboxTrouble } from "../schemas/protocols/AgentInbox.ts"

const asTrouble = ({ message }: AgentStoreError) => new InboxTrouble({ code: "failed", reason: message })

const shown = ({ place, received }: WaitingMessage): InboxMessage => ({
  place,
  received_at_ms: received.receivedAtMs,
  message: received.message
})

const inOrder = (some: ReadonlyArray<number>, others: ReadonlyArray<number>): ReadonlyArray<number> =>
  [...some, ...others].sort((a, b) => a - b)

/** Who has which messages in hand, and what is free. */
const makeHands = () => {
  const hands = new Map<string, Set<number>>()
  /** Given back, in order. */
  let free: ReadonlyArray<number> = []
  /** Up to here everything was given out once. */
  let cursor = 0
  return {
    handOf: (listener: string): Set<number> | undefined => {
      const hand = hands.get(listener)
      if (hand !== undefined || hands.size >= AgentLocalLimits.listeners) return hand
      const fresh = new Set<number>()
      hands.set(listener, fresh)
      return fresh
    },
    /** Lets go of messages; whether a hand that was full is so no more. */
    letGo: (listener: string, places: ReadonlyArray<number>): boolean => {
      const hand = hands.get(listener)
      const wasFull = (hand?.size ?? 0) >= AgentLocalLimits.window
      for (const place of places) hand?.delete(place)
      free = free.filter((place) => !places.includes(place))
      return wasFull
    },
    leave: (listener: string): void => {
      free = inOrder(free, [...(hands.get(listener) ?? [])])
      hands.delete(listener)
    },
    /** Takes out of a hand what its owner does not know of. */
    giveBack: (hand: Set<number>, holds: ReadonlyArray<number>): void => {
      const lost = [...hand].filter((place) => !holds.includes(place))
      for (const place of lost) hand.delete(place)
      free = inOrder(free, lost)
    },
    /** There is no such message any more. */
    gone: (places: ReadonlyArray<number>): void => {
      free = free.filter((place) => !places.includes(place))
    },
    freeUpTo: (count: number): ReadonlyArray<number> => free.slice(0, count),
    taken: (hand: Set<number>, places: ReadonlyArray<number>): void => {
      for (const place of places) hand.add(place)
      free = free.filter((place) => !hand.has(place))
      cursor = Math.max(cursor, ...places)
    },
    cursor: () => cursor
  }
}

/** Those behind, with what was given back before them. */
const makeGiver = (hands: ReturnType<typeof makeHands>) =>
  Effect.gen(function* () {
    const store = yield* AgentStore
    const clock = yield* DeviceClock
    /** By a clock that may be ahead nothing has ended. */
    const endedBy = Effect.flatMap(clock.proven, (isProven) => (isProven ? clock.nowMs : Effect.succeed(0)))
    return Effect.fnUntraced(function* (hand: Set<number>, count: number) {
      const nowMs = yield* endedBy
      const given: Array<WaitingMessage> = []
      for (const place of hands.freeUpTo(count)) {
        const [found] = yield* store.waiting(place - 1, 1, nowMs)
        if (found?.place === place) given.push(found)
        else hands.gone([place])
      }
      if (given.length < count)
        given.push(...(yield* store.waiting(hands.cursor(), count - given.length, nowMs)))
      // Nothing is in a hand before all is read: whoever hears of a failure has got nothing.
      hands.taken(
        hand,
        given.map(({ place }) => place)
      )
      return given.map(shown)
    })
  })

/** The behaviour. */
export const agentInbox = Behaviour.make(AgentInboxProtocol, (context) =>
  Effect.gen(function* () {
    const store = yield* AgentStore
    const hands = makeHands()
    const give = yield* makeGiver(hands)
    let changed = Deferred.makeUnsafe<void>()
    const wake = Effect.suspend(() => {
      const before = changed
      changed = Deferred.makeUnsafe<void>()
      return Effect.asVoid(Deferred.succeed(before, undefined))
    })
    // Whoever waits must not wait for a life that is over.
    yield* Effect.addFinalizer(() => wake)
    return context.handlers({
      Take: Effect.fnUntraced(function* ({ payload: { holds, listener, maximum } }) {
        const hand = hands.handOf(listener)
        if (hand === undefined)
          return yield* new InboxTrouble({
            code: "too_many_listeners",
            reason: `${AgentLocalLimits.listeners} programs listen already`
          })
        hands.giveBack(hand, holds)
        const count = Math.min(maximum, AgentLocalLimits.window - hand.size)
        const messages = count > 0 ? yield* Effect.mapError(give(hand, count), asTrouble) : []
        const ticket = { id: 0, waitMs: AgentLocalLimits.waitMs, answer: changed }
        return { messages, changed: ticket } satisfies Handful
      }),
      Done: Effect.fnUntraced(function* ({ payload: { listener, places } }) {
        yield* Effect.mapError(store.dealtWith(places), asTrouble)
        if (hands.letGo(listener, places)) yield* wake
      }),
      Leave: ({ payload: { listener } }) => {
        hands.leave(listener)
        return wake
      },
      Arrived: () => wake
    })
  })
)
