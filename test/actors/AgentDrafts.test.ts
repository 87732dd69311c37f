/** What an agent is to send, under a virtual clock: how long it waits, in which order it goes, and what never goes. */
import { DatabaseSync } from "node:sqlite"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { hostInProcess } from "../../src/adapters/sqlite/InProcessDatabase.ts"
import { agentDatabase } from "../../src/adapters/sqlite/messages/AgentDatabase.ts"
import { makeAgentStore } from "../../src/adapters/sqlite/SqliteAgentStore.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import { AgentStore, AgentStoreError } from "../../src/ports/AgentStore.ts"
import { BusError } from "../../src/ports/MessageBus.ts"
import type { Name } from "../../src/schemas/Ids.ts"
import type { CannotSend } from "../../src/schemas/protocols/SmartAgent.ts"
import { letIn, list, minute, PlayedBroker, Store, standing, start } from "./support/PlayedAgent.ts"

const day = 24 * 60 * minute

const letter = (body: unknown, to = "bob", lifetimeMs: number | null = null) =>
  ({ level: "public", to: [to as Name], subject: "", body: body as number, lifetimeMs }) as const
const sealed = (body: number, to = "bob") => ({ ...letter(body, to), level: "end_to_end" }) as const

/** As many arrays in each other. */
const nested = (depth: number): unknown => (depth === 0 ? 1 : [nested(depth - 1)])

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

/** A clock that is off until a server has told the time. */
const wrongClock = (offMs: number) => {
  const clock = { offMs, isProven: false }
  return {
    service: {
      nowMs: Effect.map(Clock.currentTimeMillis, (nowMs) => nowMs + clock.offMs),
      proven: Effect.sync(() => clock.isProven),
      accept: () => Effect.succeed(0)
    },
    putRight: () => Object.assign(clock, { offMs: 0, isProven: true })
  }
}

describe("what an agent is to send", () => {
  for (const [how, offMs] of [
    ["behind", -3 * day],
    ["ahead", 60 * minute]
  ] as const)
    it.effect(`gets its true times where the clock was ${how}, if it has not ended by then`, () =>
      Effect.gen(function* () {
        yield* TestClock.adjust(100 * day)
        const startedMs = yield* Clock.currentTimeMillis
        const clock = wrongClock(offMs)
        const broker = new PlayedBroker()
        const agent = yield* start(broker, Store, clock.service)
        const protect = (body: number, lifetimeMs: number | null) =>
          agent.ref.ask("Send", { ...letter(body, "bob", lifetimeMs), level: "protected" })
        yield* protect(1, null)
        yield* protect(2, minute)
        for (let passed = 0; passed < 2; passed++) yield* TestClock.adjust(minute)
        assert.strictEqual(yield* queuedAt(agent), 1)
        yield* protect(3, minute)
        yield* TestClock.adjust(2_000)
        clock.putRight()
        yield* letIn(agent, broker)
        const box = "fleet/broker-services/protected"
        yield* TestKit.until(() => broker.of(box).length === 2, "the messages")
        yield* TestKit.settle
        assert.deepStrictEqual(
          broker
            .of(box)
            .map(({ body, expires_at_ms, issued_at_ms }) => [
              body,
              (issued_at_ms as number) - startedMs,
              (expires_at_ms as number) - startedMs
            ]),
          [
            [1, 0, day],
            [3, 2 * minute, 3 * minute]
          ]
        )
        assert.strictEqual(yield* queuedAt(agent), 0)
      })
    )

  it.effect("begins by no clock of an earlier life in the future", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust(100 * day)
      const store = lastingStore()
      const first = yield* start(awayBroker(), store, wrongClock(60 * minute).service)
      yield* first.ref.ask("Send", { ...letter(1), level: "protected" })
      yield* TestKit.stop(first.system)
      const broker = new PlayedBroker()
      const second = yield* start(broker, store)
      yield* letIn(second, broker)
      const box = "fleet/broker-services/protected"
      yield* TestKit.until(() => broker.of(box).length === 1, "the message")
      assert.strictEqual(broker.of(box)[0]?.["issued_at_ms"], yield* Clock.currentTimeMillis)
    })
  )

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

  it.effect("is refused at once where it could never go out", () =>
    Effect.gen(function* () {
      const agent = yield* start(awayBroker())
      const codeOf = (body: unknown, lifetimeMs: number | null = null) =>
        Effect.map(
          Effect.flip(agent.ref.ask("Send", letter(body, "bob", lifetimeMs))),
          ({ _tag, ...error }) => [_tag, (error as unknown as CannotSend).code]
        )
      // A value that makes something else of itself.
      for (const depth of [17, 20, 24])
        assert.deepStrictEqual(yield* codeOf({ toJSON: () => nested(depth) }), ["CannotSend", "no_json"])
      assert.deepStrictEqual(yield* codeOf(1, 0), ["CannotSend", "malformed_letter"])
      assert.deepStrictEqual(yield* codeOf(1, 999), ["CannotSend", "malformed_letter"])
      assert.strictEqual(yield* queuedAt(agent), 0)
      yield* agent.ref.ask("Send", letter({ toJSON: () => nested(16) }))
      yield* agent.ref.ask("Send", letter(1, "bob", 1_000))
      assert.strictEqual(yield* queuedAt(agent), 2)
    })
  )

  it.effect("is not called full where the disk fails", () =>
    Effect.gen(function* () {
      const agent = yield* start(
        awayBroker(),
        storeWith(() => ({
          queue: () => Effect.fail(new AgentStoreError({ code: "failed", reason: "the disk is gone" }))
        }))
      )
      const error = yield* Effect.flip(agent.ref.ask("Send", letter(1)))
      assert.deepInclude(error, { _tag: "CannotSend", code: "failed" })
      assert.include(error.message, "the disk is gone")
    })
  )

  it.effect("goes out past what nothing can be made of, and past what the broker refuses", () =>
    Effect.gen(function* () {
      const poison = { toJSON: () => nested(24) }
      const broker = new PlayedBroker()
      broker.acknowledge = (topic) =>
        topic === "fleet/eve/public"
          ? Effect.fail(new BusError({ code: "refused", reason: "not authorised" }))
          : Effect.void
      const agent = yield* start(
        broker,
        storeWith((store) => ({
          queued: (...args) =>
            Effect.map(store.queued(...args), (found) =>
              found.map(({ draft, place }) => ({
                place,
                draft: draft.body === "poison" ? { ...draft, body: poison as never } : draft
              }))
            )
        }))
      )
      yield* agent.ref.ask("Send", letter("poison"))
      yield* agent.ref.ask("Send", letter("refused", "eve"))
      for (let body = 0; body < 3; body++) yield* agent.ref.ask("Send", letter(body))
      yield* letIn(agent, broker)
      yield* TestKit.until(() => bodiesTo(broker, "bob").length === 3, "the others")
      for (let passed = 0; passed < 60; passed++) yield* TestClock.adjust(10_000)
      assert.deepStrictEqual(bodiesTo(broker, "bob"), [0, 1, 2])
      assert.deepStrictEqual(bodiesTo(broker, "eve"), ["refused"])
      assert.strictEqual(yield* queuedAt(agent), 2)
      const { detail } = yield* agent.ref.ask("Standing")
      assert.match(detail, /^2 of the messages are set aside/)
      for (let passed = 0; passed < 6; passed++) yield* TestClock.adjust(minute)
      assert.deepStrictEqual(bodiesTo(broker, "eve"), ["refused", "refused"])
      // The operator of that broker may have thought better of it.
      broker.acknowledge = () => Effect.void
      broker.cut()
      for (let passed = 0; broker.shaken.length < 2 && passed < 60; passed++) yield* TestClock.adjust(1_000)
      yield* letIn(agent, broker, 2)
      yield* TestKit.until(() => bodiesTo(broker, "eve").length === 3, "the message")
      assert.match((yield* agent.ref.ask("Standing")).detail, /^1 of the messages/)
    })
  )

  it.effect("is not sent again on a connection that stands, though the disk does not forget it", () =>
    Effect.gen(function* () {
      let isBroken = true
      let strikes = 0
      const broker = new PlayedBroker()
      const agent = yield* start(
        broker,
        storeWith((store) => ({
          sent: (ids) =>
            Effect.suspend(() => {
              strikes++
              return isBroken
                ? Effect.fail(new AgentStoreError({ code: "failed", reason: "the disk is full" }))
                : store.sent(ids)
            })
        }))
      )
      for (let body = 0; body < 100; body++) yield* agent.ref.ask("Send", letter(body))
      yield* letIn(agent, broker)
      for (let passed = 0; passed < 60; passed++) yield* TestClock.adjust(1_000)
      const all = Array.from({ length: 100 }, (_, body) => body)
      assert.deepStrictEqual(bodiesTo(broker, "bob"), all)
      assert.isAbove(strikes, 20)
      assert.deepInclude(yield* agent.ref.ask("Standing"), { state: "known" })
      assert.include((yield* agent.ref.ask("Standing")).detail, "the disk is full")
      broker.cut()
      for (let passed = 0; broker.shaken.length < 2 && passed < 60; passed++) yield* TestClock.adjust(1_000)
      yield* letIn(agent, broker, 2)
      for (let passed = 0; passed < 60; passed++) yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(bodiesTo(broker, "bob"), all)
      isBroken = false
      yield* TestClock.adjust(2_000)
      yield* TestKit.settle
      assert.strictEqual(yield* queuedAt(agent), 0)
      assert.strictEqual((yield* agent.ref.ask("Standing")).detail, "")
    })
  )
})
