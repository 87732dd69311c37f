/**
 * Who stands at the broker, as the directory was told. An agent that never shakes hands is in no book, and is to be found all
 * the same when operators turn its device away.
 */
import { Effect, Exit, Schema } from "effect"
import type { RpcGroup } from "effect/rpc"
import type { ActorContext } from "../kernel/index.ts"
import { AgentBook } from "../ports/AgentBook.ts"
import { FleetStore, type StoreError } from "../ports/FleetStore.ts"
import type { DeviceId } from "../schemas/Ids.ts"
import type { DirectoryProtocol } from "../schemas/protocols/Directory.ts"
import type { TopicRole } from "../schemas/TopicRights.ts"
import { AgentName } from "../schemas/Topics.ts"
import { BrokerKeeperKey } from "./ServerKeys.ts"

/** How long the broker may take to say who is connected. */
const connectedTimeoutMs = 10_000

interface Standing {
  /** Whose name it was when it came; null where it came as a stranger. */
  readonly device: DeviceId | null
}

const isAgentName = Schema.is(AgentName)

/** Finds those whose end nobody told of. Who was just coming when the broker was asked is there the next time. */
const makeMissing = Effect.map(AgentBook, (book) => {
  /** Those in the book as connected who were not there when the broker was asked last. */
  let missed = new Set<AgentName>()
  return {
    told: (agent: AgentName): void => void missed.delete(agent),
    /** Those who are missing for the second time. */
    twice: (isThere: (agent: AgentName) => boolean): ReadonlyArray<AgentName> => {
      const missing = book
        .all()
        .filter(({ agent, status }) => status === "C" && !isThere(agent))
        .map(({ agent }) => agent)
      const before = missed
      missed = new Set(missing)
      return missing.filter((agent) => before.has(agent))
    }
  }
})

interface AtBrokerOptions {
  /** For those who stand as agents under names that are their own no more. */
  readonly cutOff: (agent: AgentName) => Effect.Effect<void>
  /** For those who are in the book as connected, and are not. */
  readonly gone: (agent: AgentName) => Effect.Effect<void>
}

export const makeAgentsAtBroker = (
  context: ActorContext<RpcGroup.Rpcs<typeof DirectoryProtocol>>,
  { cutOff, gone }: AtBrokerOptions
) =>
  Effect.gen(function* () {
    const fleet = yield* FleetStore
    const book = yield* AgentBook
    const keeper = context.ref(BrokerKeeperKey)
    const missing = yield* makeMissing
    const standings = new Map<AgentName, Standing>()
    /** Those that were there when the broker was asked; null while it is not asked. */
    let before: ReadonlyMap<AgentName, Standing> | null = null
    /** Somebody stands as an agent: its device was judged before, and may have been turned away since. */
    const judge = Effect.fnUntraced(function* (agent: AgentName, device: DeviceId | undefined) {
      const owner = yield* fleet.deviceNamed(agent)
      if (owner === null || (device !== undefined && device !== owner.device)) return yield* cutOff(agent)
      standings.set(agent, { device: owner.device })
    })
    return {
      /** A connection stands, or has ended. A broker that does not tell as whose watches over that itself. */
      told: (agent: AgentName, connected: boolean, role?: TopicRole): Effect.Effect<void, StoreError> =>
        Effect.suspend(() => {
          standings.delete(agent)
          missing.told(agent)
          if (connected && role === "agent") return judge(agent, undefined)
          if (connected && role === "stranger") standings.set(agent, { device: null })
          return Effect.void
        }),
      /** Under which names a device stands. */
      namesOf: (device: DeviceId): ReadonlyArray<AgentName> =>
        [...standings].flatMap(([agent, standing]) => (standing.device === device ? [agent] : [])),
      /** Asks the broker who is connected: words of it, and of decisions, may have been lost. */
      ask: Effect.suspend(() => {
        if (before !== null) return Effect.void
        before = new Map(standings)
        return context.startTask(
          keeper.ask("Connected", undefined, { timeoutMs: connectedTimeoutMs }),
          (exit) => ["Stood", { connected: Exit.isSuccess(exit) ? exit.value : null }]
        )
      }),
      /** The broker's answer; null where there was none. Those in the book are held against the fleet by their rows. */
      answered: Effect.fnUntraced(function* (connected: ReadonlyArray<string> | null) {
        const asked = before ?? new Map<AgentName, Standing>()
        before = null
        if (connected === null) return
        const there = new Set(connected)
        for (const [agent, standing] of asked)
          if (!there.has(agent) && standings.get(agent) === standing) standings.delete(agent)
        for (const agent of missing.twice((name) => there.has(name) || standings.has(name)))
          yield* gone(agent)
        for (const agent of there) {
          if (!isAgentName(agent) || book.get(agent) !== undefined) continue
          const device = standings.get(agent)?.device
          // Who came as a stranger can do no more than one. Of whom nothing is known comes again, if it may.
          if (device !== null) yield* judge(agent, device)
        }
      })
    }
  })
