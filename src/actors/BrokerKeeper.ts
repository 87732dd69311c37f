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
const pauses = { firstMs: 500, factor: 2, maximumMs: 5_000 }
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

/** What became of a round. */
interface Brought {
  readonly places: ReadonlyArray<number>
  readonly absent: ReadonlyArray<AgentName>
  readonly failed: boolean
}

/** The first delivery of each recipient, and the rest. */
const firstOfEach = (deliveries: ReadonlyArray<DeliveryRow>) => {
  const met = new Set<AgentName>()
  const first: Array<DeliveryRow> = []
  const rest: Array<DeliveryRow> = []
  for (const delivery of deliveries) {
    if (met.has(delivery.to)) rest.push(delivery)
    else first.push(delivery)
    met.add(delivery.to)
  }
  return [first, rest]
}

/**
 * Publishes deliveries: the places of those that sessions have taken, who has no session, and whether the broker failed at
 * any. Each recipient's first goes before the rest: where that is not taken, nothing of the rest may overtake it.
 */
const bring = Effect.fnUntraced(function* (
  broker: OpenBroker,
  topicRoot: string,
  deliveries: ReadonlyArray<DeliveryRow>,
  isGone: (agent: AgentName) => boolean
) {
  const places: Array<number> = []
  /** Where nobody subscribes the agent has not come yet, and it waits in the store. */
  const absent = new Set<AgentName>()
  const failures = new Map<AgentName, string>()
  const publish = ({ inbox, place, to, wire }: DeliveryRow) =>
    Effect.suspend(() => {
      if (isGone(to) || absent.has(to) || failures.has(to)) return Effect.void
      return broker.publish(topicOf(topicRoot, { agent: to, inbox }), wire).pipe(
        Effect.map((isTaken) => void (isTaken ? places.push(place) : absent.add(to))),
        Effect.catch((error) => Effect.sync(() => void failures.set(to, error.message)))
      )
    })
  for (const some of firstOfEach(deliveries))
    yield* Effect.forEach(some, publish, { concurrency: together, discard: true })
  const [reason] = failures.values()
  if (reason !== undefined)
    yield* Effect.logWarning(
      `deliveries to ${failures.size} ${failures.size === 1 ? "agent" : "agents"} wait: ${reason}`
    )
  return { places, absent: [...absent], failed: failures.size > 0 }
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
    /** After a failure, until the alarm rings: whatever comes meanwhile waits. */
    let isPausing = false
    let failures = 0
    /** Agents that were cut off while a round is on its way. */
    const gone = new Set<AgentName>()
    const isGone = (agent: AgentName): boolean => gone.has(agent)

    const beginAgainIn = (delayMs: number) =>
      Effect.suspend(() => {
        backlog.rewind()
        isPausing = true
        return alarm.ringIn(delayMs)
      })
    const orLater = <R>(effect: Effect.Effect<void, MessageStoreError, R>) =>
      Effect.catch(effect, (error) =>
        Effect.andThen(Effect.logWarning(`deliveries wait: ${error.reason}`), beginAgainIn(pauses.firstMs))
      )
    /** Begins a round, unless one is on its way, or is to wait. */
    const round = Effect.gen(function* () {
      if (isBringing || isPausing) return
      const waiting = yield* backlog.next
      if (waiting === null) return
      // Who is no agent at the moment is being cut off: whoever has its name next must not get what was for it.
      const deliveries = waiting.filter(({ to }) => book.get(to) !== undefined)
      gone.clear()
      isBringing = true
      yield* context.startTask(bring(broker, topicRoot, deliveries, isGone), (exit) => [
        "Delivered",
        Exit.isSuccess(exit) ? exit.value : { places: [], absent: [], failed: true }
      ])
    })
    return {
      round: orLater(round),
      due: Effect.suspend(() => {
        isPausing = false
        return orLater(round)
      }),
      backlog,
      forget: (agent: AgentName): void => {
        gone.add(agent)
        backlog.forget(agent)
      },
      delivered: ({ absent, failed, places }: Brought) =>
        Effect.gen(function* () {
          isBringing = false
          backlog.missed(absent)
          failures = failed ? failures + 1 : 0
          if (places.length > 0) yield* store.delivered(places)
          if (!failed) return yield* round
          yield* beginAgainIn(yield* delayAfter(pauses, failures))
        }).pipe(orLater),
      sweep: Effect.gen(function* () {
        backlog.sweep()
        yield* round
      }).pipe(orLater)
    }
  })

/** Has the store forget what has expired: step by step, so that others have their turn meanwhile. */
const makePruning = (context: Context) =>
  Effect.gen(function* () {
    const store = yield* MessageStore
    const alarm = yield* makeAlarm(context.self.tell("Prune"))
    let expired = 0
    return Effect.gen(function* () {
      const step = yield* store.prune(yield* Clock.currentTimeMillis)
      expired += step.expired
      if (step.isMore) return yield* alarm.ringIn(0)
      if (expired > 0) yield* Effect.logInfo(`${expired} messages expired before their recipients came`)
      expired = 0
    }).pipe(
      // The next sweep goes on with it.
      Effect.catch((error) => Effect.logWarning(`what has expired stays for now: ${error.reason}`))
    )
  })

/** The behaviour. */
export const brokerKeeper = (options: BrokerKeeperOptions) =>
  Behaviour.make(BrokerKeeperProtocol, (context) =>
    Effect.gen(function* () {
      const broker = yield* openBroker(context, options)
      const { backlog, delivered, due, forget, round, sweep } = yield* makeRounds(
        context,
        broker,
        options.topicRoot
      )
      const questions = yield* makeQuestions(broker, forget)
      const prune = yield* makePruning(context)
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
        Due: () => due,
        Prune: () => prune,
        Sweep: () => sweeps.ringIn(sweepMs).pipe(Effect.andThen(prune), Effect.andThen(sweep)),
        Lost: ({ payload }) =>
          Effect.andThen(Effect.logError(`the MQTT broker is lost: ${payload.reason}`), context.stopSelf)
      })
    })
  )
