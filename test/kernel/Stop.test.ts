import { expect, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Schema, Scope } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { TestClock } from "effect/testing"
import { ActorKey, ActorSystem, Behaviour, ChildSpec, Fence, Supervisor } from "../../src/kernel/index.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import { puppet } from "./support.ts"

const one = (
  children: ReadonlyArray<ChildSpec<any>>,
  options: { readonly maximumFencedLives?: number } = {}
) =>
  TestKit.make({
    root: Supervisor.spec({ id: "root", strategy: "one-for-one", children }),
    interruptGraceMs: 500,
    ...options
  })

it.effect("a handler in hand may finish within the shutdown time-out, and its asker gets the answer", () =>
  Effect.gen(function* () {
    const actor = puppet("actor")
    const system = yield* one([ChildSpec.make({ ...actor, shutdownMs: 2_000 })])
    const ref = system.ref(actor.key)
    const inHand = yield* Effect.forkChild(ref.ask("Sleep", { ms: 1_500 }))
    yield* TestKit.settle
    const queued = yield* Effect.forkChild(Effect.result(ref.ask("Ping")))
    yield* TestKit.settle
    const stopping = yield* Effect.forkChild(system.stop)
    yield* TestKit.settle
    // Before any time has passed: what waits and what is sent now is refused.
    expect(yield* Fiber.join(queued)).toMatchObject({ failure: { _tag: "Stopped", path: "/root/actor" } })
    expect(yield* Effect.flip(ref.tell("Ping"))).toMatchObject({ _tag: "Stopped" })
    yield* TestClock.adjust(1_500)
    expect(yield* Fiber.join(inHand)).toBe(1)
    yield* Fiber.join(stopping)
    expect(yield* Effect.flip(ref.tell("Ping"))).toMatchObject({ _tag: "Stopped" })
    expect(actor).toMatchObject({ closed: 1, handled: [] })
    expect(yield* system.terminated).toEqual({ _tag: "Stopped" })
  })
)

it.effect("a handler that takes longer is interrupted, and its asker is told", () =>
  Effect.gen(function* () {
    const actor = puppet("actor")
    const system = yield* one([ChildSpec.make({ ...actor, shutdownMs: 1_000 })])
    const inHand = yield* Effect.forkChild(Effect.flip(system.ref(actor.key).ask("Sleep", { ms: 4_000 })))
    yield* TestKit.settle
    const stopping = yield* Effect.forkChild(system.stop)
    yield* TestKit.settle
    yield* TestClock.adjust(999)
    expect(stopping.pollUnsafe()).toBeUndefined()
    yield* TestClock.adjust(1)
    yield* Fiber.join(stopping)
    expect(yield* Fiber.join(inHand)).toMatchObject({ _tag: "Stopped", tag: "Sleep" })
    expect((yield* system.inspect()).fenced_total).toBe(0)
  })
)

it.effect("a handler that ignores interruption is fenced, and the stop does not wait for it", () =>
  Effect.gen(function* () {
    const actor = puppet("actor")
    const system = yield* one([ChildSpec.make({ ...actor, shutdownMs: 1_000 })])
    const inHand = yield* Effect.forkChild(Effect.flip(system.ref(actor.key).ask("Deaf")))
    yield* TestKit.settle
    const stopping = yield* Effect.forkChild(system.stop)
    yield* TestKit.settle
    yield* TestClock.adjust(1_500)
    yield* Fiber.join(stopping)
    expect(yield* Fiber.join(inHand)).toMatchObject({ _tag: "Stopped" })
    expect(yield* system.inspect()).toMatchObject({ fenced_now: 1, fenced_total: 1 })
    expect(actor.closed).toBe(1)
  })
)

it.effect("a Scope whose finalizer hangs does not hold up the stop for ever", () =>
  Effect.gen(function* () {
    const HangingProtocol = RpcGroup.make(Rpc.make("Ping"))
    const behaviour = Behaviour.make(HangingProtocol, (ctx) =>
      Effect.as(
        Effect.addFinalizer(() => Effect.never),
        ctx.handlers({ Ping: () => Effect.void })
      )
    )
    const system = yield* one([ChildSpec.make({ id: "hanging", behaviour, shutdownMs: 1_000 })])
    const stopping = yield* Effect.forkChild(system.stop)
    yield* TestKit.settle
    yield* TestClock.adjust(1_500)
    yield* Fiber.join(stopping)
    expect((yield* system.inspect()).fenced_now).toBe(1)
  })
)

const WriterProtocol = RpcGroup.make(
  Rpc.make("Write", { payload: { wait: Schema.Boolean }, success: Schema.String, error: Schema.Unknown }),
  Rpc.make("Die")
)

/** A writer whose first life hangs deaf until the gate opens, and then goes on as if nothing had happened. */
const writer = (gate: Deferred.Deferred<void>, store: Array<string>, probe: ReturnType<typeof puppet>) => {
  const key = ActorKey.make("writer", WriterProtocol)
  let refusals = 0
  const behaviour = Behaviour.make(WriterProtocol, (ctx) =>
    Effect.succeed(
      ctx.handlers({
        Write: ({ payload }) =>
          Effect.uninterruptible(
            Effect.gen(function* () {
              if (payload.wait) {
                yield* Deferred.await(gate)
              }
              const isCurrent = yield* Fence.isCurrent
              yield* Effect.catchTag(
                Fence.guard(Effect.sync(() => store.push(`life ${ctx.life}`))),
                "Fenced",
                () => Effect.sync(() => refusals++)
              )
              yield* Effect.catchTag(ctx.ref(probe.key).tell("Ping"), "Fenced", () =>
                Effect.sync(() => refusals++)
              )
              yield* Effect.catchTag(Effect.asVoid(ctx.ref(probe.key).ask("Ping")), "Fenced", () =>
                Effect.sync(() => refusals++)
              )
              return `life ${ctx.life} ${isCurrent ? "current" : "fenced"}`
            })
          ),
        Die: () => Effect.die(new Error("die"))
      })
    )
  )
  return { key, spec: ChildSpec.make({ key, behaviour, shutdownMs: 100 }), refusals: () => refusals }
}

it.effect("an abandoned life's replies, sends and store writes are refused, counted and shown", () =>
  Effect.gen(function* () {
    const gate = yield* Deferred.make<void>()
    const store: Array<string> = []
    const probe = puppet("probe")
    const trigger = puppet("trigger")
    const subject = writer(gate, store, probe)
    const root = Supervisor.spec({
      id: "root",
      strategy: "one-for-all",
      backoff: { firstMs: 0 },
      children: [ChildSpec.make(trigger), subject.spec, ChildSpec.make(probe)]
    })
    const system = yield* TestKit.make({ root, interruptGraceMs: 100 })
    const ref = system.ref(subject.key)
    const hung = yield* Effect.forkChild(Effect.flip(ref.ask("Write", { wait: true })))
    yield* TestKit.settle
    // A sibling's crash takes the writer down; it does not heed and is abandoned; the next life serves at once.
    yield* system.ref(trigger.key).tell("Die", { manner: "defect" })
    yield* TestClock.adjust(1_000)
    expect(yield* Fiber.join(hung)).toMatchObject({ _tag: "ActorCrashed", path: "/root/writer" })
    expect(yield* ref.ask("Write", { wait: false })).toBe("life 2 current")
    expect(store).toEqual(["life 2"])
    const handled = probe.handled.length
    expect(yield* system.inspect()).toMatchObject({ fenced_now: 1, fenced_total: 1 })

    yield* Deferred.succeed(gate, undefined)
    yield* TestKit.settle
    expect(store).toEqual(["life 2"])
    expect(probe.handled.length).toBe(handled)
    expect(subject.refusals()).toBe(3)
    const report = yield* system.inspect()
    expect(report).toMatchObject({ fenced_now: 0, fenced_total: 1, dead_letters: { fenced: 2 } })
    // The write, the tell, the ask and the reply.
    expect(report.root.children[1]).toMatchObject({ refused: 4, late_replies: 0 })
  })
)

it.effect("more abandoned lives than allowed end the system, so that the process is respawned", () =>
  Effect.gen(function* () {
    const actor = puppet("actor")
    const trigger = puppet("trigger")
    const root = Supervisor.spec({
      id: "root",
      strategy: "one-for-all",
      intensity: 100,
      backoff: { firstMs: 0 },
      children: [ChildSpec.make(trigger), ChildSpec.make({ ...actor, shutdownMs: 100 })]
    })
    const system = yield* TestKit.make({ root, interruptGraceMs: 100, maximumFencedLives: 2 })
    const ended = yield* Effect.forkChild(system.terminated)
    for (let round = 0; round < 3; round++) {
      expect(ended.pollUnsafe()).toBeUndefined()
      yield* system.ref(actor.key).tell("Deaf")
      yield* system.ref(trigger.key).tell("Die", { manner: "defect" })
      yield* TestClock.adjust(1_000)
    }
    expect(yield* Fiber.join(ended)).toEqual({ _tag: "TooManyFencedLives", count: 3 })
  })
)

it.effect("a stop during the start ends the start, and leaves nothing behind", () =>
  Effect.gen(function* () {
    const log: Array<string> = []
    const first = puppet("first", [], log)
    const second = puppet("second", ["hangs"], log)
    const scope = yield* Scope.make()
    const root = Supervisor.spec({
      id: "root",
      strategy: "rest-for-one",
      children: [ChildSpec.make(first), ChildSpec.make(second)]
    })
    const starting = yield* Effect.forkChild(
      Effect.result(Effect.provideService(ActorSystem.make({ root }), Scope.Scope, scope))
    )
    yield* TestKit.until(() => second.lives === 1)
    const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
    yield* TestKit.settle
    yield* Fiber.join(closing)
    expect(yield* Fiber.join(starting)).toMatchObject({ failure: { _tag: "StartFailed" } })
    expect(log).toEqual(["first started", "second started", "second closed", "first closed"])
  })
)

it.effect("stopping twice is stopping once", () =>
  Effect.gen(function* () {
    const actor = puppet("actor")
    const system = yield* one([ChildSpec.make(actor)])
    yield* Effect.all([system.stop, system.stop], { concurrency: "unbounded" })
    yield* system.stop
    expect(actor.closed).toBe(1)
  })
)
