import { expect, it } from "@effect/vitest"
import { Effect, Ref, Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { ActorKey, ActorSystem, Behaviour, ChildSpec, Supervisor } from "../../src/kernel/index.ts"

class TooMuch extends Schema.TaggedError<TooMuch>()("TooMuch", { limit: Schema.Int }) {}

const CounterProtocol = RpcGroup.make(
  Rpc.make("Add", { payload: { amount: Schema.Int }, success: Schema.Int, error: TooMuch }),
  Rpc.make("Reset"),
  Rpc.make("Crash", { success: Schema.Int })
)
const Counter = ActorKey.make("counter", CounterProtocol)

const counter = Behaviour.make(CounterProtocol, (ctx) =>
  Effect.gen(function* () {
    const total = yield* Ref.make(0)
    return ctx.handlers({
      Add: ({ payload }) =>
        Effect.gen(function* () {
          const sum = yield* Ref.updateAndGet(total, (n) => n + payload.amount)
          return sum > 100 ? yield* new TooMuch({ limit: 100 }) : sum
        }),
      Reset: () => Ref.set(total, 0),
      Crash: () => Effect.die(new Error("boom"))
    })
  })
)

const root = Supervisor.spec({
  id: "example",
  strategy: "one-for-one",
  backoff: { firstMs: 0 },
  children: [ChildSpec.make({ key: Counter, behaviour: counter })]
})

it.effect("answers, fails with declared errors, and starts afresh after a crash", () =>
  Effect.gen(function* () {
    const system = yield* ActorSystem.make({ root })
    const ref = system.ref(Counter)
    expect(ref.path).toBe("/example/counter")
    yield* ref.tell("Reset")
    expect(yield* ref.ask("Add", { amount: 2 }, { timeoutMs: 1_000 })).toBe(2)
    expect(yield* ref.ask("Add", { amount: 3 })).toBe(5)
    const error = yield* Effect.flip(ref.ask("Add", { amount: 300 }))
    expect(error).toMatchObject({ _tag: "TooMuch", limit: 100 })
    const crashed = yield* Effect.flip(ref.ask("Crash"))
    expect(crashed).toMatchObject({ _tag: "ActorCrashed", path: "/example/counter", reason: "Error: boom" })
    expect(yield* ref.ask("Add", { amount: 1 })).toBe(1)
    const report = yield* system.inspect()
    expect(report.root.children[0]).toMatchObject({ state: "running", restarts: 1, handled: 5 })
    yield* system.stop
    expect(yield* Effect.flip(ref.ask("Add", { amount: 1 }))).toMatchObject({ _tag: "Stopped" })
  })
)
