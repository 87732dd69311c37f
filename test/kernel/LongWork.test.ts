import { expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { TestClock } from "effect/testing"
import { ActorKey, Behaviour, ChildSpec, Supervisor } from "../../src/kernel/index.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import { puppet } from "./support.ts"

const WorkerProtocol = RpcGroup.make(
  Rpc.make("Work", { payload: { ms: Schema.Finite, fails: Schema.Boolean } }),
  Rpc.make("Worked", { payload: { life: Schema.Int, outcome: Schema.String } }),
  Rpc.make("Outcomes", { success: Schema.Array(Schema.String) }),
  Rpc.make("Many", { payload: { count: Schema.Int } }),
  Rpc.make("Muddle"),
  Rpc.make("Die", { payload: { afterMs: Schema.Finite } })
)
const Worker = ActorKey.make("worker", WorkerProtocol)

const worker = (outcomes: Array<string>) =>
  Behaviour.make(WorkerProtocol, (ctx) =>
    Effect.succeed(
      ctx.handlers({
        Work: ({ payload }) =>
          ctx.startTask(
            Effect.andThen(
              Effect.sleep(payload.ms),
              payload.fails ? Effect.fail("no") : Effect.succeed("yes")
            ),
            (exit) => ["Worked", { life: ctx.life, outcome: Exit.isSuccess(exit) ? exit.value : "failed" }]
          ),
        Worked: ({ payload }) =>
          Effect.sync(() => {
            outcomes.push(`${payload.outcome} of life ${payload.life} in life ${ctx.life}`)
          }),
        Outcomes: () => Effect.sync(() => [...outcomes]),
        Many: ({ payload }) =>
          Effect.forEach(
            Array.from({ length: payload.count }),
            () =>
              ctx.startTask(Effect.sleep(10), () => ["Worked", { life: ctx.life, outcome: "one of many" }]),
            { discard: true }
          ),
        Muddle: () =>
          ctx.startTask(Effect.sleep(10), () => {
            throw new Error("muddled")
          }),
        Die: ({ payload }) => Effect.andThen(Effect.sleep(payload.afterMs), Effect.die(new Error("die")))
      })
    )
  )

const setUp = Effect.gen(function* () {
  const outcomes: Array<string> = []
  const child = ChildSpec.make({
    key: Worker,
    behaviour: worker(outcomes),
    mailbox: { capacity: 2, overflow: "reject" },
    maximumTasks: 10
  })
  const root = Supervisor.spec({
    id: "root",
    strategy: "one-for-one",
    backoff: { firstMs: 0 },
    children: [child]
  })
  const system = yield* TestKit.make({ root })
  return { system, ref: system.ref(Worker), outcomes }
})

it.effect("a task leaves the actor free, and its exit comes back as a message", () =>
  Effect.gen(function* () {
    const { ref, outcomes, system } = yield* setUp
    yield* ref.ask("Work", { ms: 60_000, fails: false })
    yield* ref.ask("Work", { ms: 30_000, fails: true })
    expect(yield* ref.ask("Outcomes")).toEqual([])
    expect((yield* system.inspect()).root.children[0]?.tasks).toBe(2)
    yield* TestClock.adjust(60_000)
    expect(outcomes).toEqual(["failed of life 1 in life 1", "yes of life 1 in life 1"])
    expect((yield* system.inspect()).root.children[0]?.tasks).toBe(0)
  })
)

it.effect("exits of tasks come back even when the mailbox is full", () =>
  Effect.gen(function* () {
    const { ref, outcomes } = yield* setUp
    yield* ref.ask("Many", { count: 10 })
    yield* TestClock.adjust(10)
    yield* TestKit.until(() => outcomes.length === 10)
  })
)

it.effect("more tasks than the bound are a defect", () =>
  Effect.gen(function* () {
    const { ref } = yield* setUp
    const error = yield* Effect.flip(ref.ask("Many", { count: 11 }))
    expect(error).toMatchObject({ _tag: "ActorCrashed" })
    expect(error.message).toContain("runs 10 tasks already")
  })
)

it.effect("a task ends with its life, and no other life hears of it", () =>
  Effect.gen(function* () {
    const { ref, outcomes } = yield* setUp
    yield* ref.ask("Work", { ms: 1_000, fails: false })
    yield* ref.tell("Die", { afterMs: 0 })
    yield* TestKit.settle
    yield* ref.ask("Work", { ms: 2_000, fails: false })
    yield* TestClock.adjust(10_000)
    expect(outcomes).toEqual(["yes of life 2 in life 2"])
  })
)

it.effect("an exit that waits in the mailbox when its life ends is a dead letter, not the next life's", () =>
  Effect.gen(function* () {
    const { ref, outcomes, system } = yield* setUp
    yield* ref.ask("Work", { ms: 1_000, fails: false })
    yield* ref.tell("Die", { afterMs: 2_000 })
    yield* TestClock.adjust(1_500)
    expect((yield* system.inspect()).root.children[0]?.mailbox?.depth).toBe(1)
    yield* TestClock.adjust(1_500)
    expect(yield* ref.ask("Outcomes")).toEqual([])
    expect(outcomes).toEqual([])
    expect(system.deadLetters.counts.stopped).toBe(1)
  })
)

it.effect("a crash while making the message of an exit is the actor's crash", () =>
  Effect.gen(function* () {
    const { ref, system } = yield* setUp
    yield* ref.ask("Muddle")
    yield* TestClock.adjust(10)
    yield* TestKit.settle
    const report = yield* system.inspect()
    expect(report.root.children[0]).toMatchObject({ restarts: 1, last_failure: { reason: "Error: muddled" } })
    expect(yield* ref.ask("Outcomes")).toEqual([])
  })
)

class Greeting extends Context.Service<Greeting, string>()("postern/test/Greeting") {}

const ParentProtocol = RpcGroup.make(
  Rpc.make("Spawn", { payload: { id: Schema.String }, success: Schema.String, error: Schema.String }),
  Rpc.make("Die"),
  Rpc.make("Greet", { success: Schema.String })
)
const Parent = ActorKey.make("parent", ParentProtocol)
const GreeterProtocol = RpcGroup.make(Rpc.make("Greet", { success: Schema.String }))

const greeter = Behaviour.make(GreeterProtocol, (ctx) =>
  Effect.gen(function* () {
    const greeting = yield* Greeting
    return ctx.handlers({ Greet: () => Effect.succeed(greeting) })
  })
)

const parent = (child: ReturnType<typeof puppet>) =>
  Behaviour.make(ParentProtocol, (ctx) =>
    Effect.succeed(
      ctx.handlers({
        Spawn: ({ payload }) =>
          ctx.spawn(ChildSpec.make({ id: payload.id, behaviour: child.behaviour, key: child.key })).pipe(
            Effect.map((ref) => ref.path),
            Effect.mapError((error) => error._tag)
          ),
        Die: () => Effect.die(new Error("die")),
        Greet: (request) =>
          ctx.spawn(ChildSpec.make({ id: "greeter", behaviour: greeter })).pipe(
            Effect.provideService(Greeting, "hello"),
            Effect.flatMap((ref) => request.ask(ref, "Greet")),
            Effect.orDie
          )
      })
    )
  )

const parentSystem = (child: ReturnType<typeof puppet>) =>
  TestKit.make({
    root: Supervisor.spec({
      id: "root",
      strategy: "one-for-one",
      backoff: { firstMs: 0 },
      children: [ChildSpec.make({ key: Parent, behaviour: parent(child) })]
    })
  })

it.effect(
  "a temporary child lives under its parent's life, is never restarted, and leaves its name free",
  () =>
    Effect.gen(function* () {
      const child = puppet("child")
      const system = yield* parentSystem(child)
      const ref = system.ref(Parent)
      expect(yield* Effect.flip(system.ref(child.key).ask("Ping"))).toMatchObject({ _tag: "NotFound" })
      expect(yield* ref.ask("Spawn", { id: "helper" })).toBe("/root/parent/helper")
      expect(yield* Effect.flip(ref.ask("Spawn", { id: "helper" }))).toBe("BadSpec")
      expect(yield* system.ref(child.key).ask("Ping")).toBe(1)
      expect((yield* system.inspect()).root.children[0]?.children[0]).toMatchObject({
        id: "helper",
        state: "running"
      })
      yield* system.ref(child.key).tell("Die", { manner: "defect" })
      yield* TestKit.settle
      expect(yield* Effect.flip(system.ref(child.key).ask("Ping"))).toMatchObject({ _tag: "NotFound" })
      expect(yield* ref.ask("Spawn", { id: "helper" })).toBe("/root/parent/helper")
      yield* ref.tell("Die")
      yield* TestKit.settle
      expect(child).toMatchObject({ lives: 2, closed: 2 })
      expect(yield* Effect.flip(system.ref(child.key).ask("Ping"))).toMatchObject({ _tag: "NotFound" })
      expect((yield* system.inspect()).root.children[0]).toMatchObject({ restarts: 1, child_count: 0 })
    })
)

it.effect("temporary children end before their parent's Scope, the youngest first", () =>
  Effect.gen(function* () {
    const log: Array<string> = []
    const [elder, younger] = [puppet("elder", [], log), puppet("younger", [], log)]
    const behaviour = Behaviour.make(GreeterProtocol, (ctx) =>
      Effect.gen(function* () {
        yield* Effect.addFinalizer(() => Effect.sync(() => log.push("parent closed")))
        yield* Effect.orDie(ctx.spawn(ChildSpec.make(elder)))
        yield* Effect.orDie(ctx.spawn(ChildSpec.make(younger)))
        return ctx.handlers({ Greet: () => Effect.succeed("hello") })
      })
    )
    const { system } = yield* TestKit.start(behaviour)
    yield* system.stop
    expect(log).toEqual([
      "elder started",
      "younger started",
      "younger closed",
      "elder closed",
      "parent closed"
    ])
  })
)

it.effect("temporary children of an abandoned life are stopped all the same", () =>
  Effect.gen(function* () {
    const child = puppet("child")
    const behaviour = Behaviour.make(GreeterProtocol, (ctx) =>
      Effect.gen(function* () {
        yield* Effect.orDie(ctx.spawn(ChildSpec.make({ ...child, key: undefined, id: `child-${ctx.life}` })))
        return ctx.handlers({ Greet: () => Effect.uninterruptible(Effect.never) })
      })
    )
    const alone = yield* TestKit.start(behaviour)
    yield* alone.ref.tell("Greet")
    yield* TestKit.settle
    yield* alone.system.restart({ _tag: "ActorKey", name: "alone", protocol: GreeterProtocol }, "hangs")
    yield* TestClock.adjust(1_000)
    yield* TestKit.settle
    expect(yield* alone.system.inspect()).toMatchObject({ fenced_now: 1 })
    expect(child).toMatchObject({ lives: 2, closed: 1 })
  })
)

it.effect("a temporary child that cannot start is the spawner's typed error", () =>
  Effect.gen(function* () {
    const system = yield* parentSystem(puppet("child", ["fails", "dies", "hangs"]))
    const ref = system.ref(Parent)
    expect(yield* Effect.flip(ref.ask("Spawn", { id: "one" }))).toBe("StartFailed")
    expect(yield* Effect.flip(ref.ask("Spawn", { id: "two" }))).toBe("StartFailed")
    const hanging = yield* Effect.forkChild(
      Effect.flip(ref.ask("Spawn", { id: "three" }, { timeoutMs: 60_000 }))
    )
    yield* TestClock.adjust(6_000)
    expect(yield* Fiber.join(hanging)).toBe("StartFailed")
    expect(yield* Effect.flip(ref.ask("Spawn", { id: "a/b" }))).toBe("BadSpec")
  })
)

it.effect("a temporary child may use a service that only its parent's handler was given", () =>
  Effect.gen(function* () {
    const system = yield* parentSystem(puppet("child"))
    expect(yield* system.ref(Parent).ask("Greet")).toBe("hello")
  })
)
