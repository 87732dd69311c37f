/** What must not compile: the directives below fail the type check if the line after them compiles. */
import { expect, it } from "@effect/vitest"
import { Context, Effect, Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import {
  ActorKey,
  type ActorRef,
  ActorSystem,
  type AskError,
  Behaviour,
  ChildSpec,
  DynamicKey,
  Supervisor
} from "../../src/kernel/index.ts"

class Declared extends Schema.TaggedError<Declared>()("Declared", {}) {}
class Undeclared extends Schema.TaggedError<Undeclared>()("Undeclared", {}) {}
class Needed extends Context.Service<Needed, number>()("postern/test/Needed") {}

const TwoProtocol = RpcGroup.make(
  Rpc.make("Plain"),
  Rpc.make("Full", { payload: { size: Schema.Int }, success: Schema.String, error: Declared })
)
const Two = ActorKey.make("two", TwoProtocol)
type TwoRpcs = typeof TwoProtocol extends RpcGroup.RpcGroup<infer R> ? R : never

const good = Behaviour.make(TwoProtocol, (ctx) =>
  Effect.succeed(
    ctx.handlers({
      Plain: () => Effect.void,
      Full: ({ payload }) => (payload.size > 3 ? Effect.fail(new Declared()) : Effect.succeed("small"))
    })
  )
)

// @ts-expect-error: the handler of Full is missing
export const missing = Behaviour.make(TwoProtocol, () => Effect.succeed({ Plain: () => Effect.void }))

const failing = Effect.succeed({ Plain: () => Effect.void, Full: () => Effect.fail(new Undeclared()) })
// @ts-expect-error: Full declares no such error
// @effect-diagnostics-next-line missingEffectError:off
export const undeclared = Behaviour.make(TwoProtocol, () => failing)

const counting = Effect.succeed({ Plain: () => Effect.void, Full: () => Effect.succeed(7) })
// @ts-expect-error: Full succeeds with a string
export const wrongSuccess = Behaviour.make(TwoProtocol, () => counting)

const StreamingProtocol = RpcGroup.make(
  Rpc.make("Plain"),
  Rpc.make("Watch", { success: Schema.Int, stream: true })
)
// @ts-expect-error: streaming messages have no place in the kernel
export const streamingKey = ActorKey.make("streaming", StreamingProtocol)
// @ts-expect-error: nor behind dynamic keys
export const streamingDynamic = DynamicKey.make("streaming", StreamingProtocol)
// @ts-expect-error: nor in behaviours
export const streaming = Behaviour.make(StreamingProtocol, () => Effect.succeed({ Plain: () => Effect.void }))

export const sends = (ref: ActorRef<TwoRpcs>) => [
  ref.tell("Plain"),
  ref.ask("Full", { size: 1 }),
  // @ts-expect-error: there is no such message
  ref.tell("Other"),
  // @ts-expect-error: the payload is missing
  ref.tell("Full"),
  // @ts-expect-error: the payload is of another type
  ref.ask("Full", { size: "1" })
]

export const answers = (ref: ActorRef<TwoRpcs>): Effect.Effect<string, Declared | AskError> =>
  ref.ask("Full", { size: 1 })
type Optimistic = (ref: ActorRef<TwoRpcs>) => Effect.Effect<string, Declared>
// @ts-expect-error: an ask can fail with more than what is declared
// @effect-diagnostics-next-line missingEffectError:off
export const optimistic: Optimistic = answers

const OtherProtocol = RpcGroup.make(Rpc.make("Other"))
// @ts-expect-error: the key names another protocol than the behaviour speaks
export const mismatch = ChildSpec.make({ key: ActorKey.make("other", OtherProtocol), behaviour: good })

export const badMessage = Behaviour.make(TwoProtocol, (ctx) =>
  Effect.succeed(
    ctx.handlers({
      // @ts-expect-error: the exit of a task must come back as one of the actor's own messages
      Plain: () => ctx.startTask(Effect.void, () => ["Other"]),
      Full: () => Effect.succeed("")
    })
  )
)

const needy = Behaviour.make(TwoProtocol, (ctx) =>
  Effect.gen(function* () {
    yield* Effect.addFinalizer(() => Effect.void)
    const size = yield* Needed
    return ctx.handlers({
      Plain: () => Effect.void,
      Full: () => Effect.map(Needed, (number) => `${number}${size}`)
    })
  })
)
const needyRoot = Supervisor.spec({
  id: "root",
  strategy: "one-for-one",
  children: [
    Supervisor.spec({
      id: "inner",
      strategy: "one-for-one",
      children: [ChildSpec.make({ key: Two, behaviour: needy })]
    })
  ]
})

it.effect("services that behaviours need are needed by the system, the Scope is not", () =>
  Effect.gen(function* () {
    const needs = Effect.gen(function* () {
      const system = yield* ActorSystem.make({ root: needyRoot })
      return yield* system.ref(Two).ask("Full", { size: 1 })
    }).pipe(Effect.scoped)
    // @ts-expect-error: Needed is not provided
    // @effect-diagnostics-next-line missingEffectContext:off
    const unprovided: Effect.Effect<string, unknown> = needs
    expect(unprovided).toBe(needs)
    expect(yield* Effect.provideService(needs, Needed, 4)).toBe("44")
  })
)

it.effect("declared errors and answers arrive typed", () =>
  Effect.gen(function* () {
    const root = Supervisor.spec({
      id: "root",
      strategy: "one-for-one",
      children: [ChildSpec.make({ key: Two, behaviour: good })]
    })
    const ref = (yield* ActorSystem.make({ root })).ref(Two)
    const text: string = yield* ref.ask("Full", { size: 1 })
    expect(text).toBe("small")
    const caught = yield* Effect.catchTag(ref.ask("Full", { size: 9 }), "Declared", () =>
      Effect.succeed("caught")
    )
    expect(caught).toBe("caught")
  })
)
