import { expect, it } from "@effect/vitest"
import { Effect, Fiber, Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { TestClock } from "effect/testing"
import { ActorKey, Behaviour, ChildSpec, Supervisor } from "../../src/kernel/index.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import { puppet } from "./support.ts"

const WatchdogProtocol = RpcGroup.make(
  Rpc.make("Restart", { payload: { name: Schema.String }, success: Schema.Boolean })
)
const Watchdog = ActorKey.make("watchdog", WatchdogProtocol)

const setUp = Effect.gen(function* () {
  const actor = puppet("actor")
  const watchdog = Behaviour.make(WatchdogProtocol, (ctx) =>
    Effect.succeed(
      ctx.handlers({
        Restart: ({ payload }) => ctx.restart(ActorKey.make(payload.name, WatchdogProtocol), "no heartbeat")
      })
    )
  )
  const root = Supervisor.spec({
    id: "root",
    strategy: "one-for-one",
    backoff: { firstMs: 0 },
    children: [ChildSpec.make({ key: Watchdog, behaviour: watchdog }), ChildSpec.make(actor)]
  })
  const system = yield* TestKit.make({ root, interruptGraceMs: 100 })
  return { system, actor, ref: system.ref(actor.key) }
})

it.effect("an idle actor is restarted at once, and its supervisor counts it", () =>
  Effect.gen(function* () {
    const { system, ref } = yield* setUp
    expect(yield* system.ref(Watchdog).ask("Restart", { name: "actor" })).toBe(true)
    expect(yield* ref.ask("Ping")).toBe(2)
    const report = yield* system.inspect()
    expect(report.root.children[1]).toMatchObject({ restarts: 1, last_failure: { reason: "no heartbeat" } })
  })
)

it.effect("a busy handler is interrupted, its asker told, and the mailbox waits for the next life", () =>
  Effect.gen(function* () {
    const { system, ref, actor } = yield* setUp
    const inHand = yield* Effect.forkChild(Effect.flip(ref.ask("Sleep", { ms: 3_000 })))
    yield* TestKit.settle
    const queued = yield* Effect.forkChild(ref.ask("Ping"))
    yield* TestKit.settle
    expect(yield* system.restart(actor.key, "too slow")).toBe(true)
    expect(yield* Fiber.join(inHand)).toMatchObject({ _tag: "ActorCrashed", reason: "too slow" })
    expect(yield* Fiber.join(queued)).toBe(2)
  })
)

it.effect("a handler that ignores interruption is fenced, and the next life begins all the same", () =>
  Effect.gen(function* () {
    const { system, ref, actor } = yield* setUp
    const inHand = yield* Effect.forkChild(Effect.flip(ref.ask("Deaf")))
    yield* TestKit.settle
    expect(yield* system.restart(actor.key, "hangs")).toBe(true)
    expect(yield* system.restart(actor.key, "again")).toBe(false)
    yield* TestClock.adjust(100)
    expect(yield* Fiber.join(inHand)).toMatchObject({ _tag: "ActorCrashed" })
    expect(yield* ref.ask("Ping")).toBe(2)
    expect((yield* system.inspect()).fenced_now).toBe(1)
  })
)

it.effect("who has no life cannot be restarted", () =>
  Effect.gen(function* () {
    const { system, actor } = yield* setUp
    expect(yield* system.ref(Watchdog).ask("Restart", { name: "nobody" })).toBe(false)
    yield* system.stop
    expect(yield* system.restart(actor.key, "late")).toBe(false)
  })
)
