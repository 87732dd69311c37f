import { expect, it } from "@effect/vitest"
import { Effect, Exit, Logger, Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { TestClock } from "effect/testing"
import { ActorKey, ActorSystem, Behaviour, ChildSpec, Supervisor } from "../../src/kernel/index.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import { puppet } from "./support.ts"

const StoreProtocol = RpcGroup.make(
  Rpc.make("Put", { payload: { name: Schema.String } }),
  Rpc.make("Get", { payload: { name: Schema.String }, success: Schema.String, error: Schema.String })
)
const Store = ActorKey.make("store", StoreProtocol)

const ClientProtocol = RpcGroup.make(Rpc.make("Go", { success: Schema.String }))
const client = Behaviour.make(ClientProtocol, (ctx) =>
  Effect.succeed(
    ctx.handlers({
      Go: (request) =>
        Effect.gen(function* () {
          yield* ctx.ref(Store).tell("Put", { name: "a" })
          return yield* request.ask(ctx.ref(Store), "Get", { name: "a" })
        }).pipe(Effect.catch((error) => Effect.succeed(String(error))))
    })
  )
)

it.effect("a behaviour alone speaks to a probe, which records and answers", () =>
  Effect.gen(function* () {
    const store = TestKit.probe(Store, {
      Get: ({ payload }) => (payload.name === "a" ? Effect.succeed("found") : Exit.fail("missing"))
    })
    const { ref, trace } = yield* TestKit.start(client, { beside: [store.spec] })
    expect(yield* ref.ask("Go")).toBe("found")
    expect(yield* store.receive(2)).toEqual([
      ["Put", { name: "a" }],
      ["Get", { name: "a" }]
    ])
    expect(trace.map(({ path, tag, outcome }) => `${path} ${tag} ${outcome}`)).toEqual([
      "/test/store  started",
      "/test/alone  started",
      "/test/store Put answered",
      "/test/store Get answered",
      "/test/alone Go answered"
    ])
  })
)

it.effect("waiting in vain is said, with what was waited for", () =>
  Effect.gen(function* () {
    const turns = yield* Effect.exit(TestKit.until(() => false, "a miracle"))
    expect(turns).toMatchObject({ _tag: "Failure" })
    expect(String(turns)).toContain("waited in vain for a miracle")
    const time = yield* Effect.exit(
      TestKit.advanceUntil(() => false, { stepMs: 10, limitMs: 50, what: "it" })
    )
    expect(String(time)).toContain("waited 50 ms in vain for it")
    yield* TestKit.advanceUntil(
      () =>
        Effect.map(
          Effect.clockWith((clock) => clock.currentTimeMillis),
          (now) => now >= 100
        ),
      {
        stepMs: 10,
        limitMs: 1_000
      }
    )
  })
)

it.effect("with spans on, a handler runs in a span named after its message", () =>
  Effect.gen(function* () {
    const SpanProtocol = RpcGroup.make(Rpc.make("Name", { success: Schema.String }))
    const Span = ActorKey.make("span", SpanProtocol)
    const behaviour = Behaviour.make(SpanProtocol, (ctx) =>
      Effect.succeed(
        ctx.handlers({
          Name: () =>
            Effect.orElseSucceed(
              Effect.map(Effect.currentSpan, ({ name }) => name),
              () => "none"
            )
        })
      )
    )
    const root = Supervisor.spec({
      id: "root",
      strategy: "one-for-one",
      children: [ChildSpec.make({ key: Span, behaviour })]
    })
    const on = yield* TestKit.make({ root, spans: true })
    const off = yield* TestKit.make({ root })
    expect(yield* on.ref(Span).ask("Name")).toBe("Name")
    expect(yield* off.ref(Span).ask("Name")).toBe("none")
  })
)

it.live("on the real clock, deadlines, restarts and the stop work as under TestClock", () =>
  Effect.gen(function* () {
    const actor = puppet("actor")
    const root = Supervisor.spec({
      id: "root",
      strategy: "one-for-one",
      backoff: { firstMs: 5 },
      children: [ChildSpec.make({ ...actor, shutdownMs: 20 })]
    })
    const system = yield* ActorSystem.make({ root, interruptGraceMs: 20 })
    const ref = system.ref(actor.key)
    expect(yield* Effect.flip(ref.ask("Sleep", { ms: 60_000 }, { timeoutMs: 20 }))).toMatchObject({
      _tag: "AskTimeout"
    })
    yield* system.restart(actor.key, "hangs")
    expect(yield* ref.ask("Ping")).toBe(2)
    yield* ref.tell("Deaf")
    yield* TestKit.settle
    yield* system.stop
    expect((yield* system.inspect()).fenced_now).toBe(1)
  }).pipe(Effect.scoped, Effect.provide(Logger.layer([])))
)

it.effect("a stop under TestClock passes the time that busy actors need", () =>
  Effect.gen(function* () {
    const before = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
    yield* Effect.scoped(
      Effect.gen(function* () {
        const actor = puppet("actor")
        const { ref } = yield* TestKit.start(actor.behaviour)
        yield* ref.tell("Deaf")
        yield* TestKit.settle
        yield* TestClock.adjust(1)
      })
    )
    const after = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
    expect(after - before).toBeGreaterThanOrEqual(6_000)
    expect(after - before).toBeLessThan(10_000)
  })
)
