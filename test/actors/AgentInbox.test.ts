/** The inbox under a virtual clock, over a store that is slow or fails. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { agentInbox } from "../../src/actors/AgentInbox.ts"
import { AgentInboxKey, SmartAgentKey, TrustKeeperKey } from "../../src/actors/ClientKeys.ts"
import { makeActorDesk } from "../../src/adapters/agent/ActorDesk.ts"
import { SystemEntropy } from "../../src/adapters/SystemEntropy.ts"
import { ActorSystem, ChildSpec, Supervisor } from "../../src/kernel/index.ts"
import { AgentStore, AgentStoreError, type WaitingMessage } from "../../src/ports/AgentStore.ts"
import { DeviceClock } from "../../src/ports/DeviceClock.ts"

type Waiting = AgentStore["Service"]["waiting"]

/** Messages 1, 2, 3 in a store that looks for them as a test says. */
const start = (waiting: (usual: Waiting) => Waiting, isProven: () => boolean = () => true) =>
  Effect.gen(function* () {
    const kept = new Set([1, 2, 3])
    const usual: Waiting = (behind, maximum) =>
      Effect.sync(() =>
        [...kept]
          .filter((place) => place > behind)
          .slice(0, maximum)
          .map((place) => ({ place, received: { receivedAtMs: 0, message: { body: place } } }) as never)
      )
    const store = {
      waiting: waiting(usual),
      dealtWith: (places: ReadonlyArray<number>) =>
        Effect.sync(() => {
          for (const place of places) kept.delete(place)
        })
    }
    const services = yield* Layer.build(
      Layer.mergeAll(
        Layer.succeed(AgentStore, store as unknown as AgentStore["Service"]),
        Layer.succeed(DeviceClock, {
          nowMs: Clock.currentTimeMillis,
          proven: Effect.sync(isProven),
          accept: () => Effect.succeed(0)
        }),
        SystemEntropy
      )
    )
    const system = yield* ActorSystem.make({
      root: Supervisor.spec({
        id: "test",
        strategy: "one-for-one",
        children: [ChildSpec.make({ key: AgentInboxKey, behaviour: agentInbox })]
      })
    }).pipe(Effect.provideContext(services))
    return yield* makeActorDesk({
      agent: system.ref(SmartAgentKey),
      inbox: system.ref(AgentInboxKey),
      trust: system.ref(TrustKeeperKey)
    }).pipe(Effect.provideContext(services))
  })

const places = (messages: ReadonlyArray<{ readonly place: number }>) => messages.map(({ place }) => place)

/** Each message ends at as many minutes as its place says. */
const ending =
  (usual: Waiting): Waiting =>
  (behind, maximum, nowMs = 0) =>
    Effect.map(usual(behind, 3), (all) => all.filter(({ place }) => place * 60_000 > nowMs).slice(0, maximum))

describe("the inbox of an agent", () => {
  it.effect("gives nothing that has ended, by a clock that was put right", () =>
    Effect.gen(function* () {
      let isProven = false
      const desk = yield* start(ending, () => isProven)
      yield* TestClock.adjust(150_000)
      yield* Effect.scoped(
        Effect.gen(function* () {
          const first = yield* desk.listen
          assert.deepStrictEqual(places(yield* first.take(2, 0)), [1, 2])
        })
      )
      isProven = true
      const second = yield* desk.listen
      assert.deepStrictEqual(places(yield* second.take(8, 0)), [3])
    })
  )

  it.effect("gives nothing again that has ended meanwhile", () =>
    Effect.gen(function* () {
      const desk = yield* start(ending)
      yield* Effect.scoped(
        Effect.gen(function* () {
          const first = yield* desk.listen
          assert.deepStrictEqual(places(yield* first.take(2, 0)), [1, 2])
        })
      )
      yield* TestClock.adjust(90_000)
      const second = yield* desk.listen
      assert.deepStrictEqual(places(yield* second.take(8, 0)), [2, 3])
    })
  )

  it.effect("gives again what was in an answer that came too late", () =>
    Effect.gen(function* () {
      const asked = yield* Deferred.make<void>()
      const goOn = yield* Deferred.make<void>()
      const desk = yield* start((usual) => (behind, maximum) => {
        const slow = Effect.andThen(Deferred.succeed(asked, undefined), Deferred.await(goOn))
        return Effect.andThen(behind === 1 ? slow : Effect.void, usual(behind, maximum))
      })
      const listener = yield* desk.listen
      assert.deepStrictEqual(places(yield* listener.take(1, 0)), [1])
      const late = yield* Effect.forkChild(Effect.flip(listener.take(8, 0)))
      yield* Deferred.await(asked)
      yield* TestClock.adjust(5_000)
      assert.strictEqual((yield* Fiber.join(late)).code, "failed")
      yield* Deferred.succeed(goOn, undefined)
      assert.deepStrictEqual(places(yield* listener.take(8, 0)), [2, 3])
      yield* listener.done([1, 2])
      assert.deepStrictEqual(places(yield* listener.take(8, 0)), [])
    })
  )

  it.effect("keeps what was given back for the next, where it fails on the way", () =>
    Effect.gen(function* () {
      let isBroken = false
      const desk = yield* start((usual) => (behind, maximum) => {
        const broken: Effect.Effect<ReadonlyArray<WaitingMessage>, AgentStoreError> = Effect.fail(
          new AgentStoreError({ code: "failed", reason: "the disk is slow" })
        )
        return behind === 2 && isBroken ? broken : usual(behind, maximum)
      })
      yield* Effect.scoped(
        Effect.gen(function* () {
          const first = yield* desk.listen
          assert.deepStrictEqual(places(yield* first.take(2, 0)), [1, 2])
        })
      )
      const [second, third] = [yield* desk.listen, yield* desk.listen]
      isBroken = true
      assert.strictEqual((yield* Effect.flip(second.take(8, 0))).code, "failed")
      isBroken = false
      assert.deepStrictEqual(places(yield* third.take(8, 0)), [1, 2, 3])
    })
  )
})
