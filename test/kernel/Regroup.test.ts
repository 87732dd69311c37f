/** Groups within groups that start again at the same moment. */
import { expect, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { TestClock } from "effect/testing"
import { ActorKey, Behaviour, ChildSpec, type Inspection, Supervisor } from "../../src/kernel/index.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"

const WorkProtocol = RpcGroup.make(
  Rpc.make("Do", {
    payload: { via: Schema.NullOr(Schema.Literals(["first", "second", "third"])), dies: Schema.Boolean }
  })
)
const keys = {
  first: ActorKey.make("first", WorkProtocol),
  second: ActorKey.make("second", WorkProtocol),
  third: ActorKey.make("third", WorkProtocol),
  outside: ActorKey.make("outside", WorkProtocol)
}
const behaviour = Behaviour.make(WorkProtocol, (ctx) =>
  Effect.succeed(
    ctx.handlers({
      Do: (request) =>
        Effect.gen(function* () {
          const { dies, via } = request.payload
          if (via !== null)
            yield* Effect.ignore(request.ask(ctx.ref(keys[via]), "Do", { via: null, dies: false }))
          if (dies) return yield* Effect.interrupt
        })
    })
  )
)

const group = (
  id: string,
  children: ReadonlyArray<ChildSpec<any, any> | ReturnType<typeof Supervisor.spec>>
) =>
  Supervisor.spec({
    id,
    strategy: "one-for-all",
    intensity: 1_000,
    backoff: { firstMs: 7, factor: 2, maximumMs: 500, jitter: 0 },
    children
  })

const statesOf = (node: Inspection): ReadonlyArray<string> => [
  `${node.path} ${node.state}`,
  ...node.children.flatMap(statesOf)
]

it.effect("a group that is stopped just as it begins to start again leaves nobody behind", () =>
  Effect.gen(function* () {
    const child = (id: keyof typeof keys) => ChildSpec.make({ id, key: keys[id], behaviour })
    const inner = group("inner", [child("first"), child("second"), child("third")])
    const system = yield* TestKit.make({ root: group("root", [group("outer", [inner, child("outside")])]) })
    const tell = (
      to: keyof typeof keys,
      payload: { via: "first" | "second" | "third" | null; dies: boolean }
    ) => system.ref(keys[to]).tell("Do", payload)
    // The third dies, so that the group starts again. In its new life the second dies at once, just as the one outside has
    // its answer from the third, and dies: inner and outer group begin to start again in the same moment.
    yield* tell("third", { via: null, dies: true })
    yield* tell("outside", { via: "third", dies: true })
    yield* tell("second", { via: null, dies: true })
    yield* tell("second", { via: null, dies: true })
    yield* TestClock.adjust(10_000)
    const states = statesOf((yield* system.inspect()).root)
    expect(states.filter((state) => !state.endsWith(" running"))).toEqual([])
    yield* TestKit.stop(system)
  })
)
