/**
 * What waits for the broker: some in memory, the rest known to be in the store alone. Everything goes to its recipient in
 * the order it was stored, and all of it is bounded, however many agents come how often.
 */
import { Effect } from "effect"
import { type DeliveryRow, MessageStore } from "../ports/MessageStore.ts"
import type { AgentName } from "../schemas/Topics.ts"

/** Deliveries of one round. */
export const roundDeliveries = 256
/** What was just stored waits in memory for its round; where it is more, it waits in the store alone. */
const freshDeliveries = 4_096
const freshBytes = 16 * 1024 * 1024
/** Agents that came and whose deliveries are looked for one by one; where it is more, all are looked through. */
const cameAgents = 4_096

/** What was just stored, as far as it is in memory. */
const makeFresh = () => {
  let rows: Array<DeliveryRow> = []
  let bytes = 0
  const measured = (some: ReadonlyArray<DeliveryRow>) => some.reduce((sum, { wire }) => sum + wire.length, 0)
  return {
    /** False where there is no room: then nothing of it is kept. */
    add: (deliveries: ReadonlyArray<DeliveryRow>): boolean => {
      const more = measured(deliveries)
      if (rows.length + deliveries.length > freshDeliveries || bytes + more > freshBytes) return false
      rows.push(...deliveries)
      bytes += more
      return true
    },
    drop: (agent: AgentName): void => {
      rows = rows.filter(({ to }) => to !== agent)
      bytes = measured(rows)
    },
    take: (): ReadonlyArray<DeliveryRow> => {
      const taken = rows.splice(0, roundDeliveries)
      bytes -= measured(taken)
      return taken
    },
    clear: (): void => {
      rows = []
      bytes = 0
    },
    get isEmpty(): boolean {
      return rows.length === 0
    }
  }
}

/** Agents that have come, each with the place up to which its deliveries have been read; they take turns. */
const makeComers = (store: MessageStore["Service"]) => {
  const comers = new Map<AgentName, number>()
  return {
    has: (agent: AgentName): boolean => comers.has(agent),
    /** False where there is no room. */
    add: (agent: AgentName): boolean => {
      if (comers.size >= cameAgents && !comers.has(agent)) return false
      comers.set(agent, 0)
      return true
    },
    drop: (agent: AgentName): void => void comers.delete(agent),
    /** Their deliveries are read from the first one again. */
    rewind: (): void => {
      for (const agent of comers.keys()) comers.set(agent, 0)
    },
    get isEmpty(): boolean {
      return comers.size === 0
    },
    take: Effect.gen(function* () {
      const taken: Array<DeliveryRow> = []
      for (const [agent, behind] of [...comers]) {
        const maximum = roundDeliveries - taken.length
        if (maximum === 0) break
        const rows = yield* store.undelivered(agent, behind, maximum)
        taken.push(...rows)
        comers.delete(agent)
        const last = rows.at(-1)
        if (last !== undefined && rows.length === maximum) comers.set(agent, last.place)
      }
      return taken
    })
  }
}

/** See the module. Its `next` is run by one handler at a time. */
export const makeBacklog = Effect.gen(function* () {
  const store = yield* MessageStore
  const fresh = makeFresh()
  const comers = makeComers(store)
  /** Whether there may be more in the store behind this place than is in memory. */
  let isBehind = true
  let behind = 0
  let isComersTurn = true

  const rewind = (): void => {
    isBehind = true
    behind = 0
    comers.rewind()
    // It is in the store too, and must not go before what is older.
    fresh.clear()
  }
  const page = Effect.gen(function* () {
    const rows = yield* store.undelivered(null, behind, roundDeliveries)
    isBehind = rows.length === roundDeliveries
    behind = rows.at(-1)?.place ?? behind
    // Whoever has come gets the older ones first.
    return rows.filter(({ to }) => !comers.has(to))
  })
  return {
    /** These were just stored. */
    add: (deliveries: ReadonlyArray<DeliveryRow>): void => {
      // What is not kept here is found in the store, behind what waits there already.
      if (isBehind) return
      if (!fresh.add(deliveries.filter(({ to }) => !comers.has(to)))) isBehind = true
    },
    /** An agent has come: it gets all that waits for it, once, however often it comes meanwhile. */
    came: (agent: AgentName): void => {
      if (comers.add(agent)) fresh.drop(agent)
      else rewind()
    },
    /** What waits for an agent that is none any more: another may have its name next. */
    forget: (agent: AgentName): void => {
      fresh.drop(agent)
      comers.drop(agent)
    },
    /** Looks through the store from its beginning. */
    rewind,
    /** What the next round brings, which may be nothing though more waits; null: nothing waits. */
    next: Effect.suspend(() => {
      const othersWait = isBehind || !fresh.isEmpty
      // Those who keep coming must not hold up the others, nor the others them.
      if (!comers.isEmpty && (isComersTurn || !othersWait)) {
        isComersTurn = false
        return comers.take
      }
      isComersTurn = true
      if (!fresh.isEmpty) return Effect.succeed(fresh.take())
      return isBehind ? page : Effect.succeed(null)
    })
  }
})
