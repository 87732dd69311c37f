/**
 * What waits for the broker: some in memory, the rest known to be in the store alone. Everything goes to its recipient in
 * the order it was stored, and all of it is bounded, however many agents come how often. What waits for agents without a
 * session, which may be very much for very long, holds up nobody: it is passed by, neither read nor tried one by one.
 */
import { Effect } from "effect"
import {
  type DeliveryRow,
  MessageStore,
  type MessageStoreError,
  type WaitingDelivery
} from "../ports/MessageStore.ts"
import type { AgentName } from "../schemas/Topics.ts"

/** Deliveries of one round, and what of them is read together: a round begins no further one behind so many bytes. */
export const roundDeliveries = 256
export const roundBytes = 4 * 1024 * 1024
/** What was just stored waits in memory for its round; where it is more, it waits in the store alone. */
const freshDeliveries = 4_096
const freshBytes = 16 * 1024 * 1024
/** Agents that came and whose deliveries are looked for one by one; where it is more, all are looked through. */
const cameAgents = 4_096
/** Agents known to have no session; for any more it is found out again with each look. All of them may come at once. */
const absentAgents = cameAgents / 2

/** Those that begin within so many bytes, and how many they have. */
const withinBytes = (waiting: ReadonlyArray<WaitingDelivery>, maximum: number) => {
  let bytes = 0
  const rows: Array<WaitingDelivery> = []
  for (const one of waiting) {
    if (bytes >= maximum) break
    rows.push(one)
    bytes += one.bytes
  }
  return { rows, bytes, isAll: rows.length === waiting.length }
}

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
    /** The place of the oldest for each recipient. */
    oldest: (): ReadonlyMap<AgentName, number> => {
      const oldest = new Map<AgentName, number>()
      for (const { place, to } of rows) oldest.set(to, Math.min(place, oldest.get(to) ?? place))
      return oldest
    },
    get isEmpty(): boolean {
      return rows.length === 0
    }
  }
}

/**
 * Agents that have come, or may have, each with the place up to which its deliveries have been read; they take turns. Of
 * those in `absent` one delivery is read, to see whether it is taken: then they are absent no more.
 */
const makeComers = (store: MessageStore["Service"], absent: Set<AgentName>) => {
  const comers = new Map<AgentName, number>()
  return {
    has: (agent: AgentName): boolean => comers.has(agent),
    /** Whether nothing has been read for it since it came. */
    isNew: (agent: AgentName): boolean => comers.get(agent) === 0,
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
      const taken: Array<WaitingDelivery> = []
      let takenBytes = 0
      for (const [agent, behind] of [...comers]) {
        const left = roundDeliveries - taken.length
        if (left === 0 || takenBytes >= roundBytes) break
        const maximum = absent.delete(agent) ? 1 : left
        const page = yield* store.undelivered(agent, behind, maximum)
        const { bytes, isAll, rows } = withinBytes(page, roundBytes - takenBytes)
        taken.push(...rows)
        takenBytes += bytes
        comers.delete(agent)
        const last = rows.at(-1)
        if (last !== undefined && (page.length === maximum || !isAll)) comers.set(agent, last.place)
      }
      return taken
    })
  }
}

/** Whether something is to be brought as it is found; what it is has not been read by then. */
type IsNext = (waiting: WaitingDelivery) => boolean

/** The look through the store, as far as there may be more in it than is in memory. */
const makeLook = (store: MessageStore["Service"]) => {
  let isBehind = true
  let behind = 0
  return {
    /** Whether there may be more in the store behind its place than is in memory. */
    get isBehind(): boolean {
      return isBehind
    },
    /** Up to this place all was read from the store, with or without a word of it. */
    get place(): number {
      return behind
    },
    goOn: (): void => {
      isBehind = true
    },
    rewind: (): void => {
      isBehind = true
      behind = 0
    },
    take: Effect.fnUntraced(function* (isNext: IsNext) {
      const page = yield* store.undelivered(null, behind, roundDeliveries)
      const { isAll, rows } = withinBytes(page.filter(isNext), roundBytes)
      isBehind = page.length === roundDeliveries || !isAll
      behind = (isAll ? page : rows).at(-1)?.place ?? behind
      return rows
    })
  }
}

/** What was gone through before, looked through again for what nobody told of. */
const makeSweep = (store: MessageStore["Service"]) => {
  let behind = 0
  let end = 0
  return {
    /** Begins a look up to this place, unless one is on its way. */
    begin: (upTo: number): void => {
      if (behind < end) return
      behind = 0
      end = upTo
    },
    /** What lies behind this place is looked for otherwise. */
    endAt: (place: number): void => {
      end = Math.min(end, place)
    },
    get isOver(): boolean {
      return behind >= end
    },
    take: Effect.fnUntraced(function* (isNext: IsNext) {
      const page = yield* store.undelivered(null, behind, roundDeliveries)
      const some = page.filter(({ place }) => place <= end)
      const { isAll, rows } = withinBytes(some.filter(isNext), roundBytes)
      const last = isAll ? some.at(-1) : rows.at(-1)
      behind = isAll && some.length < roundDeliveries ? end : (last?.place ?? end)
      return rows
    })
  }
}

/** Lets each that is there have its turn. */
const makeTurns = <A>() => {
  let turn = 0
  return (all: ReadonlyArray<A | null>): A | null => {
    for (let step = 1; step <= all.length; step++) {
      const at = (turn + step) % all.length
      const one = all[at] ?? null
      if (one === null) continue
      turn = at
      return one
    }
    return null
  }
}

/** Where deliveries come from; each has its turn, so that none holds up another. */
const makeSources = (store: MessageStore["Service"]) => {
  const fresh = makeFresh()
  /** What is for these waits in the store until they come, and is tried with one delivery of each at every sweep. */
  const absent = new Set<AgentName>()
  const comers = makeComers(store, absent)
  const look = makeLook(store)
  const sweep = makeSweep(store)
  const turns = makeTurns<Effect.Effect<ReadonlyArray<DeliveryRow>, MessageStoreError>>()
  /** Whoever has come, or is to come, gets the older ones first. */
  const isNext = ({ to }: { readonly to: AgentName }): boolean => !comers.has(to) && !absent.has(to)
  const looked = look.take(isNext)
  const swept = Effect.suspend(() => {
    const oldest = fresh.oldest()
    // What is in memory itself, or has an older one there, has its turn to come.
    return sweep.take((row) => isNext(row) && row.place < (oldest.get(row.to) ?? Number.POSITIVE_INFINITY))
  })
  const read = (found: Effect.Effect<ReadonlyArray<WaitingDelivery>, MessageStoreError>) =>
    Effect.flatMap(found, (rows) =>
      rows.length === 0 ? Effect.succeed([]) : store.deliveries(rows.map(({ place }) => place))
    )
  const next = Effect.suspend(() => {
    const one = turns([
      comers.isEmpty ? null : read(comers.take),
      fresh.isEmpty ? (look.isBehind ? read(looked) : null) : Effect.sync(fresh.take),
      sweep.isOver ? null : read(swept)
    ])
    return one ?? Effect.succeed(null)
  })
  return { fresh, absent, comers, look, sweep, isNext, next }
}

/** See the module. Its `next` is run by one handler at a time. */
export const makeBacklog = Effect.gen(function* () {
  const { absent, comers, fresh, isNext, look, next, sweep } = makeSources(yield* MessageStore)
  /** The last place that somebody told of. */
  let told = 0

  const rewind = (): void => {
    look.rewind()
    sweep.endAt(0)
    comers.rewind()
    // It is in the store too, and must not go before what is older.
    fresh.clear()
  }
  /** Until it comes again, what is for it waits in the store. */
  const leave = (agent: AgentName): void => {
    comers.drop(agent)
    if (absent.size >= absentAgents) return
    absent.add(agent)
    fresh.drop(agent)
  }
  return {
    /** These were just stored. */
    add: (deliveries: ReadonlyArray<DeliveryRow>): void => {
      // What is not kept here is found in the store, behind what waits there already.
      if (look.isBehind) return
      const some = deliveries.filter((row) => row.place > look.place && isNext(row))
      for (const { place } of some) told = Math.max(told, place)
      if (fresh.add(some)) return
      look.goOn()
      sweep.endAt(look.place)
    },
    /** An agent has come: it gets all that waits for it, once, however often it comes meanwhile. */
    came: (agent: AgentName): void => {
      absent.delete(agent)
      if (comers.add(agent)) fresh.drop(agent)
      else rewind()
    },
    /** These had no session when something was brought to them. */
    missed: (agents: ReadonlyArray<AgentName>): void => {
      // Unless they have come since.
      for (const agent of agents) if (!comers.isNew(agent)) leave(agent)
    },
    /** An agent that is cut off: it may come again, or another of its name. */
    forget: (agent: AgentName): void => {
      leave(agent)
      fresh.drop(agent)
    },
    /** Begins again at the first in the store. */
    rewind,
    /**
     * Looks for what nobody told of, beside all that comes: deliveries that were passed by, and sessions of those who had
     * none. A look that is on its way is not begun again.
     */
    sweep: (): void => {
      sweep.begin(look.isBehind ? look.place : Math.max(look.place, told))
      for (const agent of absent) comers.add(agent)
    },
    /** What the next round brings, which may be nothing though more waits; null: nothing waits. */
    next
  }
})
