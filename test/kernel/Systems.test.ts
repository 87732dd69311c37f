import { expect, it } from "@effect/vitest"
import { Effect, Metric, Schema } from "effect"
import { TestClock } from "effect/testing"
import {
  ActorKey,
  ActorSystem,
  Backoff,
  ChildSpec,
  DynamicKey,
  renderAge,
  renderInspection,
  Supervisor,
  SystemInspection
} from "../../src/kernel/index.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import { PuppetProtocol, puppet } from "./support.ts"

it.effect("two systems in one process share nothing", () =>
  Effect.gen(function* () {
    const tree = () => {
      const actor = puppet("actor")
      const root = Supervisor.spec({
        id: "root",
        strategy: "one-for-one",
        intensity: 0,
        children: [ChildSpec.make(actor)]
      })
      return { actor, root }
    }
    const [left, right] = [tree(), tree()]
    const one = yield* TestKit.make({ root: left.root, name: "one" })
    const two = yield* TestKit.make({ root: right.root, name: "two" })
    // The same key, one name: each system binds it to its own actor.
    expect(yield* one.ref(left.actor.key).ask("Ping")).toBe(1)
    expect(right.actor.handled).toEqual([])
    yield* one.ref(left.actor.key).tell("Die", { manner: "defect" })
    expect(yield* one.terminated).toMatchObject({ _tag: "GaveUp" })
    expect(yield* two.ref(left.actor.key).ask("Ping")).toBe(1)
    expect(right.actor).toMatchObject({ lives: 1, handled: ["Ping"] })
    expect(two.totals).toMatchObject({ handled: 1, crashes: 0, restarts: 0 })
    expect(two.deadLetters.total).toBe(0)
  })
)

it.effect("a trace that throws harms nobody", () =>
  Effect.gen(function* () {
    const actor = puppet("actor")
    const root = Supervisor.spec({
      id: "root",
      strategy: "one-for-one",
      backoff: Backoff.none,
      children: [ChildSpec.make(actor)]
    })
    const trace = () => {
      throw new Error("no paper left")
    }
    const system = yield* TestKit.make({ root, trace })
    yield* system.ref(actor.key).tell("Die", { manner: "defect" })
    expect(yield* system.ref(actor.key).ask("Ping")).toBe(2)
    const late = yield* Effect.forkChild(
      Effect.flip(system.ref(actor.key).ask("Sleep", { ms: 50 }, { timeoutMs: 10 }))
    )
    yield* TestClock.adjust(10)
    expect(late.pollUnsafe()).toMatchObject({ _tag: "Success", value: { _tag: "AskTimeout" } })
    yield* TestClock.adjust(50)
    expect(yield* system.ref(actor.key).ask("Ping")).toBe(2)
  })
)

it.effect("one tree of specifications can be run many times over", () =>
  Effect.gen(function* () {
    const actor = puppet("actor")
    const root = Supervisor.spec({ id: "root", strategy: "one-for-one", children: [ChildSpec.make(actor)] })
    const systems = yield* Effect.forEach(Array.from({ length: 20 }), () => TestKit.make({ root }))
    for (const [index, system] of systems.entries()) {
      expect(yield* system.ref(actor.key).ask("Ping")).toBe(index + 1)
    }
  })
)

it.effect("a bad specification fails by name before anything starts", () =>
  Effect.gen(function* () {
    const actor = puppet("actor")
    const twin = puppet("actor")
    const bad = (children: Parameters<typeof Supervisor.spec>[0]["children"], id = "root") =>
      Effect.flip(ActorSystem.make({ root: Supervisor.spec({ id, strategy: "one-for-one", children }) }))
    expect(yield* bad([ChildSpec.make({ ...actor, shutdownMs: -1 })])).toMatchObject({
      _tag: "BadSpec",
      name: "/root/actor"
    })
    const capacity = yield* bad([ChildSpec.make({ ...actor, mailbox: { capacity: 0 } })])
    expect(capacity.message).toContain("bad child specification /root/actor")
    expect(capacity.message).toContain("capacity")
    expect((yield* bad([], "no/slashes")).message).toContain("/no/slashes")
    expect((yield* bad([ChildSpec.make({ behaviour: actor.behaviour })])).message).toContain("/root/:")
    expect((yield* bad([ChildSpec.make(actor), ChildSpec.make({ ...twin, id: "twin" })])).message).toContain(
      "the key actor is already bound to /root/actor"
    )
    const same = ChildSpec.make({ id: "same", behaviour: actor.behaviour })
    expect((yield* bad([same, same])).message).toContain("two children have the id same")
    const inner = Supervisor.spec({ id: "inner", strategy: "one-for-one", intensity: -3, children: [] })
    expect(yield* bad([inner])).toMatchObject({ name: "/root/inner" })
    const jitter = Supervisor.spec({
      id: "inner",
      strategy: "one-for-one",
      backoff: { jitter: 2 },
      children: []
    })
    expect((yield* bad([jitter])).message).toContain("jitter")
    expect(actor.lives).toBe(0)
  })
)

it("a tree of specifications prints as data", () => {
  const Devices = DynamicKey.make("devices", PuppetProtocol)
  const actor = puppet("actor")
  const root = Supervisor.spec({
    id: "root",
    strategy: "rest-for-one",
    backoff: Backoff.none,
    children: [
      ChildSpec.make(actor),
      Supervisor.dynamic({
        key: Devices,
        maximum: 7,
        child: (id) => ChildSpec.make({ id, behaviour: actor.behaviour })
      })
    ]
  })
  expect(JSON.parse(JSON.stringify(ChildSpec.describe(root)))).toMatchObject({
    id: "root",
    strategy: "rest-for-one",
    intensity: 3,
    children: [
      { id: "actor", key: "actor", restart: "permanent", mailbox: { capacity: 1_024, overflow: "reject" } },
      { id: "devices", key: "devices", maximum: 7 }
    ]
  })
})

it.effect("inspection is data that survives its wire, and a table for people", () =>
  Effect.gen(function* () {
    const first = puppet("first")
    const second = puppet("second")
    const root = Supervisor.spec({
      id: "client",
      strategy: "rest-for-one",
      backoff: Backoff.none,
      children: [
        Supervisor.spec({
          id: "vital",
          strategy: "one-for-one",
          backoff: Backoff.none,
          children: [ChildSpec.make(first)]
        }),
        ChildSpec.make(second)
      ]
    })
    const system = yield* TestKit.make({ root })
    yield* TestClock.adjust(90_000)
    yield* system.ref(first.key).ask("Ping")
    yield* system.ref(first.key).tell("Die", { manner: "defect" })
    yield* TestKit.settle
    yield* TestClock.adjust(30_000)
    yield* system.ref(second.key).tell("Sleep", { ms: 1_000 })
    yield* system.ref(second.key).tell("Ping")
    yield* Effect.flip(system.ref(ActorKey.make("nobody", PuppetProtocol)).tell("Ping"))
    yield* TestKit.settle
    const report = yield* system.inspect()
    const wire = JSON.stringify(yield* Schema.encodeEffect(SystemInspection)(report))
    expect(yield* Schema.decodeUnknownEffect(SystemInspection)(JSON.parse(wire))).toEqual(report)
    expect(report.latest_dead_letters).toEqual([
      { path: "?nobody", tag: "Ping", reason: "not-found", at_ms: 120_000 }
    ])
    expect(renderInspection(report).split("\n")).toEqual([
      "ACTOR      STATE    AGE  MAILBOX  HANDLED  RESTARTS  LAST FAILURE",
      "client     running  2m   -        -        0",
      "├ vital    running  2m   -        -        0",
      "│ └ first  running  30s  0/1024   1        1         Error: told to die",
      "└ second   running  2m   1/1024   0        0",
      "",
      "client: up 2m, 1 dead letters (1 not-found), 0 abandoned lives"
    ])
  })
)

it("ages are short and control characters are not printed", () => {
  expect([0, 999, 1_000, 119_999, 120_000, 7_200_000, 172_800_000].map(renderAge)).toEqual([
    "0ms",
    "999ms",
    "1s",
    "119s",
    "2m",
    "2h",
    "2d"
  ])
  expect(renderAge(null)).toBe("-")
})

it.effect("inspection of many children is bounded, and says how many it left out", () =>
  Effect.gen(function* () {
    const actor = puppet("actor")
    const Devices = DynamicKey.make("devices", PuppetProtocol)
    const root = Supervisor.dynamic({
      key: Devices,
      child: (id) => ChildSpec.make({ id, behaviour: actor.behaviour })
    })
    const system = yield* TestKit.make({ root })
    for (let id = 0; id < 30; id++) {
      yield* system.refOf(Devices, `d${id}`).ask("Ping")
    }
    const report = yield* system.inspect(10)
    expect(report.root.children.length).toBe(10)
    expect(report.root.child_count).toBe(30)
    expect(renderInspection(report)).toContain("20 more")
  })
)

it.effect("a system publishes its figures as Effect metrics", () =>
  Effect.gen(function* () {
    const actor = puppet("actor")
    const root = Supervisor.spec({
      id: "metered",
      strategy: "one-for-one",
      children: [ChildSpec.make(actor)]
    })
    const system = yield* TestKit.make({ root })
    yield* system.ref(actor.key).ask("Ping")
    yield* system.ref(actor.key).ask("Ping")
    yield* system.publishMetrics
    yield* system.ref(actor.key).ask("Ping")
    yield* system.publishMetrics
    const all = yield* Metric.snapshot
    const figure = (name: string) =>
      all.find((metric) => metric.id === name && metric.attributes?.["system"] === "metered")
    expect(figure("postern_messages_handled_total")?.state).toMatchObject({ count: 3 })
    expect(figure("postern_fenced_lives")?.state).toMatchObject({ value: 0 })
  })
)

it.effect("the address of a name nobody is bound to says so", () =>
  Effect.gen(function* () {
    const actor = puppet("actor")
    const system = yield* TestKit.make({
      root: Supervisor.spec({ id: "root", strategy: "one-for-one", children: [ChildSpec.make(actor)] })
    })
    const nobody = system.ref(ActorKey.make("nobody", PuppetProtocol))
    expect(nobody.path).toBe("?nobody")
    const error = yield* Effect.flip(nobody.ask("Ping"))
    expect(error).toMatchObject({ _tag: "NotFound", path: "?nobody", tag: "Ping" })
    expect(error.message).toBe(
      "no actor is bound to ?nobody: Ping was not delivered; check the tree of this program"
    )
    expect(system.deadLetters.counts["not-found"]).toBe(1)
  })
)
