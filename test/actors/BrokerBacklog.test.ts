/** What waits for the broker, whatever happens to it: everything is brought, and to each recipient in its order. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import fc from "fast-check"
import { makeBacklog, roundBytes, roundDeliveries } from "../../src/actors/BrokerBacklog.ts"
import { type DeliveryRow, MessageStore } from "../../src/ports/MessageStore.ts"
import type { Name } from "../../src/schemas/Ids.ts"
import type { AgentName } from "../../src/schemas/Topics.ts"

const agents = ["alice", "bob", "carol"] as [Name, Name, Name]
const [alice, bob] = agents

const largest = 250_000
/** The bytes of all deliveries. */
const wire = new Uint8Array(largest)

/** Deliveries in the order they were stored. */
class Rows {
  readonly rows = new Map<number, DeliveryRow>()
  /** How many were read whole, and the most bytes that were read at once. */
  read = 0
  largestRead = 0
  private last = 0
  put(to: AgentName, bytes: number): DeliveryRow {
    const row: DeliveryRow = { place: ++this.last, to, inbox: "private", wire: wire.subarray(0, bytes) }
    this.rows.set(row.place, row)
    return row
  }
  readonly store = {
    undelivered: (agent: AgentName | null, behind: number, maximum: number) =>
      Effect.sync(() => {
        const all = [...this.rows.values()]
        const some = all.filter(({ place, to }) => place > behind && (agent ?? to) === to).slice(0, maximum)
        return some.map(({ place, to, wire }) => ({ place, to, bytes: wire.length }))
      }),
    deliveries: (places: ReadonlyArray<number>) =>
      Effect.sync(() => {
        const some = places.flatMap((place) => this.rows.get(place) ?? [])
        this.read += some.length
        const bytes = some.reduce((sum, { wire }) => sum + wire.length, 0)
        this.largestRead = Math.max(this.largestRead, bytes)
        return some
      })
  } as unknown as MessageStore["Service"]
}

type Step =
  | { readonly does: "send"; readonly to: number; readonly count: number; readonly bytes: number }
  | { readonly does: "come"; readonly who: number }
  | { readonly does: "go"; readonly who: number }
  | { readonly does: "sweep" }
  | { readonly does: "begin" }
  | { readonly does: "rounds"; readonly count: number }
  /** The round on its way ends; behind so many publications of a recipient all fail. */
  | { readonly does: "end"; readonly failing: number | null; readonly behind: number }

const who = fc.integer({ min: 0, max: agents.length - 1 })
const steps = fc.array(
  fc.oneof(
    fc.record({
      does: fc.constant("send" as const),
      to: who,
      // Some are more than a round, or more than is kept in memory.
      count: fc.oneof(
        { weight: 3, arbitrary: fc.integer({ min: 1, max: 5 }) },
        fc.constantFrom(300, 600, 2_500)
      ),
      bytes: fc.constantFrom(1, 1, 1, 4_000, largest)
    }),
    fc.record({ does: fc.constant("come" as const), who }),
    fc.record({ does: fc.constant("go" as const), who }),
    fc.record({ does: fc.constant("sweep" as const) }),
    { weight: 3, arbitrary: fc.record({ does: fc.constant("begin" as const) }) },
    fc.record({ does: fc.constant("rounds" as const), count: fc.integer({ min: 1, max: 6 }) }),
    {
      weight: 3,
      arbitrary: fc.record({
        does: fc.constant("end" as const),
        failing: fc.oneof({ weight: 2, arbitrary: fc.constant(null) }, who),
        behind: fc.integer({ min: 0, max: 3 })
      })
    }
  ),
  { minLength: 10, maxLength: 60, size: "max" }
)

/** A keeper and a broker, as far as the order of what they do goes. */
const makeWorld = (words: "all told" | "some lost") =>
  Effect.gen(function* () {
    const stored = new Rows()
    const backlog = yield* Effect.provideService(makeBacklog, MessageStore, stored.store)
    const sessions = new Set<AgentName>()
    const brought = new Map<AgentName, Array<number>>()
    let tried = 0
    let sent = 0
    let round: ReadonlyArray<DeliveryRow> | null = null

    const end = (failing: AgentName | null, behind: number): void => {
      if (round === null) return
      const absent = new Set<AgentName>()
      let left = behind
      let failed = false
      for (const { place, to } of round) {
        if (absent.has(to) || (failed && to === failing)) continue
        tried++
        if (to === failing && left-- <= 0) failed = true
        else if (sessions.has(to)) {
          brought.set(to, [...(brought.get(to) ?? []), place])
          stored.rows.delete(place)
        } else absent.add(to)
      }
      round = null
      backlog.missed([...absent])
      if (failed) backlog.rewind()
    }
    const begin = Effect.gen(function* () {
      if (round === null) round = yield* backlog.next
      return round !== null
    })
    return {
      backlog,
      brought,
      stored,
      end,
      begin,
      tried: () => tried,
      come: (agent: AgentName): void => {
        sessions.add(agent)
        backlog.came(agent)
      },
      /** Comes, and nobody tells of it. */
      open: (agent: AgentName): void => void sessions.add(agent),
      go: (agent: AgentName): void => void sessions.delete(agent),
      send: (to: AgentName, count: number, bytes = 1): void => {
        const rows = Array.from({ length: count }, () => stored.put(to, bytes))
        if (words === "all told" || sent++ % 3 !== 0) backlog.add(rows)
      },
      /** Rounds until nothing waits. */
      drain: Effect.gen(function* () {
        for (let rounds = 0; yield* begin; rounds++) {
          assert.isBelow(rounds, 5_000)
          end(null, 0)
        }
      })
    }
  })
type World = Effect.Success<ReturnType<typeof makeWorld>>

const take = (world: World, step: Step) =>
  Effect.gen(function* () {
    if (step.does === "send") world.send(agents[step.to] as Name, step.count, step.bytes)
    else if (step.does === "come") world.come(agents[step.who] as Name)
    else if (step.does === "go") world.go(agents[step.who] as Name)
    else if (step.does === "sweep") world.backlog.sweep()
    else if (step.does === "begin") yield* world.begin
    else if (step.does === "rounds")
      for (let time = 0; time < step.count; time++) {
        yield* world.begin
        world.end(null, 0)
      }
    else world.end(step.failing === null ? null : (agents[step.failing] as Name), step.behind)
  })

const runAll = (world: World, all: ReadonlyArray<Step>) =>
  Effect.gen(function* () {
    for (const agent of agents) world.come(agent)
    yield* world.drain
    for (const step of all) yield* take(world, step)
    world.end(null, 0)
    for (const agent of agents) world.come(agent)
    yield* world.drain
    world.backlog.sweep()
    yield* world.drain
    assert.strictEqual(world.stored.rows.size, 0)
    assert.isBelow(world.stored.largestRead, roundBytes + largest)
  })

/** Holds a property against many runs, and shows the shortest that breaks it. */
const holds = (numRuns: number, property: (all: ReadonlyArray<Step>) => Effect.Effect<void, unknown>) =>
  Effect.promise(() =>
    fc.assert(
      fc.asyncProperty(steps, (all) => Effect.runPromise(property(all))),
      { numRuns }
    )
  )

describe("what waits", () => {
  it.effect("goes to each recipient once, in the order it was stored, whatever fails and whoever comes", () =>
    holds(200, (all) =>
      Effect.gen(function* () {
        const world = yield* makeWorld("all told")
        yield* runAll(world, all)
        for (const [agent, places] of world.brought) {
          const inOrder = [...new Set(places)].sort((left, right) => left - right)
          assert.deepStrictEqual(places, inOrder, agent)
        }
      })
    )
  )

  it.effect("is brought though nobody told of it", () =>
    holds(100, (all) => Effect.flatMap(makeWorld("some lost"), (world) => runAll(world, all)))
  )

  it.effect("is in its order where more comes than is kept in memory", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld("all told")
      yield* world.drain
      world.come(bob)
      yield* world.drain
      for (let time = 0; time < 3; time++) world.send(bob, 2_000)
      for (let time = 0; time < 40; time++) {
        world.send(bob, 1)
        yield* world.begin
        world.end(null, 0)
      }
      yield* world.drain
      assert.deepStrictEqual(
        world.brought.get(bob),
        Array.from({ length: 6_040 }, (_, index) => index + 1)
      )
    })
  )
})

describe("what waits for an agent without a session", () => {
  /** Alice is away and has left much behind; bob is there. */
  const whileAway = Effect.gen(function* () {
    const world = yield* makeWorld("all told")
    world.come(bob)
    yield* world.drain
    world.send(alice, 5_000)
    yield* world.drain
    return world
  })

  it.effect("is not tried one by one, and holds up nobody", () =>
    Effect.gen(function* () {
      const world = yield* whileAway
      const before = world.tried()
      for (let sweep = 0; sweep < 10; sweep++) {
        world.backlog.sweep()
        yield* world.begin
        world.send(bob, 1)
        let rounds = 0
        for (; world.brought.get(bob)?.length !== sweep + 1; rounds++) {
          yield* world.begin
          world.end(null, 0)
        }
        assert.isAtMost(rounds, 3)
        world.send(alice, 1)
        yield* world.drain
      }
      // One of hers with each sweep.
      assert.isAtMost(world.tried() - before, 2 * 10)
    })
  )

  it.effect("is not read", () =>
    Effect.gen(function* () {
      const world = yield* whileAway
      world.stored.read = 0
      for (let sweep = 1; sweep <= 10; sweep++) {
        world.backlog.sweep()
        yield* world.drain
        // One of hers with each sweep, to see whether it is taken.
        assert.strictEqual(world.stored.read, sweep)
      }
    })
  )

  it.effect("is read in parts where it is large, when it comes", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld("all told")
      yield* world.drain
      world.send(alice, roundDeliveries, largest)
      yield* world.drain
      world.come(alice)
      yield* world.drain
      assert.lengthOf(world.brought.get(alice) ?? [], roundDeliveries)
      assert.isAtLeast(world.stored.largestRead, roundBytes)
      assert.isBelow(world.stored.largestRead, roundBytes + largest)
    })
  )

  it.effect("is tried with every sweep, for nobody may have told that it came", () =>
    Effect.gen(function* () {
      const world = yield* whileAway
      world.open(alice)
      world.send(alice, 3)
      yield* world.drain
      assert.isUndefined(world.brought.get(alice))
      world.backlog.sweep()
      yield* world.begin
      world.send(alice, 2)
      yield* world.drain
      assert.deepStrictEqual(
        world.brought.get(alice),
        Array.from({ length: 5_005 }, (_, index) => index + 1)
      )
    })
  )

  it.effect("does not keep a sweep from its end, though another is due before", () =>
    Effect.gen(function* () {
      const world = yield* whileAway
      const forgotten = world.stored.put(bob, 1)
      world.send(bob, 1)
      for (let round = 0; round < 100; round++) {
        if (round % 5 === 0) world.backlog.sweep()
        yield* world.begin
        world.end(null, 0)
      }
      assert.include(world.brought.get(bob) ?? [], forgotten.place)
    })
  )

  it.effect("does not keep the look after a failure from its end either", () =>
    Effect.gen(function* () {
      const world = yield* whileAway
      world.backlog.rewind()
      world.send(bob, 1)
      for (let round = 0; round < 100; round++) {
        if (round % 5 === 0) world.backlog.sweep()
        yield* world.begin
        world.end(null, 0)
      }
      assert.lengthOf(world.brought.get(bob) ?? [], 1)
    })
  )
})
