import { expect, it } from "@effect/vitest"
import { Effect, Fiber, Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { TestClock } from "effect/testing"
import {
  ActorKey,
  type ActorRef,
  AskCycle,
  AskError,
  Behaviour,
  ChildSpec,
  Supervisor
} from "../../src/kernel/index.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import { puppet } from "./support.ts"

const one = (children: ReadonlyArray<ChildSpec<any>>) =>
  TestKit.make({ root: Supervisor.spec({ id: "root", strategy: "one-for-one", children }) })

it.effect("an ask without an answer fails at its deadline, and the late reply is counted", () =>
  Effect.gen(function* () {
    const actor = puppet("actor")
    const system = yield* one([ChildSpec.make(actor)])
    const asked = yield* Effect.forkChild(
      Effect.result(system.ref(actor.key).ask("Sleep", { ms: 3_000 }, { timeoutMs: 1_000 }))
    )
    yield* TestClock.adjust(999)
    expect(asked.pollUnsafe()).toBeUndefined()
    yield* TestClock.adjust(1)
    expect(yield* Fiber.join(asked)).toMatchObject({
      failure: { _tag: "AskTimeout", path: "/root/actor", tag: "Sleep", timeoutMs: 1_000 }
    })
    yield* TestClock.adjust(3_000)
    const report = yield* system.inspect()
    expect(report.root.children[0]).toMatchObject({ late_replies: 1, withdrawn: 1, handled: 1 })
    expect(yield* system.ref(actor.key).ask("Ping")).toBe(1)
  })
)

it.effect("every ask has a deadline: the default holds when none is given", () =>
  Effect.gen(function* () {
    const actor = puppet("actor")
    const system = yield* one([ChildSpec.make({ ...actor })])
    const asked = yield* Effect.forkChild(Effect.flip(system.ref(actor.key).ask("Deaf")))
    yield* TestClock.adjust(5_000)
    expect(yield* Fiber.join(asked)).toMatchObject({ _tag: "AskTimeout", timeoutMs: 5_000 })
  })
)

it.effect("giving up while queued takes the message out: it is never handled", () =>
  Effect.gen(function* () {
    const actor = puppet("actor")
    const system = yield* one([ChildSpec.make(actor)])
    const ref = system.ref(actor.key)
    yield* ref.tell("Sleep", { ms: 10_000 })
    const interrupted = yield* Effect.forkChild(ref.ask("Ping"))
    const timedOut = yield* Effect.forkChild(Effect.flip(ref.ask("Ping", undefined, { timeoutMs: 500 })))
    yield* TestKit.settle
    const depth = Effect.map(system.inspect(), (report) => report.root.children[0]?.mailbox?.depth)
    expect(yield* depth).toBe(2)
    yield* Fiber.interrupt(interrupted)
    expect(yield* depth).toBe(1)
    yield* TestClock.adjust(500)
    expect(yield* Fiber.join(timedOut)).toMatchObject({ _tag: "AskTimeout" })
    expect(yield* depth).toBe(0)
    yield* TestClock.adjust(20_000)
    expect(actor.handled).toEqual([])
  })
)

const RelayProtocol = RpcGroup.make(
  Rpc.make("Pass", {
    payload: { to: Schema.Array(Schema.String), timeoutMs: Schema.optional(Schema.Finite) },
    success: Schema.Finite,
    error: AskError
  }),
  Rpc.make("PassPlainly", {
    payload: { to: Schema.Array(Schema.String) },
    success: Schema.Finite,
    error: AskError
  })
)
type RelayRpcs = typeof RelayProtocol extends RpcGroup.RpcGroup<infer R> ? R : never

/** Passes a request along a route of relays; the last one says how much time was left, or waits for ever. */
const relay = (name: string, waits = false) => {
  const key = ActorKey.make(name, RelayProtocol)
  const behaviour = Behaviour.make(RelayProtocol, (ctx) => {
    const refTo = (next: string): ActorRef<RelayRpcs> => ctx.ref(ActorKey.make(next, RelayProtocol))
    return Effect.succeed(
      ctx.handlers({
        Pass: (request) => {
          const [next, ...rest] = request.payload.to
          return next === undefined
            ? waits
              ? Effect.never
              : request.remainingMs
            : request.ask(refTo(next), "Pass", { to: rest }, { timeoutMs: request.payload.timeoutMs })
        },
        PassPlainly: ({ payload }) => {
          const [next, ...rest] = payload.to
          return next === undefined ? Effect.succeed(0) : refTo(next).ask("PassPlainly", { to: rest })
        }
      })
    )
  })
  return { key, spec: ChildSpec.make({ key, behaviour }) }
}

it.effect("a nested ask inherits the deadline: the earlier of the two holds", () =>
  Effect.gen(function* () {
    const [a, b, c] = [relay("a"), relay("b"), relay("c")]
    const system = yield* one([a.spec, b.spec, c.spec])
    const ref = system.ref(a.key)
    expect(yield* ref.ask("Pass", { to: ["b", "c"] }, { timeoutMs: 700 })).toBe(700)
    expect(yield* ref.ask("Pass", { to: ["b"], timeoutMs: 200 }, { timeoutMs: 700 })).toBe(200)
    expect(yield* ref.ask("Pass", { to: ["b"], timeoutMs: 9_000 }, { timeoutMs: 700 })).toBe(700)
  })
)

it.effect("when the first asker's time is over, all nested asks end with it", () =>
  Effect.gen(function* () {
    const [a, b, c] = [relay("a"), relay("b"), relay("c", true)]
    const system = yield* one([a.spec, b.spec, c.spec])
    const asked = yield* Effect.forkChild(
      Effect.flip(system.ref(a.key).ask("Pass", { to: ["b", "c"] }, { timeoutMs: 300 }))
    )
    yield* TestClock.adjust(300)
    expect(yield* Fiber.join(asked)).toMatchObject({ _tag: "AskTimeout", path: "/root/a" })
    // a and b are free again; c, which waits for ever, is the only one still busy.
    expect(yield* system.ref(a.key).ask("Pass", { to: ["b"] })).toBe(5_000)
  })
)

for (const [name, route, ring] of [
  ["itself", ["a"], ["/root/a", "/root/a"]],
  ["its asker", ["b", "a"], ["/root/b", "/root/a", "/root/b"]],
  ["its asker's asker", ["b", "c", "a"], ["/root/c", "/root/a", "/root/b", "/root/c"]]
] as const) {
  it.effect(`an actor that asks ${name} fails at once with AskCycle`, () =>
    Effect.gen(function* () {
      const [a, b, c] = [relay("a"), relay("b"), relay("c")]
      const system = yield* one([a.spec, b.spec, c.spec])
      const error = yield* Effect.flip(system.ref(a.key).ask("Pass", { to: route }))
      expect(error).toMatchObject({ _tag: "AskCycle", ring })
      expect(error).toBeInstanceOf(AskCycle)
      // A handler that forgets to ask through its request is caught as well.
      expect(yield* Effect.flip(system.ref(a.key).ask("PassPlainly", { to: route }))).toMatchObject({
        _tag: "AskCycle"
      })
      expect(yield* system.ref(a.key).ask("Pass", { to: ["b", "c"] })).toBe(5_000)
    })
  )
}

it.effect("two actors that ask each other for different reasons are a ring too", () =>
  Effect.gen(function* () {
    const MeetProtocol = RpcGroup.make(
      Rpc.make("Meet", { payload: { other: Schema.String, delayMs: Schema.Finite }, error: AskError }),
      Rpc.make("Hello")
    )
    const meet = (name: string) => {
      const key = ActorKey.make(name, MeetProtocol)
      const behaviour = Behaviour.make(MeetProtocol, (ctx) =>
        Effect.succeed(
          ctx.handlers({
            Meet: (request) =>
              Effect.andThen(
                Effect.sleep(request.payload.delayMs),
                request.ask(ctx.ref(ActorKey.make(request.payload.other, MeetProtocol)), "Hello")
              ),
            Hello: () => Effect.void
          })
        )
      )
      return { key, spec: ChildSpec.make({ key, behaviour }) }
    }
    const [left, right] = [meet("left"), meet("right")]
    const system = yield* one([left.spec, right.spec])
    const first = yield* Effect.forkChild(
      Effect.result(system.ref(left.key).ask("Meet", { other: "right", delayMs: 10 }))
    )
    const second = yield* Effect.forkChild(
      Effect.result(system.ref(right.key).ask("Meet", { other: "left", delayMs: 20 }))
    )
    yield* TestClock.adjust(20)
    // The second to ask closes the ring and fails at once; that frees its actor to answer the first.
    expect(yield* Fiber.join(second)).toMatchObject({ failure: { _tag: "AskCycle" } })
    expect(yield* Fiber.join(first)).toMatchObject({ _tag: "Success" })
  })
)

it.effect("an answered or given-up ask leaves no trace: asking back later is no ring", () =>
  Effect.gen(function* () {
    const [a, b, c] = [relay("a"), relay("b"), relay("c", true)]
    const system = yield* one([a.spec, b.spec, c.spec])
    expect(yield* system.ref(a.key).ask("Pass", { to: ["b"] })).toBe(5_000)
    expect(yield* system.ref(b.key).ask("Pass", { to: ["a"] })).toBe(5_000)
    const given = yield* Effect.forkChild(
      Effect.flip(system.ref(a.key).ask("Pass", { to: ["c"], timeoutMs: 100 }))
    )
    yield* TestClock.adjust(100)
    expect(yield* Fiber.join(given)).toMatchObject({ _tag: "AskTimeout" })
    expect(yield* system.ref(b.key).ask("Pass", { to: ["a"] })).toBe(5_000)
  })
)

it.effect("a typed error of a told message is counted and logged, and harms nobody", () =>
  Effect.gen(function* () {
    const actor = puppet("actor")
    const system = yield* one([ChildSpec.make(actor)])
    yield* system.ref(actor.key).tell("Fail")
    expect(yield* Effect.flip(system.ref(actor.key).ask("Fail"))).toBe("as told")
    const report = yield* system.inspect()
    expect(report.root.children[0]).toMatchObject({ failed_replies: 1, handled: 2, restarts: 0 })
  })
)

it.effect("a chain of a thousand nested asks answers without exhausting the stack", () =>
  Effect.gen(function* () {
    const relays = Array.from({ length: 1_000 }, (_, index) => relay(`r${index}`))
    const system = yield* one(relays.map(({ spec }) => spec))
    const route = relays.slice(1).map(({ key }) => key.name)
    expect(yield* system.ref(relays[0]?.key as ActorKey<RelayRpcs>).ask("Pass", { to: route })).toBe(5_000)
  })
)
