/**
 * What operators' decisions mean for agents. Whom they turned away, or gave another name, is cut off at once: from that
 * moment nothing of it is passed on, then its connection and session end at the broker, and last it is forgotten with what
 * waits for it. Its row goes last, so that whoever finds it after a restart does the rest.
 */
import { Effect, Exit } from "effect"
import type { RpcGroup } from "effect/rpc"
import type { ActorContext } from "../kernel/index.ts"
import { AgentBook } from "../ports/AgentBook.ts"
import { FleetStore } from "../ports/FleetStore.ts"
import { type AgentRow, MessageStore } from "../ports/MessageStore.ts"
import type { DeviceId, Name } from "../schemas/Ids.ts"
import { brokerAnswer } from "../schemas/protocols/BrokerKeeper.ts"
import type { DirectoryProtocol } from "../schemas/protocols/Directory.ts"
import type { TopicRole } from "../schemas/TopicRights.ts"
import { type AgentName, topicOf } from "../schemas/Topics.ts"
import { makeAgentsAtBroker } from "./AgentsAtBroker.ts"
import { type Alarm, makeAlarm } from "./Alarm.ts"
import { delayAfter } from "./Delays.ts"
import { BrokerKeeperKey } from "./ServerKeys.ts"

/** Agents that one look compares with the fleet, and how often all are: a word about a decision may be lost. */
const reviewAgents = 64
const reviewMs = 5 * 60_000
const reviewAgainMs = 2_000
/** How long the broker may take to cut somebody off, and when it is asked again. */
const expelTimeoutMs = 10_000
const pauses = { firstMs: 200, factor: 2, maximumMs: 30_000 }

type Told<A> = { readonly payload: A }
type Context = ActorContext<RpcGroup.Rpcs<typeof DirectoryProtocol>>

interface Leaving {
  /** Whether what waits under the name goes too. */
  readonly forget: boolean
}

/** Cuts names off at the broker, as often as it takes. */
const makeExpulsions = (context: Context, topicRoot: string) =>
  Effect.gen(function* () {
    const store = yield* MessageStore
    const keeper = context.ref(BrokerKeeperKey)
    const alarm = yield* makeAlarm(context.self.tell("Expelling"))
    const leaving = new Map<AgentName, Leaving>()
    /** Those the broker is just being asked for. */
    let inHand: ReadonlyMap<AgentName, Leaving> | null = null
    let failures = 0

    const expel = ([agent, { forget }]: readonly [AgentName, Leaving]) =>
      Effect.gen(function* () {
        yield* brokerAnswer(keeper.ask("Expel", { agent }), expelTimeoutMs)
        if (!forget) return
        // What it left for those who come later: the keys of an agent that is one no more.
        const topic = topicOf(topicRoot, { agent, inbox: "public/handshake" })
        const nothing = { topic, wire: new Uint8Array(0), retain: true }
        yield* brokerAnswer(keeper.ask("Publish", nothing), expelTimeoutMs)
        yield* store.dropAgent(agent)
      }).pipe(
        Effect.as([agent]),
        Effect.catch((error) =>
          Effect.as(Effect.logWarning(`${agent} is not cut off at the broker yet: ${error._tag}`), [])
        )
      )
    const begin = Effect.suspend(() => {
      if (inHand !== null || leaving.size === 0) return Effect.void
      inHand = new Map(leaving)
      return context.startTask(Effect.forEach([...inHand], expel, { concurrency: 8 }), (exit) => [
        "Expelled",
        { agents: Exit.isSuccess(exit) ? exit.value.flat() : [] }
      ])
    })
    return {
      /**
       * Whether somebody of this name is just being cut off: whoever has it must wait until that is done. What came for one
       * that is known already would go with the session.
       */
      isLeaving: (agent: AgentName): boolean => leaving.has(agent),
      add: (agent: AgentName, forget: boolean) =>
        Effect.suspend(() => {
          leaving.set(agent, { forget: forget || leaving.get(agent)?.forget === true })
          return begin
        }),
      begin,
      done: (agents: ReadonlyArray<AgentName>) =>
        Effect.gen(function* () {
          // Who was to leave once more meanwhile may have come back meanwhile.
          for (const agent of agents) if (leaving.get(agent) === inHand?.get(agent)) leaving.delete(agent)
          inHand = null
          failures = agents.length > 0 ? 0 : failures + 1
          if (failures === 0) yield* begin
          else yield* alarm.ringIn(yield* delayAfter(pauses, failures))
        })
    }
  })

/** Some agents by name, behind one of them. */
export const agentsBehind = (
  rows: ReadonlyArray<AgentRow>,
  behind: AgentName | null,
  maximum: number
): ReadonlyArray<AgentRow> =>
  rows
    .filter(({ agent }) => behind === null || agent > behind)
    .sort((left, right) => (left.agent < right.agent ? -1 : 1))
    .slice(0, maximum)

/** What cannot be judged now is judged with the next review, which comes soon. */
const orRing =
  (alarm: Alarm) =>
  <E extends { readonly message: string }, R>(what: Effect.Effect<void, E, R>) =>
    Effect.catch(what, (error) =>
      Effect.andThen(
        Effect.logWarning(`agents are not held against the fleet: ${error.message}`),
        alarm.ringIn(reviewAgainMs)
      )
    )

type Expulsions = Effect.Success<ReturnType<typeof makeExpulsions>>

/** What follows for the list of agents. */
interface Consequences {
  /** Somebody is on it no more. */
  readonly changed: Effect.Effect<void>
  /** Somebody went without a word. */
  readonly gone: (agent: AgentName) => Effect.Effect<void>
}

/** Holds one device's names against the fleet. */
const makeJudging = (context: Context, expulsions: Expulsions, { changed, gone }: Consequences) =>
  Effect.gen(function* () {
    const fleet = yield* FleetStore
    const book = yield* AgentBook
    const cutOff = (agent: AgentName) =>
      Effect.suspend(() => {
        const wasKnown = book.get(agent) !== undefined
        book.delete(agent)
        return Effect.andThen(wasKnown ? changed : Effect.void, expulsions.add(agent, true))
      })
    const atBroker = yield* makeAgentsAtBroker(context, { cutOff, gone })

    /** Cuts off those of a device's names that are its own no more. Gives its name now, or null. */
    const judge = Effect.fnUntraced(function* (device: DeviceId, agents: Iterable<AgentName>) {
      const found = yield* fleet.device(device)
      const name = found?.status === "accepted" ? (found.name as Name | null) : null
      for (const agent of agents) {
        const isAnothers = (book.get(agent)?.device ?? device) !== device
        if (agent !== name && !isAnothers) yield* cutOff(agent)
      }
      return name
    })

    /** The name of a device that was turned away, unless it is another's now. */
    const lastNameOf = Effect.fnUntraced(function* (device: DeviceId) {
      const found = yield* fleet.device(device)
      if (found === null || found.status === "accepted" || found.name === null) return []
      return (yield* fleet.deviceNamed(found.name)) === null ? [found.name as Name] : []
    })

    const decided = Effect.fnUntraced(function* (device: DeviceId) {
      const rows = book.all().filter((row) => row.device === device)
      // Who never said who it is stands at the broker alone, or has but a session there, under the name it had last.
      const last = yield* lastNameOf(device)
      const name = yield* judge(
        device,
        new Set([...rows.map(({ agent }) => agent), ...atBroker.namesOf(device), ...last])
      )
      if (name === null) return
      const holder = book.get(name)
      if (holder?.device === device) return
      if (holder !== undefined) return yield* cutOff(name)
      // Whoever waits under this name as a stranger is let in, or turned away where the name is another's now.
      yield* expulsions.add(name, false)
    })

    return { atBroker, judge, decided }
  })

/** Holds all agents against the fleet: the book of them, and who stands at the broker. */
export const makeDecisions = (context: Context, topicRoot: string, consequences: Consequences) =>
  Effect.gen(function* () {
    const book = yield* AgentBook
    const expulsions = yield* makeExpulsions(context, topicRoot)
    const { atBroker, decided, judge } = yield* makeJudging(context, expulsions, consequences)
    const alarm = yield* makeAlarm(context.self.tell("Review"))
    let reviewed: AgentName | null = null

    const review = Effect.gen(function* () {
      if (reviewed === null) yield* atBroker.ask
      const rows = agentsBehind(book.all(), reviewed, reviewAgents)
      for (const row of rows) yield* judge(row.device, [row.agent])
      reviewed = rows.length < reviewAgents ? null : (rows.at(-1)?.agent ?? null)
      yield* alarm.ringIn(reviewed === null ? reviewMs : 0)
    })
    const orAgain = orRing(alarm)

    /** What could not be judged of those at the broker is judged with the next review of all. */
    const orFromTheStart = <E extends { readonly message: string }>(what: Effect.Effect<void, E>) =>
      Effect.tapError(what, () =>
        Effect.sync(() => {
          reviewed = null
        })
      ).pipe(orAgain)

    yield* alarm.ringIn(0)
    return {
      isLeaving: expulsions.isLeaving,
      /** The broker says who is there, and as whose. */
      present: (agent: AgentName, connected: boolean, role?: TopicRole) =>
        orFromTheStart(atBroker.told(agent, connected, role)),
      /** Ends a connection that stands as less than its owner may be. */
      comeAgain: (agent: AgentName) => expulsions.add(agent, false),
      handlers: {
        Decided: ({ payload }: Told<{ readonly device: DeviceId }>) => orAgain(decided(payload.device)),
        Review: () => orAgain(review),
        Stood: ({ payload }: Told<{ readonly connected: ReadonlyArray<string> | null }>) =>
          orFromTheStart(atBroker.answered(payload.connected)),
        Expelling: () => expulsions.begin,
        Expelled: ({ payload }: Told<{ readonly agents: ReadonlyArray<AgentName> }>) =>
          expulsions.done(payload.agents)
      }
    }
  })
