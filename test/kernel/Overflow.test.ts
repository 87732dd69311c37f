import { expect, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { ChildSpec, Supervisor } from "../../src/kernel/index.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import { puppet } from "./support.ts"

const busy = (capacity: number, overflow: "wait" | "reject" | "drop-oldest") =>
  Effect.gen(function* () {
    const actor = puppet("actor")
    const child = ChildSpec.make({ ...actor, mailbox: { capacity, overflow } })
    const root = Supervisor.spec({ id: "root", strategy: "one-for-one", children: [child] })
    const system = yield* TestKit.make({ root })
    const ref = system.ref(actor.key)
    yield* ref.tell("Sleep", { ms: 60_000 })
    yield* TestKit.settle
    return { system, ref, actor }
  })

it.effect("reject: the sender is told, the message is a dead letter, and the mailbox keeps what it has", () =>
  Effect.gen(function* () {
    const { system, ref, actor } = yield* busy(2, "reject")
    yield* ref.tell("Ping")
    yield* ref.tell("Ping")
    const full = { _tag: "MailboxFull", path: "/root/actor", tag: "Ping", capacity: 2 }
    expect(yield* Effect.flip(ref.tell("Ping"))).toMatchObject(full)
    expect(yield* Effect.flip(ref.ask("Ping"))).toMatchObject(full)
    expect(system.deadLetters.counts.full).toBe(2)
    expect(system.deadLetters.sampled.map(({ path, tag, reason }) => ({ path, tag, reason }))).toEqual([
      { path: "/root/actor", tag: "Ping", reason: "full" },
      { path: "/root/actor", tag: "Ping", reason: "full" }
    ])
    yield* TestClock.adjust(60_000)
    yield* TestKit.until(() => actor.handled.length === 2)
  })
)

it.effect("drop-oldest: the oldest makes place, and an evicted asker is told at once", () =>
  Effect.gen(function* () {
    const { system, ref, actor } = yield* busy(2, "drop-oldest")
    const oldest = yield* Effect.forkChild(Effect.result(ref.ask("Ping", undefined, { timeoutMs: 100_000 })))
    yield* TestKit.settle
    const second = yield* Effect.forkChild(Effect.result(ref.ask("Ping", undefined, { timeoutMs: 100_000 })))
    yield* TestKit.settle
    yield* ref.tell("Ping")
    expect(yield* Fiber.join(oldest)).toMatchObject({ failure: { _tag: "Evicted", tag: "Ping" } })
    yield* TestClock.adjust(60_000)
    expect(yield* Fiber.join(second)).toMatchObject({ success: 1 })
    yield* TestKit.until(() => actor.handled.length === 2)
    expect(system.deadLetters.counts.evicted).toBe(1)
  })
)

it.effect("drop-oldest: an evicted asker that asks again at once loses nobody's message", () =>
  Effect.gen(function* () {
    const { ref, actor } = yield* busy(1, "drop-oldest")
    const stubborn = yield* Effect.forkChild(
      Effect.catchTag(ref.ask("Ping", undefined, { timeoutMs: 100_000 }), "Evicted", () =>
        ref.ask("Ping", undefined, { timeoutMs: 100_000 })
      )
    )
    yield* TestKit.settle
    const other = yield* Effect.forkChild(Effect.result(ref.ask("Ping", undefined, { timeoutMs: 100_000 })))
    yield* TestKit.settle
    yield* TestClock.adjust(60_000)
    expect(yield* Fiber.join(stubborn)).toBe(1)
    expect(yield* Fiber.join(other)).toMatchObject({ failure: { _tag: "Evicted" } })
    expect(actor.handled).toEqual(["Ping"])
  })
)

it.effect("wait: senders stand in line, in order, and go on when the mailbox is half empty", () =>
  Effect.gen(function* () {
    const { system, ref, actor } = yield* busy(2, "wait")
    yield* ref.tell("Ping")
    yield* ref.tell("Ping")
    const order: Array<number> = []
    const senders = yield* Effect.forEach([1, 2, 3], (number) =>
      Effect.forkChild(Effect.tap(ref.tell("Ping"), () => Effect.sync(() => order.push(number))))
    )
    const asker = yield* Effect.forkChild(ref.ask("Ping", undefined, { timeoutMs: 100_000 }))
    yield* TestKit.settle
    expect(order).toEqual([])
    const mailbox = Effect.map(system.inspect(), (report) => report.root.children[0]?.mailbox)
    expect(yield* mailbox).toMatchObject({ depth: 2, waiting: 4 })
    yield* Fiber.interrupt(senders[1] as Fiber.Fiber<void>)
    expect(yield* mailbox).toMatchObject({ depth: 2, waiting: 3 })
    yield* TestClock.adjust(4_000)
    expect(order).toEqual([])
    // The sleeping handler goes on for another minute, the waiting senders only for the default time-out.
    yield* TestClock.adjust(1_000)
    expect(senders.map((sender) => sender.pollUnsafe()?._tag)).toEqual(["Failure", "Failure", "Failure"])
    expect(yield* Effect.flip(Fiber.join(senders[0] as Fiber.Fiber<void>))).toMatchObject({
      _tag: "MailboxFull"
    })
    yield* TestClock.adjust(60_000)
    expect(yield* Fiber.join(asker)).toBe(1)
    expect(actor.handled.length).toBe(3)
  })
)

it.effect("wait: a fast sender is slowed down to the receiver's pace and loses nothing", () =>
  Effect.gen(function* () {
    const { ref, actor } = yield* busy(4, "wait")
    const sender = yield* Effect.forkChild(
      Effect.forEach(Array.from({ length: 100 }), () => Effect.retry(ref.tell("Ping"), { times: 20 }), {
        discard: true
      })
    )
    yield* TestKit.settle
    yield* TestClock.adjust(60_000)
    yield* Fiber.join(sender)
    yield* TestKit.until(() => actor.handled.length === 100)
  })
)

it.effect("wait: places that askers give up go to those in line, though the receiver is busy", () =>
  Effect.gen(function* () {
    const { system, ref } = yield* busy(2, "wait")
    const askers = yield* Effect.forEach([1, 2], () =>
      Effect.forkChild(ref.ask("Ping", undefined, { timeoutMs: 100_000 }))
    )
    yield* TestKit.settle
    const tellers = yield* Effect.forEach([1, 2], () => Effect.forkChild(ref.tell("Ping")))
    yield* TestKit.settle
    yield* Fiber.interruptAll(askers)
    yield* TestKit.settle
    expect(tellers.map((teller) => teller.pollUnsafe()?._tag)).toEqual(["Success", "Success"])
    const report = yield* system.inspect()
    expect(report.root.children[0]?.mailbox).toMatchObject({ depth: 2, waiting: 0 })
  })
)

it.effect("stopping the receiver ends the wait of those in line", () =>
  Effect.gen(function* () {
    const { system, ref } = yield* busy(1, "wait")
    yield* ref.tell("Ping")
    const teller = yield* Effect.forkChild(Effect.result(ref.tell("Ping")))
    const asker = yield* Effect.forkChild(Effect.result(ref.ask("Ping", undefined, { timeoutMs: 100_000 })))
    yield* TestKit.settle
    yield* TestKit.stop(system)
    expect(yield* Fiber.join(teller)).toMatchObject({ failure: { _tag: "Stopped" } })
    expect(yield* Fiber.join(asker)).toMatchObject({ failure: { _tag: "Stopped" } })
  })
)
