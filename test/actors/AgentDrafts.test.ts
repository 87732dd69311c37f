/** What an agent is to send, under a virtual clock: how long it waits, in which order it goes, and what never goes. */
import { DatabaseSync } from "node:sqlite"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { hostInProcess } from "../../src/adapters/sqlite/InProcessDatabase.ts"
import { agentDatabase } from "../../src/adapters/sqlite/messages/AgentDatabase.ts"
import { makeAgentStore } from "../../src/adapters/sqlite/SqliteAgentStore.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import { AgentStore } from "../../src/ports/AgentStore.ts"
import { BusError } from "../../src/ports/MessageBus.ts"
import type { Name } from "../../src/schemas/Ids.ts"
import { letIn, list, minute, PlayedBroker, Store, standing, start } from "./support/PlayedAgent.ts"

const letter = (body: unknown, to = "bob", lifetimeMs: number | null = null) =>
  ({ level: "public", to: [to as Name], subject: "", body: body as number, lifetimeMs }) as const
const sealed = (body: number, to = "bob") => ({ ...letter(body, to), level: "end_to_end" }) as const

const bodiesTo = (broker: PlayedBroker, name: string) =>
  broker.of(`fleet/${name}/public`).map(({ body }) => body)

/** A store that a second agent finds as the first one left it. */
const lastingStore = () => {
  const database = new DatabaseSync(":memory:")
  return Layer.effect(AgentStore, Effect.map(hostInProcess(agentDatabase, database), makeAgentStore))
}

const storeWith = (change: (store: AgentStore["Service"]) => Partial<AgentStore["Service"]>) =>
  Layer.effect(
    AgentStore,
    Effect.map(Effect.service(AgentStore), (store) => ({ ...store, ...change(store) }))
  ).pipe(Layer.provide(Store))

const awayBroker = () => {
  const broker = new PlayedBroker()
  broker.away = new BusError({ code: "unreachable", reason: "nobody listens there" })
  return broker
}

const queuedAt = (agent: Effect.Success<ReturnType<typeof start>>) =>
  Effect.map(agent.ref.ask("Report"), ({ queued }) => queued)

describe("what an agent is to send", () => {
  it.effect("ends also where there is no session, and is not sent by a later life", () =>
    Effect.gen(function* () {
      const store = lastingStore()
      const first = yield* start(awayBroker(), store)
      first.trust.set(standing)
      yield* first.ref.ask("Send", letter("open the door", "bob", minute))
      yield* first.ref.ask("Send", letter("good morning"))
      yield* first.ref.ask("Send", letter("close the door", "bob", 3 * minute))
      for (let passed = 0; passed < 2; passed++) yield* TestClock.adjust(minute)
      assert.strictEqual(yield* queuedAt(first), 2)
      yield* TestKit.stop(first.system)
      yield* TestClock.adjust(10 * minute)
      const broker = new PlayedBroker()
      const second = yield* start(broker, store)
      yield* letIn(second, broker)
      yield* TestKit.until(() => bodiesTo(broker, "bob").length > 0, "the message")
      yield* TestKit.settle
      assert.deepStrictEqual(bodiesTo(broker, "bob"), ["good morning"])
    })
  )

  it.effect("is read once, however many drafts wait for a key that is not known", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      let rows = 0
      const agent = yield* start(
        broker,
        storeWith((store) => ({
          queued: (...args) =>
            Effect.tap(store.queued(...args), (found) =>
              Effect.sync(() => {
                rows += found.length
              })
            )
        }))
      )
      for (let body = 0; body < 300; body++)
        yield* agent.ref.ask("Send", sealed(body, body < 200 ? "eve" : "bob"))
      yield* letIn(agent, broker)
      yield* TestKit.settle
      assert.strictEqual(rows, 300)
      for (let coming = 0; coming < 5; coming++) yield* broker.bring("fleet/pi/public", new Uint8Array(1))
      yield* list(broker, 1, ["carol"])
      yield* TestKit.settle
      assert.strictEqual(rows, 300)
      // What comes later goes out past them.
      yield* agent.ref.ask("Send", letter("later"))
      yield* TestKit.until(() => bodiesTo(broker, "bob").length === 1, "what can go")
      yield* TestKit.settle
      assert.strictEqual(rows, 301)
      yield* list(broker, 2, ["bob", "carol"])
      const box = "fleet/broker-services/private"
      yield* TestKit.until(() => broker.of(box).length === 100, "those for bob")
      yield* TestKit.settle
      assert.strictEqual(yield* queuedAt(agent), 200)
      assert.strictEqual(rows, 401)
      yield* list(broker, 3, ["eve"])
      yield* TestKit.until(() => broker.of(box).length === 300, "those for eve")
      yield* TestKit.settle
      assert.strictEqual(rows, 601)
    })
  )
})
