import { expect, it } from "@effect/vitest"
import { Effect, Fiber, Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { TestClock } from "effect/testing"
import { Behaviour, ChildSpec, DynamicKey, Supervisor } from "../../src/kernel/index.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import { puppet } from "./support.ts"

const DeviceProtocol = RpcGroup.make(
  Rpc.make("Add", { payload: { amount: Schema.Int }, success: Schema.Int }),
  Rpc.make("Crash"),
  Rpc.make("End"),
  Rpc.make("Work", { payload: { ms: Schema.Finite } }),
  Rpc.make("Worked")
)
const Device = DynamicKey.make("devices", DeviceProtocol)

/** Counts what it is given; `lives` has one line per life and id, `sums` the total handled over all lives. */
const setUp = (options: {
  readonly maximum?: number
  readonly passivateAfterMs?: number
  readonly closeMs?: number
  readonly stillborn?: (id: string) => boolean
}) =>
  Effect.gen(function* () {
    const lives: Array<string> = []
    const sums = new Map<string, number>()
    const device = (id: string) =>
      Behaviour.make(DeviceProtocol, (ctx) =>
        Effect.gen(function* () {
          lives.push(id)
          if (options.stillborn?.(id) === true) {
            return yield* Effect.fail("stillborn")
          }
          yield* Effect.addFinalizer(() => Effect.sleep(options.closeMs ?? 0))
          return ctx.handlers({
            Add: ({ payload }) =>
              Effect.sync(() => {
                const sum = (sums.get(id) ?? 0) + payload.amount
                sums.set(id, sum)
                return sum
              }),
            Crash: () => Effect.die(new Error("crash")),
            End: () => ctx.stopSelf,
            Work: ({ payload }) => ctx.startTask(Effect.sleep(payload.ms), () => ["Worked"]),
            Worked: () => Effect.void
          })
        })
      )
    const bystander = puppet("bystander")
    const root = Supervisor.spec({
      id: "root",
      strategy: "one-for-one",
      children: [
        ChildSpec.make(bystander),
        Supervisor.dynamic({
          key: Device,
          maximum: options.maximum,
          passivateAfterMs: options.passivateAfterMs,
          backoff: { firstMs: 100, factor: 1, jitter: 0 },
          degradedBackoff: { firstMs: 60_000, factor: 1, jitter: 0 },
          child: (id) => ChildSpec.make({ id, behaviour: device(id) })
        })
      ]
    })
    const system = yield* TestKit.make({ root })
    const count = Effect.map(system.inspect(), (report) => report.root.children[1]?.child_count)
    return { system, lives, sums, count, bystander }
  })

it.effect("a send starts the child, and every id has a life and a state of its own", () =>
  Effect.gen(function* () {
    const { system, lives, count } = yield* setUp({})
    expect(yield* count).toBe(0)
    expect(system.refOf(Device, "a").path).toBe("/root/devices/a")
    yield* system.refOf(Device, "a").tell("Add", { amount: 1 })
    expect(yield* system.refOf(Device, "a").ask("Add", { amount: 2 })).toBe(3)
    expect(yield* system.refOf(Device, "b").ask("Add", { amount: 5 })).toBe(5)
    expect(lives).toEqual(["a", "b"])
    expect(yield* count).toBe(2)
  })
)

it.effect("an idle child is passivated and comes back with the next message", () =>
  Effect.gen(function* () {
    const { system, lives, count } = yield* setUp({ passivateAfterMs: 1_000 })
    yield* system.refOf(Device, "a").ask("Add", { amount: 1 })
    yield* TestClock.adjust(900)
    yield* system.refOf(Device, "a").ask("Add", { amount: 1 })
    yield* TestClock.adjust(1_000)
    expect(yield* count).toBe(1)
    yield* TestClock.adjust(2_000)
    expect(yield* count).toBe(0)
    expect(yield* system.refOf(Device, "a").ask("Add", { amount: 1 })).toBe(3)
    expect(lives).toEqual(["a", "a"])
  })
)

it.effect("a child with a task running is not idle", () =>
  Effect.gen(function* () {
    const { system, lives, count } = yield* setUp({ passivateAfterMs: 1_000 })
    yield* system.refOf(Device, "a").ask("Work", { ms: 10_000 })
    yield* TestClock.adjust(9_000)
    expect(yield* count).toBe(1)
    yield* TestClock.adjust(4_000)
    expect(yield* count).toBe(0)
    expect(lives).toEqual(["a"])
  })
)

it.effect("passivation loses no message, however sends and idleness fall together", () =>
  Effect.gen(function* () {
    const { system, sums, lives, count } = yield* setUp({ passivateAfterMs: 50, closeMs: 30 })
    let sent = 0
    for (let round = 0; round < 300; round++) {
      // Steps of 7 ms hit every phase: running, about to be passivated, closing, closed.
      yield* TestClock.adjust((round * 7) % 120)
      yield* system.refOf(Device, "a").tell("Add", { amount: 1 })
      sent++
    }
    yield* TestClock.adjust(10_000)
    expect(sums.get("a")).toBe(sent)
    expect(lives.length).toBeGreaterThan(20)
    expect(yield* count).toBe(0)
    expect(system.deadLetters.total).toBe(0)
  })
)

it.effect("the maximum is held, and passivation makes place", () =>
  Effect.gen(function* () {
    const { system } = yield* setUp({ maximum: 2, passivateAfterMs: 1_000 })
    yield* system.refOf(Device, "a").tell("Add", { amount: 1 })
    yield* system.refOf(Device, "b").tell("Add", { amount: 1 })
    const refused = { _tag: "TooManyChildren", path: "/root/devices", maximum: 2 }
    expect(yield* Effect.flip(system.refOf(Device, "c").tell("Add", { amount: 1 }))).toMatchObject(refused)
    expect(yield* Effect.flip(system.refOf(Device, "c").ask("Add", { amount: 1 }))).toMatchObject(refused)
    yield* TestClock.adjust(5_000)
    expect(yield* system.refOf(Device, "c").ask("Add", { amount: 1 })).toBe(1)
  })
)

it.effect(
  "a child that crashes is started again without its neighbours noticing, and its mailbox waits",
  () =>
    Effect.gen(function* () {
      const { system, lives } = yield* setUp({})
      yield* system.refOf(Device, "b").ask("Add", { amount: 1 })
      yield* system.refOf(Device, "a").tell("Crash")
      const waiting = yield* Effect.forkChild(system.refOf(Device, "a").ask("Add", { amount: 4 }))
      yield* TestKit.settle
      expect(waiting.pollUnsafe()).toBeUndefined()
      yield* TestClock.adjust(100)
      expect(yield* Fiber.join(waiting)).toBe(4)
      expect(lives).toEqual(["b", "a", "a"])
    })
)

it.effect("a child that always fails is degraded by itself and never takes the others or the root down", () =>
  Effect.gen(function* () {
    const { system, lives, bystander } = yield* setUp({ stillborn: (id) => id === "bad" })
    yield* system.refOf(Device, "bad").tell("Add", { amount: 1 })
    for (let minute = 0; minute < 60; minute++) {
      yield* TestClock.adjust(60_000)
      expect(yield* system.refOf(Device, "good").ask("Add", { amount: 1 })).toBe(minute + 1)
    }
    expect(lives.filter((id) => id === "bad").length).toBeLessThan(70)
    expect(lives.filter((id) => id === "good").length).toBe(1)
    expect(bystander.lives).toBe(1)
    const report = yield* system.inspect()
    expect(report.root.children[1]?.children.map(({ id, state }) => [id, state])).toEqual([
      ["bad", "degraded"],
      ["good", "running"]
    ])
  })
)

it.effect("a child that ends itself is forgotten and comes back when it is wanted", () =>
  Effect.gen(function* () {
    const { system, lives, count } = yield* setUp({})
    yield* system.refOf(Device, "a").ask("Add", { amount: 1 })
    yield* system.refOf(Device, "a").tell("End")
    yield* TestKit.settle
    expect(yield* count).toBe(0)
    yield* system.refOf(Device, "a").tell("End")
    expect(yield* system.refOf(Device, "a").ask("Add", { amount: 1 })).toBe(2)
    expect(lives).toEqual(["a", "a", "a"])
  })
)

it.effect("an id that cannot be a step of a path is not found", () =>
  Effect.gen(function* () {
    const { system, lives } = yield* setUp({})
    expect(yield* Effect.flip(system.refOf(Device, "../a b").tell("Crash"))).toMatchObject({
      _tag: "NotFound"
    })
    expect(yield* Effect.flip(system.ref({ ...Device, _tag: "ActorKey" }).tell("Crash"))).toMatchObject({
      _tag: "NotFound"
    })
    expect(lives).toEqual([])
  })
)

it.effect("stopping the system stops every child and refuses new ones", () =>
  Effect.gen(function* () {
    const { system, lives } = yield* setUp({})
    for (let id = 0; id < 200; id++) {
      yield* system.refOf(Device, `d${id}`).tell("Add", { amount: 1 })
    }
    yield* TestKit.settle
    expect(lives.length).toBe(200)
    yield* system.stop
    expect(yield* Effect.flip(system.refOf(Device, "d7").tell("Crash"))).toMatchObject({ _tag: "Stopped" })
    expect(yield* Effect.flip(system.refOf(Device, "new").tell("Crash"))).toMatchObject({ _tag: "Stopped" })
    expect(lives.length).toBe(200)
  })
)
