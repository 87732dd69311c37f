/**
 * Keeps the MQTT broker open for as long as its life lasts, tells everybody what comes, and brings what is stored to its
 * recipients: in the order it was stored, again after a failure, and again after a restart. What came twice is sorted out
 * by its recipient, by the message's id.
 */
import { Clock, Effect, Exit } from "effect"
import { type ActorContext, Behaviour } from "../kernel/index.ts"
import { AgentBook } from "../ports/AgentBook.ts"
import {
  type BrokerHandlers,
  type BrokerRefusal,
  MessageBroker,
  type OpenBroker
} from "../ports/MessageBroker.ts"
import { type DeliveryRow, MessageStore, type MessageStoreError } from "../ports/MessageStore.ts"
import type { DeviceId } from "../schemas/Ids.ts"
import { BrokerKeeperProtocol, type BrokerPublication, NoBroker } from "../schemas/protocols/BrokerKeeper.ts"
import { type AgentName, placeOf, topicOf } from "../schemas/Topics.ts"
import { makeAlarm } from "./Alarm.ts"
import { delayAfter } from "./Delays.ts"
import { DirectoryKey, ReEncryptorKey } from "./ServerKeys.ts"

export interface BrokerKeeperOptions {
  readonly topicRoot: string
  /** Judges the credentials of a connection. */
  readonly authenticate: BrokerHandlers["authenticate"]
}

/** Deliveries of one round, and how many of them are on their way to the broker together. */
const roundDeliveries = 256
const together = 32
/** What waits in memory for its round; more waits in the store alone. */
const maximumPending = 4_096
/** After a failure. */
const pauses = { firstMs: 500, factor: 2, maximumMs: 30_000 }
/** The store is pruned, and looked through for what nobody told of. */
const sweepMs = 60_000
/** How long a sender's message may take until it is safe. Then it is not acknowledged, and comes again. */
const submitTimeoutMs = 60_000

type Refs = Pick<ActorContext<never>, "ref" | "refOf">

/** Where what agents publish to broker services goes. */
const receiver =
  (context: Refs, topicRoot: string): BrokerHandlers["received"] =>
  ({ from, payload, role, topic }) => {
    const inbox = placeOf(topicRoot, topic)?.inbox
    const timeout = { timeoutMs: submitTimeoutMs }
    if ((inbox === "protected" || inbox === "private") && role === "agent")
      return context.refOf(ReEncryptorKey, from).ask("Submit", { inbox, wire: payload }, timeout)
    if (inbox === "handshake" || inbox === "status" || inbox === "public/pingreq")
      return context.ref(DirectoryKey).ask("Arrived", { inbox, from, role, wire: payload }, timeout)
    return Effect.void
  }

/** Publishes deliveries: the places of those that sessions have taken, and whether the broker failed at any. */
const bring = Effect.fnUntraced(function* (
  broker: OpenBroker,
  topicRoot: string,
  deliveries: ReadonlyArray<DeliveryRow>
) {
  const failures: Array<string> = []
  const taken = yield* Effect.forEach(
    deliveries,
    ({ inbox, place, to, wire }) =>
      broker.publish(topicOf(topicRoot, { agent: to, inbox }), wire).pipe(
        // Where nobody subscribes the agent has not come yet, and it waits in the store.
        Effect.map((isTaken) => (isTaken ? [place] : [])),
        Effect.catch((error) =>
          Effect.sync(() => {
            failures.push(error.message)
            return []
          })
        )
      ),
    { concurrency: together }
  )
  if (failures.length > 0)
    yield* Effect.logWarning(`${failures.length} of ${deliveries.length} deliveries wait: ${failures[0]}`)
  return { places: taken.flat(), failed: failures.length > 0 }
})

/** Counts what the broker turned away, under the agents that are known alone: names are cheap. */
const makeRefusals = Effect.gen(function* () {
  const store = yield* MessageStore
  const book = yield* AgentBook
  return Effect.fnUntraced(function* (agent: AgentName | null, reason: BrokerRefusal) {
    yield* Effect.logDebug(`the broker refused ${agent ?? "somebody"}: ${reason}`)
    const code = reason === "too_many" ? "overloaded" : reason
    const counted = agent !== null && book.get(agent) !== undefined ? agent : null
    yield* Effect.ignore(store.refused(counted, code, yield* Clock.currentTimeMillis))
  })
})

/** What waits for its round: some in memory, the rest known to be in the store. */
const makeBacklog = Effect.gen(function* () {
  const store = yield* MessageStore
  let pending: Array<DeliveryRow> = []
  let isBehind = true
  let behind = 0
  return {
    add: (deliveries: ReadonlyArray<DeliveryRow>): void => {
      if (isBehind) return
      if (pending.length + deliveries.length > maximumPending) isBehind = true
      else pending.push(...deliveries)
    },
    /** What waits for one agent; it may stand in the queue already, which does no harm. */
    addWaiting: (agent: AgentName) =>
      Effect.map(store.undelivered(agent, 0, maximumPending), (rows) => {
        pending.push(...rows)
      }),
    /** What waits in memory for an agent that is none any more: another may have its name next. */
    forget: (agent: AgentName): void => {
      pending = pending.filter(({ to }) => to !== agent)
    },
    /** Looks through the store from its beginning, at the next round. */
    rewind: (): void => {
      isBehind = true
      behind = 0
    },
    next: Effect.gen(function* () {
      if (pending.length === 0 && isBehind) {
        const rows = yield* store.undelivered(null, behind, roundDeliveries)
        isBehind = rows.length === roundDeliveries
        behind = rows.at(-1)?.place ?? behind
        pending = [...rows]
      }
      return pending.splice(0, roundDeliveries)
    })
  }
})

const noBroker = (error: { readonly message: string }) => new NoBroker({ reason: error.message })

type Asked<A> = { readonly payload: A }

/** What others want of an open broker; `forget` drops what waits here for an agent. */
const questions = (broker: OpenBroker, forget: (agent: AgentName) => void) => ({
  Addresses: () => Effect.succeed(broker.addresses),
  Connected: () => broker.connected,
  State: () =>
    Effect.map(broker.connected, ({ length }) => ({ addresses: broker.addresses, connected: length })),
  Publish: ({ payload: { retain, topic, wire } }: Asked<BrokerPublication>) =>
    Effect.asVoid(Effect.mapError(broker.publish(topic, wire, { retain, fleeting: true }), noBroker)),
  Password: ({ payload }: Asked<{ readonly agent: AgentName; readonly device: DeviceId }>) =>
    Effect.mapError(broker.passwordFor(payload.agent, payload.device), noBroker),
  Expel: ({ payload }: Asked<{ readonly agent: AgentName }>) =>
    Effect.suspend(() => {
      forget(payload.agent)
      return Effect.mapError(broker.expel(payload.agent), noBroker)
    })
})

/** Opens the broker for as long as the life lasts. */
const openBroker = (context: Refs, { authenticate, topicRoot }: BrokerKeeperOptions) =>
  Effect.gen(function* () {
    const { open } = yield* MessageBroker
    return yield* open({
      authenticate,
      received: receiver(context, topicRoot),
      presence: (agent, connected, role) => {
        const present = { agent, connected, ...(role === undefined ? {} : { role }) }
        return Effect.ignore(context.ref(DirectoryKey).tell("Present", present))
      },
      refused: yield* makeRefusals
    })
  })

/** The behaviour. */
export const brokerKeeper = (options: BrokerKeeperOptions) =>
  Behaviour.make(BrokerKeeperProtocol, (context) =>
    Effect.gen(function* () {
      const store = yield* MessageStore
      const backlog = yield* makeBacklog
      const broker = yield* openBroker(context, options)
      const alarm = yield* makeAlarm(context.self.tell("Due"))
      let isBringing = false
      let failures = 0
      let sweptAtMs = yield* Clock.currentTimeMillis

      /** Begins a round, unless one is on its way. */
      const round = Effect.gen(function* () {
        if (isBringing) return
        const deliveries = yield* backlog.next
        if (deliveries.length === 0) return yield* alarm.ringIn(sweepMs)
        isBringing = true
        yield* context.startTask(bring(broker, options.topicRoot, deliveries), (exit) => [
          "Delivered",
          Exit.isSuccess(exit) ? exit.value : { places: [], failed: true }
        ])
      })
      const orLater = <R>(effect: Effect.Effect<void, MessageStoreError, R>) =>
        Effect.catch(effect, (error) =>
          Effect.andThen(Effect.logWarning(`deliveries wait: ${error.reason}`), alarm.ringIn(pauses.firstMs))
        )

      yield* context.startTask(broker.ended, (exit) => [
        "Lost",
        { reason: Exit.isSuccess(exit) ? exit.value : "it was interrupted" }
      ])
      yield* alarm.ringIn(0)

      return context.handlers({
        ...questions(broker, backlog.forget),
        Dispatch: ({ payload }) => {
          backlog.add(payload.deliveries)
          return orLater(round)
        },
        Came: ({ payload }) => orLater(Effect.andThen(backlog.addWaiting(payload.agent), round)),
        Delivered: ({ payload: { failed, places } }) =>
          Effect.gen(function* () {
            isBringing = false
            yield* store.delivered(places)
            failures = failed ? failures + 1 : 0
            if (!failed) return yield* round
            backlog.rewind()
            yield* alarm.ringIn(yield* delayAfter(pauses, failures))
          }).pipe(orLater),
        Due: () =>
          Effect.gen(function* () {
            const nowMs = yield* Clock.currentTimeMillis
            if (nowMs - sweptAtMs >= sweepMs) {
              sweptAtMs = nowMs
              const expired = yield* store.prune(nowMs)
              if (expired > 0)
                yield* Effect.logInfo(`${expired} messages expired before their recipients came`)
              backlog.rewind()
            }
            yield* round
          }).pipe(orLater),
        Lost: ({ payload }) =>
          Effect.andThen(Effect.logError(`the MQTT broker is lost: ${payload.reason}`), context.stopSelf)
      })
    })
  )
