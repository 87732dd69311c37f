/**
 * Keeps the MQTT broker open for as long as its life lasts, tells everybody what comes, and brings what is stored to its
 * recipients: in the order it was stored, again after a failure, and again after a restart. What came twice is sorted out
 * by its recipient, by the message's id.
 */
import { Clock, Effect, Exit } from "effect"
import type { RpcGroup } from "effect/rpc"
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
import { BrokerKeeperProtocol, type BrokerPublication } from "../schemas/protocols/BrokerKeeper.ts"
import { type AgentName, placeOf, topicOf } from "../schemas/Topics.ts"
import { makeAlarm } from "./Alarm.ts"
import { makeBacklog } from "./BrokerBacklog.ts"
import { makeErrands } from "./BrokerErrands.ts"
import { delayAfter } from "./Delays.ts"
import { DirectoryKey, ReEncryptorKey } from "./ServerKeys.ts"

export interface BrokerKeeperOptions {
  readonly topicRoot: string
  /** Judges the credentials of a connection. */
  readonly authenticate: BrokerHandlers["authenticate"]
}

/** Deliveries of one round that are on their way to the broker together. */
const together = 32
/** Publications and changes of accounts: how many are done side by side, and how many wait behind each of them. */
const publicationLines = { lines: 32, waiting: 512 }
const accountLines = { lines: 8, waiting: 512 }
/** After a failure. */
const pauses = { firstMs: 500, factor: 2, maximumMs: 30_000 }
/** The store is pruned, and looked through for what nobody told of. */
const sweepMs = 60_000
/** How long a sender's message may take until it is safe. Then it is not acknowledged, and comes again. */
const submitTimeoutMs = 60_000

type Context = ActorContext<RpcGroup.Rpcs<typeof BrokerKeeperProtocol>>
type Refs = Pick<Context, "ref" | "refOf">

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
  deliveries: ReadonlyArray<DeliveryRow>,
  isGone: (agent: AgentName) => boolean
) {
  const failures: Array<string> = []
  const taken = yield* Effect.forEach(
    deliveries,
    ({ inbox, place, to, wire }) =>
      Effect.suspend(() => {
        if (isGone(to)) return Effect.succeed(false)
        return broker.publish(topicOf(topicRoot, { agent: to, inbox }), wire)
      }).pipe(
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

type Asked<A> = { readonly payload: A }

/** What others want of an open broker; `forget` drops what waits here for an agent. */
const makeQuestions = (broker: OpenBroker, forget: (agent: AgentName) => void) =>
  Effect.gen(function* () {
    const publications = yield* makeErrands(publicationLines)
    const accounts = yield* makeErrands(accountLines)
    /** Said once, until the broker takes something again. */
    let isFailing = false
    const publish = ({ retain, topic, wire }: BrokerPublication) =>
      broker.publish(topic, wire, { retain, fleeting: true }).pipe(
        Effect.tap(() =>
          Effect.sync(() => {
            isFailing = false
          })
        ),
        Effect.tapError((error) => {
          const log = isFailing ? Effect.logDebug : Effect.logWarning
          isFailing = true
          return log(`nothing is published to ${topic} for now: ${error.reason}`)
        })
      )
    return {
      Addresses: () => Effect.succeed(broker.addresses),
      Connected: () => broker.connected,
      State: () =>
        Effect.map(broker.connected, ({ length }) => ({ addresses: broker.addresses, connected: length })),
      Publish: ({ payload }: Asked<BrokerPublication>) =>
        publications.submit(payload.topic, Effect.asVoid(publish(payload))),
      Password: ({ payload }: Asked<{ readonly agent: AgentName; readonly device: DeviceId }>) =>
        accounts.submit(payload.agent, broker.passwordFor(payload.agent, payload.device)),
      Expel: ({ payload }: Asked<{ readonly agent: AgentName }>) =>
        Effect.suspend(() => {
          forget(payload.agent)
          return accounts.submitOnce(payload.agent, broker.expel(payload.agent))
        })
    }
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

/** Rounds: one at a time, each followed by the next while anything waits. */
const makeRounds = (context: Context, broker: OpenBroker, topicRoot: string) =>
  Effect.gen(function* () {
    const store = yield* MessageStore
    const book = yield* AgentBook
    const backlog = yield* makeBacklog
    const alarm = yield* makeAlarm(context.self.tell("Due"))
    let isBringing = false
    let failures = 0
    /** Agents that were cut off while a round is on its way. */
    const gone = new Set<AgentName>()
    const isGone = (agent: AgentName): boolean => gone.has(agent)

    const orLater = <R>(effect: Effect.Effect<void, MessageStoreError, R>) =>
      Effect.catch(effect, (error) => {
        backlog.rewind()
        return Effect.andThen(
          Effect.logWarning(`deliveries wait: ${error.reason}`),
          alarm.ringIn(pauses.firstMs)
        )
      })
    /** Begins a round, unless one is on its way. */
    const round = Effect.gen(function* () {
      if (isBringing) return
      const waiting = yield* backlog.next
      if (waiting === null) return
      // Who is no agent at the moment is being cut off: whoever has its name next must not get what was for it.
      const deliveries = waiting.filter(({ to }) => book.get(to) !== undefined)
      gone.clear()
      isBringing = true
      yield* context.startTask(bring(broker, topicRoot, deliveries, isGone), (exit) => [
        "Delivered",
        Exit.isSuccess(exit) ? exit.value : { places: [], failed: true }
      ])
    })
    return {
      round: orLater(round),
      backlog,
      forget: (agent: AgentName): void => {
        gone.add(agent)
        backlog.forget(agent)
      },
      delivered: ({ failed, places }: { readonly failed: boolean; readonly places: ReadonlyArray<number> }) =>
        Effect.gen(function* () {
          isBringing = false
          failures = failed ? failures + 1 : 0
          if (places.length > 0) yield* store.delivered(places)
          if (!failed) return yield* round
          backlog.rewind()
          yield* alarm.ringIn(yield* delayAfter(pauses, failures))
        }).pipe(orLater),
      sweep: Effect.gen(function* () {
        backlog.rewind()
        const expired = yield* store.prune(yield* Clock.currentTimeMillis)
        if (expired > 0) yield* Effect.logInfo(`${expired} messages expired before their recipients came`)
        yield* round
      }).pipe(orLater)
    }
  })

/** The behaviour. */
export const brokerKeeper = (options: BrokerKeeperOptions) =>
  Behaviour.make(BrokerKeeperProtocol, (context) =>
    Effect.gen(function* () {
      const broker = yield* openBroker(context, options)
      const { backlog, delivered, forget, round, sweep } = yield* makeRounds(
        context,
        broker,
        options.topicRoot
      )
      const questions = yield* makeQuestions(broker, forget)
      // Set by its own ring alone: whatever else goes on, it comes.
      const sweeps = yield* makeAlarm(context.self.tell("Sweep"))

      yield* context.startTask(broker.ended, (exit) => [
        "Lost",
        { reason: Exit.isSuccess(exit) ? exit.value : "it was interrupted" }
      ])
      yield* sweeps.ringIn(0)

      return context.handlers({
        ...questions,
        Dispatch: ({ payload }) => {
          backlog.add(payload.deliveries)
          return round
        },
        Came: ({ payload }) => {
          backlog.came(payload.agent)
          return round
        },
        Delivered: ({ payload }) => delivered(payload),
        Due: () => round,
        Sweep: () => Effect.andThen(sweeps.ringIn(sweepMs), sweep),
        Lost: ({ payload }) =>
          Effect.andThen(Effect.logError(`the MQTT broker is lost: ${payload.reason}`), context.stopSelf)
      })
    })
  )
