import { expect, it } from "@effect/vitest"
import { Effect, Random } from "effect"
import { TestClock } from "effect/testing"
import {
  Backoff,
  ChildSpec,
  renderInspection,
  Supervisor,
  type SupervisorSpec,
  type TraceEvent
} from "../../src/kernel/index.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import { type Birth, puppet } from "./support.ts"

const nested = (levels: number, intensity: number, child: ReturnType<typeof puppet>): SupervisorSpec => {
  const inner =
    levels === 1 ? ChildSpec.make(child) : (nested(levels - 1, intensity, child) as SupervisorSpec)
  return Supervisor.spec({
    id: `level-${levels}`,
    strategy: "one-for-one",
    intensity,
    periodMs: 3_600_000,
    backoff: Backoff.none,
    children: [inner]
  })
}

it.effect("restart intensity multiplies over levels: 3 lives under 3 lives are 9", () =>
  Effect.gen(function* () {
    const births: Array<Birth> = ["well", ...Array.from({ length: 50 }, (): Birth => "dies")]
    const child = puppet("child", births)
    const system = yield* TestKit.make({ root: nested(2, 2, child) })
    yield* system.ref(child.key).tell("Die", { manner: "defect" })
    expect(yield* system.terminated).toMatchObject({ _tag: "GaveUp" })
    expect(child.lives).toBe(9)
    expect(yield* Effect.flip(system.ref(child.key).ask("Ping"))).toMatchObject({ _tag: "Stopped" })
  })
)

it.effect("over three levels they are 27", () =>
  Effect.gen(function* () {
    const child = puppet("child", ["well", ...Array.from({ length: 50 }, (): Birth => "fails")])
    const system = yield* TestKit.make({ root: nested(3, 2, child) })
    yield* system.ref(child.key).tell("Die", { manner: "defect" })
    yield* system.terminated
    expect(child.lives).toBe(27)
  })
)

it.effect("a supervisor that is started again starts all its children, those that had ended too", () =>
  Effect.gen(function* () {
    const [guest, vital] = [puppet("guest"), puppet("vital")]
    const inner = Supervisor.spec({
      id: "inner",
      strategy: "one-for-one",
      intensity: 0,
      children: [ChildSpec.make({ ...guest, restart: "temporary" }), ChildSpec.make(vital)]
    })
    const root = Supervisor.spec({
      id: "root",
      strategy: "one-for-one",
      backoff: Backoff.none,
      children: [inner]
    })
    const system = yield* TestKit.make({ root })
    yield* system.ref(guest.key).tell("Die", { manner: "defect" })
    yield* TestKit.settle
    expect(yield* Effect.flip(system.ref(guest.key).ask("Ping"))).toMatchObject({ _tag: "Stopped" })
    yield* system.ref(vital.key).tell("Die", { manner: "defect" })
    yield* TestKit.settle
    expect(yield* system.ref(vital.key).ask("Ping")).toBe(2)
    expect(yield* system.ref(guest.key).ask("Ping")).toBe(2)
  })
)

it.effect("failures further apart than the period never add up", () =>
  Effect.gen(function* () {
    const child = puppet("child")
    const root = Supervisor.spec({
      id: "root",
      strategy: "one-for-one",
      intensity: 1,
      periodMs: 10_000,
      backoff: Backoff.none,
      children: [ChildSpec.make(child)]
    })
    const system = yield* TestKit.make({ root })
    for (let round = 1; round <= 20; round++) {
      yield* system.ref(child.key).tell("Die", { manner: "defect" })
      yield* TestClock.adjust(10_001)
      expect(yield* system.ref(child.key).ask("Ping")).toBe(round + 1)
    }
  })
)

it.effect("a tree whose vital part cannot start fails to start, by name, and leaves nothing running", () =>
  Effect.gen(function* () {
    const good = puppet("good")
    const bad = puppet(
      "bad",
      Array.from({ length: 50 }, (): Birth => "fails")
    )
    const root = Supervisor.spec({
      id: "root",
      strategy: "rest-for-one",
      backoff: Backoff.none,
      children: [ChildSpec.make(good), ChildSpec.make(bad)]
    })
    const error = yield* Effect.flip(TestKit.make({ root }))
    expect(error).toMatchObject({ _tag: "StartFailed", path: "/root" })
    expect(error.message).toContain("/root/bad failed more than 3 times")
    expect(bad.lives).toBe(4)
    expect(good).toMatchObject({ lives: 1, closed: 1 })
  })
)

it.effect("back-off delays grow, are bounded, and come out equal for equal seeds", () =>
  Effect.gen(function* () {
    const spec = { firstMs: 100, factor: 2, maximumMs: 1_000, jitter: 0.5 }
    const plain = Backoff.delays({ ...spec, jitter: 0 }, () => 0.5)
    expect(plain.slice(0, 6)).toEqual([100, 200, 400, 800, 1_000, 1_000])
    const one = yield* Backoff.sample(spec).pipe(Random.withSeed("a"))
    const same = yield* Backoff.sample(spec).pipe(Random.withSeed("a"))
    const other = yield* Backoff.sample(spec).pipe(Random.withSeed("b"))
    expect(same).toEqual(one)
    expect(other).not.toEqual(one)
    one.forEach((delay, attempt) => {
      expect(delay).toBeLessThanOrEqual(plain[attempt] as number)
      expect(delay).toBeGreaterThanOrEqual((plain[attempt] as number) * 0.5 - 1)
    })
  })
)

it.effect("attempts follow the back-off in virtual time", () =>
  Effect.gen(function* () {
    const trace: Array<TraceEvent> = []
    const child = puppet("child", ["well", "fails", "fails", "fails"])
    const root = Supervisor.spec({
      id: "root",
      strategy: "one-for-one",
      intensity: 10,
      backoff: { firstMs: 100, factor: 3, maximumMs: 500, jitter: 0 },
      children: [ChildSpec.make(child)]
    })
    const system = yield* TestKit.make({ root, trace: (event) => trace.push(event) })
    yield* system.ref(child.key).tell("Die", { manner: "defect" })
    yield* TestClock.adjust(10_000)
    const births = trace.filter((event) => event.outcome === "started" || event.outcome === "start-failed")
    expect(births.map((event) => event.atMs)).toEqual([0, 100, 400, 900, 1_400])
  })
)

it.effect("a life longer than the period ends a row of failures: the back-off begins anew", () =>
  Effect.gen(function* () {
    const trace: Array<TraceEvent> = []
    const child = puppet("child", ["well", "dies", "dies"])
    const root = Supervisor.spec({
      id: "root",
      strategy: "one-for-one",
      intensity: 10,
      periodMs: 10_000,
      backoff: { firstMs: 100, factor: 10, maximumMs: 10_000, jitter: 0 },
      children: [ChildSpec.make(child)]
    })
    const system = yield* TestKit.make({ root, trace: (event) => trace.push(event) })
    const starts = () => trace.filter((event) => event.outcome === "started").map((event) => event.atMs)
    yield* system.ref(child.key).tell("Die", { manner: "defect" })
    yield* TestClock.adjust(15_000)
    expect(starts()).toEqual([0, 100 + 1_000 + 10_000])
    yield* TestClock.adjust(11_000)
    yield* system.ref(child.key).tell("Die", { manner: "defect" })
    yield* TestClock.adjust(200)
    expect(starts()[2]).toBe(26_100)
    // This life was short: the row goes on.
    yield* system.ref(child.key).tell("Die", { manner: "defect" })
    yield* TestClock.adjust(5_000)
    expect(starts()[3]).toBe(27_200)
  })
)

it.effect("a permanently failing optional child leaves the main loop untouched over 24 virtual hours", () =>
  Effect.gen(function* () {
    const main = puppet("main-loop")
    const neighbour = puppet("neighbour")
    const broken = puppet(
      "broken",
      Array.from({ length: 10_000 }, (_, n): Birth => (n % 3 === 0 ? "hangs" : "dies"))
    )
    const root = Supervisor.spec({
      id: "client",
      strategy: "rest-for-one",
      children: [
        Supervisor.spec({ id: "vital", strategy: "rest-for-one", children: [ChildSpec.make(main)] }),
        Supervisor.spec({
          id: "optional",
          strategy: "one-for-one",
          optional: true,
          children: [ChildSpec.make({ ...broken, startTimeoutMs: 1_000 }), ChildSpec.make(neighbour)]
        })
      ]
    })
    const system = yield* Effect.forkChild(TestKit.make({ root }))
    yield* TestClock.adjust(2_000)
    const running = yield* Effect.flatten(
      Effect.sync(() => system.pollUnsafe() ?? Effect.die("still starting"))
    )
    let pings = 0
    for (let minute = 0; minute < 24 * 60; minute++) {
      yield* TestClock.adjust(60_000)
      expect(yield* running.ref(main.key).ask("Ping")).toBe(1)
      pings++
    }
    expect(yield* running.ref(neighbour.key).ask("Ping")).toBe(1)
    expect(main.handled.length).toBe(pings)
    // With degraded back-off up to 10 minutes: some 150 attempts in a day, neither thousands nor none.
    expect(broken.lives).toBeGreaterThan(120)
    expect(broken.lives).toBeLessThan(400)
    const report = yield* running.inspect()
    expect(report.root.state).toBe("running")
    expect(report.root.children[1]).toMatchObject({ state: "degraded" })
    expect(renderInspection(report)).toMatch(/broken\s+(degraded|starting)/)
    expect((yield* running.inspect()).root.children[0]?.restarts).toBe(0)
  })
)

it.effect("an optional group degrades as a whole and comes back when its cause has gone", () =>
  Effect.gen(function* () {
    const births: Array<Birth> = ["well", ...Array.from({ length: 6 }, (): Birth => "dies")]
    const first = puppet("first", births)
    const second = puppet("second")
    const root = Supervisor.spec({
      id: "root",
      strategy: "one-for-one",
      children: [
        Supervisor.spec({
          id: "part",
          strategy: "one-for-all",
          optional: true,
          intensity: 2,
          backoff: Backoff.none,
          degradedBackoff: { firstMs: 60_000, jitter: 0, factor: 1 },
          children: [ChildSpec.make(first), ChildSpec.make(second)]
        })
      ]
    })
    const system = yield* TestKit.make({ root })
    const state = Effect.map(system.inspect(), (report) => report.root.children[0]?.state)
    yield* system.ref(first.key).tell("Die", { manner: "defect" })
    yield* TestKit.until(() => first.lives === 3)
    yield* TestKit.settle
    expect(yield* state).toBe("degraded")
    yield* TestClock.adjust(60_000 * 5)
    yield* TestKit.settle
    expect(yield* system.ref(first.key).ask("Ping")).toBe(8)
    expect(yield* system.ref(second.key).ask("Ping")).toBe(2)
    expect(yield* state).toBe("running")
  })
)
