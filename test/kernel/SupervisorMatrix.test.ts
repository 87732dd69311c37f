import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { Backoff, ChildSpec, Supervisor } from "../../src/kernel/index.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import { type Birth, puppet } from "./support.ts"

const strategies = ["one-for-one", "one-for-all", "rest-for-one"] as const
const restarts = ["permanent", "transient", "temporary"] as const
type Restart = (typeof restarts)[number]
type Strategy = (typeof strategies)[number]

/** How the subject dies, and how the lives after that death begin. */
const deaths: ReadonlyArray<{
  readonly name: string
  readonly manner: "normal" | "defect" | "interrupt"
  readonly births: ReadonlyArray<Birth>
}> = [
  { name: "ends normally", manner: "normal", births: [] },
  { name: "dies of a defect", manner: "defect", births: [] },
  { name: "interrupts itself", manner: "interrupt", births: [] },
  { name: "dies, and its next factory fails", manner: "defect", births: ["well", "fails"] },
  { name: "dies, and its next factory dies", manner: "defect", births: ["well", "dies"] },
  { name: "dies, and hangs while restarting", manner: "defect", births: ["well", "hangs"] },
  {
    name: "dies, and hangs deaf to interruption while restarting",
    manner: "defect",
    births: ["well", "hangs deaf"]
  }
]

const comesBack = (restart: Restart, manner: "normal" | "defect" | "interrupt"): boolean =>
  restart === "permanent" || (restart === "transient" && manner !== "normal")

/** Who shares the subject's fate, besides itself. */
const shares = (strategy: Strategy): { readonly before: boolean; readonly after: boolean } => ({
  before: strategy === "one-for-all",
  after: strategy !== "one-for-one"
})

const setUp = (strategy: Strategy, restart: Restart, births: ReadonlyArray<Birth>) =>
  Effect.gen(function* () {
    const before = puppet("before")
    const subject = puppet("subject", births)
    const after = puppet("after")
    const bystander = puppet("bystander")
    const family = Supervisor.spec({
      id: "family",
      strategy,
      backoff: Backoff.none,
      children: [
        ChildSpec.make(before),
        ChildSpec.make({ ...subject, restart, startTimeoutMs: 2_000 }),
        ChildSpec.make(after)
      ]
    })
    const root = Supervisor.spec({
      id: "root",
      strategy: "one-for-one",
      children: [ChildSpec.make(bystander), family]
    })
    const system = yield* TestKit.make({ root, interruptGraceMs: 100 })
    return { system, before, subject, after, bystander }
  })

for (const strategy of strategies) {
  for (const restart of restarts) {
    for (const death of deaths) {
      it.effect(`${strategy}: a ${restart} child ${death.name}`, () =>
        Effect.gen(function* () {
          const { system, before, subject, after, bystander } = yield* setUp(strategy, restart, death.births)
          const back = comesBack(restart, death.manner)
          const shared = shares(strategy)

          yield* system.ref(subject.key).tell("Die", { manner: death.manner })
          const queued = yield* Effect.forkChild(
            system.ref(subject.key).ask("Ping", undefined, { timeoutMs: 60_000 })
          )
          yield* TestKit.settle
          // Whatever happens to the family, others go on at once: no time has passed yet.
          expect(yield* system.ref(bystander.key).ask("Ping")).toBe(1)
          if (strategy === "one-for-one") {
            expect(yield* system.ref(before.key).ask("Ping")).toBe(1)
            expect(yield* system.ref(after.key).ask("Ping")).toBe(1)
          }
          yield* TestClock.adjust(5_000)
          yield* TestKit.settle

          const births = death.births.length === 0 ? 2 : 3
          const result = yield* Effect.result(system.ref(subject.key).ask("Ping"))
          const waited = queued.pollUnsafe()
          if (back) {
            expect(result).toMatchObject({ _tag: "Success", success: births })
            // The message sent before the death was over waited in the mailbox for the life that could answer it.
            expect(waited).toMatchObject({ _tag: "Success", value: births })
          } else {
            expect(result).toMatchObject({ _tag: "Failure", failure: { _tag: "Stopped" } })
            expect(waited).toMatchObject({ _tag: "Failure" })
          }
          expect(subject.lives).toBe(back ? births : 1)
          expect(before.lives).toBe(back && shared.before ? 2 : 1)
          expect(after.lives).toBe(back && shared.after ? 2 : 1)
          expect(bystander.lives).toBe(1)
          const isDeaf = death.births.includes("hangs deaf") && back
          expect(subject.closed).toBe(back ? births - 1 : 1)
          const report = yield* system.inspect()
          expect(report.fenced_now).toBe(isDeaf ? 1 : 0)
          expect(report.root.children[1]?.state).toBe("running")
        })
      )
    }
  }
}

it.effect("a temporary child is not started again when a sibling's death takes it down", () =>
  Effect.gen(function* () {
    const first = puppet("first")
    const guest = puppet("guest")
    const root = Supervisor.spec({
      id: "root",
      strategy: "one-for-all",
      backoff: Backoff.none,
      children: [ChildSpec.make(first), ChildSpec.make({ ...guest, restart: "temporary" })]
    })
    const system = yield* TestKit.make({ root })
    yield* system.ref(first.key).tell("Die", { manner: "defect" })
    yield* TestKit.until(() => first.lives === 2)
    yield* TestKit.settle
    expect(guest).toMatchObject({ lives: 1, closed: 1 })
    expect(yield* Effect.flip(system.ref(guest.key).ask("Ping"))).toMatchObject({ _tag: "Stopped" })
  })
)

it.effect("children start in order and stop in the reverse order, in a group restart too", () =>
  Effect.gen(function* () {
    const log: Array<string> = []
    const [a, b, c] = [puppet("a", [], log), puppet("b", [], log), puppet("c", [], log)]
    const root = Supervisor.spec({
      id: "root",
      strategy: "rest-for-one",
      backoff: Backoff.none,
      children: [ChildSpec.make(a), ChildSpec.make(b), ChildSpec.make(c)]
    })
    const system = yield* TestKit.make({ root })
    yield* system.ref(b.key).tell("Die", { manner: "defect" })
    yield* TestKit.until(() => c.lives === 2)
    yield* TestKit.settle
    yield* system.stop
    expect(log).toEqual([
      "a started",
      "b started",
      "c started",
      "b closed",
      "c closed",
      "b started",
      "c started",
      "c closed",
      "b closed",
      "a closed"
    ])
  })
)

it.effect("a sibling that crashes while the group is being stopped comes back with the group, once", () =>
  Effect.gen(function* () {
    const [a, b, slow] = [puppet("a"), puppet("b"), puppet("slow")]
    const root = Supervisor.spec({
      id: "root",
      strategy: "one-for-all",
      backoff: Backoff.none,
      children: [ChildSpec.make(a), ChildSpec.make(b), ChildSpec.make(slow)]
    })
    const system = yield* TestKit.make({ root })
    yield* system.ref(slow.key).tell("Sleep", { ms: 1_000 })
    yield* system.ref(a.key).tell("Die", { manner: "defect" })
    yield* TestKit.settle
    // The group waits for the slow one; b still lives, and dies of itself.
    yield* system.ref(b.key).tell("Die", { manner: "defect" })
    yield* TestKit.until(() => b.closed === 1)
    yield* TestClock.adjust(1_000)
    yield* TestKit.settle
    expect([a.lives, b.lives, slow.lives]).toEqual([2, 2, 2])
    expect(yield* system.ref(b.key).ask("Ping")).toBe(2)
  })
)

it.effect("siblings that crash while a group restarts are taken along, once", () =>
  Effect.gen(function* () {
    const a = puppet("a")
    const b = puppet("b", ["well", "hangs"])
    const root = Supervisor.spec({
      id: "root",
      strategy: "one-for-all",
      backoff: Backoff.none,
      children: [ChildSpec.make(a), ChildSpec.make({ ...b, startTimeoutMs: 1_000 })]
    })
    const system = yield* TestKit.make({ root })
    yield* system.ref(b.key).tell("Die", { manner: "defect" })
    yield* TestKit.until(() => b.lives === 2)
    // Now a is up in its second life and b hangs; a crashes during the procedure.
    yield* system.ref(a.key).tell("Die", { manner: "defect" })
    yield* TestClock.adjust(1_000)
    yield* TestKit.settle
    expect(yield* system.ref(a.key).ask("Ping")).toBe(3)
    expect(yield* system.ref(b.key).ask("Ping")).toBe(4)
  })
)
