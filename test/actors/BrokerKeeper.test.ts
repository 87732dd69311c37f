/** The keeper of the broker, over a real store and beside a broker that does as the test says. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Exit, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { brokerKeeper } from "../../src/actors/BrokerKeeper.ts"
import { AgentBookCell } from "../../src/adapters/AgentBookCell.ts"
import { openInProcess } from "../../src/adapters/sqlite/InProcessDatabase.ts"
import { messagesDatabase } from "../../src/adapters/sqlite/messages/MessagesDatabase.ts"
import { MessageStoreOver } from "../../src/adapters/sqlite/SqliteMessageStore.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import { AgentBook } from "../../src/ports/AgentBook.ts"
import { BrokerError, MessageBroker, type OpenBroker } from "../../src/ports/MessageBroker.ts"
import { type AgentRow, MessageStore, MessageStoreError } from "../../src/ports/MessageStore.ts"
import type { DeviceId, Name } from "../../src/schemas/Ids.ts"
import type { MessageId } from "../../src/schemas/Message.ts"
import { brokerAnswer } from "../../src/schemas/protocols/BrokerKeeper.ts"

const [alice, bob] = ["alice", "bob"] as [Name, Name]
const topicRoot = "mf2c"
const inboxOf = (agent: string) => `${topicRoot}/${agent}/private`
const dayMs = 86_400_000

/** A broker whose sessions are those the test names, and that keeps whoever is held waiting. */
class FakeBroker {
  readonly sessions = new Set<string>([inboxOf(alice), inboxOf(bob)])
  readonly published: Array<readonly [string, number]> = []
  /** Every publication that was begun. */
  tried = 0
  readonly expelled: Array<string> = []
  private readonly held = new Map<string, Deferred.Deferred<void>>()
  private readonly failures = new Map<string, { behind: number; times: number }>()
  private readonly lost = Deferred.makeUnsafe<string>()

  /** Behind so many publications to a topic, so many fail. */
  fail(topic: string, times = 1, behind = 0): void {
    this.failures.set(topic, { behind, times })
  }
  private fails(topic: string): boolean {
    const failure = this.failures.get(topic)
    return failure !== undefined && failure.behind-- <= 0 && failure.times-- > 0
  }
  hold(what: string): void {
    this.held.set(what, Deferred.makeUnsafe())
  }
  release(what: string): void {
    const gate = this.held.get(what)
    this.held.delete(what)
    if (gate !== undefined) Deferred.doneUnsafe(gate, Effect.void)
  }
  lose(): void {
    Deferred.doneUnsafe(this.lost, Effect.succeed("it fell over"))
  }
  /** The first byte of what came to a topic. */
  to(topic: string): ReadonlyArray<number> {
    return this.published.flatMap(([at, byte]) => (at === topic ? [byte] : []))
  }
  private pass(what: string) {
    return Effect.suspend(() => {
      const gate = this.held.get(what)
      return gate === undefined ? Effect.void : Deferred.await(gate)
    })
  }
  readonly layer = Layer.succeed(MessageBroker, {
    open: () =>
      Effect.sync(
        (): OpenBroker => ({
          addresses: [],
          publish: (topic, payload) =>
            Effect.suspend(() => {
              this.tried++
              return this.pass(topic)
            }).pipe(
              Effect.flatMap(() => {
                if (this.fails(topic)) return Effect.fail(new BrokerError({ reason: "it is out of breath" }))
                this.published.push([topic, payload[0] ?? 0])
                return Effect.succeed(this.sessions.has(topic))
              })
            ),
          passwordFor: (agent) => Effect.as(this.pass(agent), `password of ${agent}`),
          expel: (agent) => Effect.map(this.pass(agent), () => void this.expelled.push(agent)),
          connected: Effect.succeed([]),
          ended: Deferred.await(this.lost)
        })
      )
  })
}

const rowOf = (agent: Name, device = `device of ${agent}`) =>
  ({ agent, device: device as DeviceId }) as unknown as AgentRow

/** A keeper, and a store whose next calls of some methods fail, if the test says so. */
const start = Effect.fnUntraced(function* (broker: FakeBroker) {
  const database = yield* openInProcess(messagesDatabase, ":memory:")
  const failing = new Set<string>()
  const reads: Array<number> = []
  const pruned: Array<boolean> = []
  const Store = Layer.effect(
    MessageStore,
    Effect.map(MessageStore, (store): MessageStore["Service"] => ({
      ...store,
      delivered: (places) =>
        failing.delete("delivered")
          ? Effect.fail(new MessageStoreError({ operation: "delivered", reason: "the disk is full" }))
          : store.delivered(places),
      prune: (nowMs) =>
        failing.delete("prune")
          ? Effect.fail(new MessageStoreError({ operation: "prune", reason: "the disk is full" }))
          : Effect.tap(store.prune(nowMs), ({ isMore }) => Effect.sync(() => void pruned.push(isMore))),
      undelivered: (agent, behind, maximum) => {
        reads.push(maximum)
        return store.undelivered(agent, behind, maximum)
      }
    }))
  ).pipe(Layer.provide(MessageStoreOver(database)))
  const services = yield* Layer.build(Layer.mergeAll(Store, AgentBookCell, broker.layer))
  const parts = yield* Effect.all({ store: MessageStore, book: AgentBook }).pipe(
    Effect.provideContext(services)
  )
  for (const agent of [alice, bob]) parts.book.set(rowOf(agent))
  const { ref } = yield* Effect.provideContext(
    TestKit.start(brokerKeeper({ topicRoot, authenticate: () => Effect.succeed(null) })),
    services
  )
  yield* TestKit.settle
  let ids = 0
  return {
    ...parts,
    ref,
    failing,
    reads,
    pruned,
    /** Stores something for somebody; gives what was stored. */
    leave: Effect.fnUntraced(function* (to: Name, byte: number, lifetimeMs = dayMs) {
      const nowMs = yield* Clock.currentTimeMillis
      const id = String(ids++).padStart(26, "a") as MessageId
      const wire = Uint8Array.of(byte)
      const { deliveries } = yield* parts.store.accept(
        "carol's" as DeviceId,
        id,
        nowMs + lifetimeMs,
        [{ to, inbox: "private", wire }],
        nowMs
      )
      return deliveries
    })
  }
})

/** Time in steps, so that what it sets off is done meanwhile. */
const pass = (totalMs: number) =>
  Effect.replicateEffect(Effect.andThen(TestClock.adjust(1_000), TestKit.settle), totalMs / 1_000, {
    discard: true
  })

describe("the sweep", () => {
  it.effect("comes every minute, however much there is to do", () =>
    Effect.gen(function* () {
      const broker = new FakeBroker()
      const { leave, ref, store } = yield* start(broker)
      yield* pass(10_000)
      // The word of this one is lost, and that one waits for an agent without a session.
      yield* leave(bob, 100)
      broker.sessions.delete(inboxOf(alice))
      yield* leave(alice, 200, 90_000)
      for (let time = 1; time <= 10; time++) {
        yield* ref.tell("Dispatch", { deliveries: yield* leave(bob, time) })
        yield* pass(30_000)
      }
      assert.sameMembers([...broker.to(inboxOf(bob))], [100, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
      assert.isBelow(broker.to(inboxOf(bob)).indexOf(100), 4)
      assert.strictEqual((yield* store.backlog).undelivered, 0)
    })
  )

  it.effect("is not waited for where what was delivered could not be written down", () =>
    Effect.gen(function* () {
      const broker = new FakeBroker()
      const { failing, leave, ref, store } = yield* start(broker)
      yield* pass(5_000)
      failing.add("delivered")
      yield* ref.tell("Dispatch", { deliveries: yield* leave(bob, 1) })
      yield* pass(2_000)
      assert.deepStrictEqual(broker.to(inboxOf(bob)), [1, 1])
      assert.strictEqual((yield* store.backlog).undelivered, 0)
    })
  )
})

describe("what has expired", () => {
  it.effect("goes step by step, one after the other, and others have their turn between them", () =>
    Effect.gen(function* () {
      const broker = new FakeBroker()
      const { leave, pruned, ref, store } = yield* start(broker)
      yield* pass(5_000)
      broker.sessions.delete(inboxOf(alice))
      for (let number = 0; number < 700; number++) yield* leave(alice, 1, 10_000)
      yield* pass(50_000)
      pruned.length = 0
      yield* pass(6_000)
      assert.deepStrictEqual(pruned, [true, true, false])
      assert.strictEqual((yield* store.backlog).undelivered, 0)
      for (let number = 0; number < 700; number++) yield* leave(alice, 1, 1_000)
      yield* TestClock.adjust(1_000)
      pruned.length = 0
      yield* ref.tell("Sweep")
      yield* brokerAnswer(ref.ask("Expel", { agent: bob }), 1_000)
      assert.isAtMost(pruned.length, 2)
      assert.deepStrictEqual(broker.expelled, [bob])
    })
  )

  it.effect("goes with the next sweep where the store failed, and what waits is brought meanwhile", () =>
    Effect.gen(function* () {
      const broker = new FakeBroker()
      const { failing, leave, ref, store } = yield* start(broker)
      yield* pass(5_000)
      broker.sessions.delete(inboxOf(alice))
      yield* leave(alice, 1, 10_000)
      failing.add("prune")
      yield* pass(60_000)
      assert.isFalse(failing.has("prune"))
      yield* ref.tell("Dispatch", { deliveries: yield* leave(bob, 2) })
      yield* TestKit.settle
      assert.deepStrictEqual(broker.to(inboxOf(bob)), [2])
      assert.strictEqual((yield* store.backlog).undelivered, 1)
      yield* pass(60_000)
      assert.strictEqual((yield* store.backlog).undelivered, 0)
    })
  )
})

describe("a broker that fails", () => {
  it.effect("gets again what it did not take, before what was stored meanwhile", () =>
    Effect.gen(function* () {
      const broker = new FakeBroker()
      const { leave, ref, store } = yield* start(broker)
      yield* pass(1_000)
      const send = (...bytes: ReadonlyArray<number>) =>
        Effect.flatMap(
          Effect.forEach(bytes, (byte) => leave(bob, byte)),
          (left) => ref.tell("Dispatch", { deliveries: left.flat() })
        )
      broker.hold(inboxOf(bob))
      broker.fail(inboxOf(bob))
      yield* send(1, 2, 3)
      yield* TestKit.settle
      yield* send(4, 5, 6)
      broker.release(inboxOf(bob))
      yield* TestKit.settle
      yield* send(7)
      yield* pass(2_000)
      assert.deepStrictEqual(broker.to(inboxOf(bob)), [1, 2, 3, 4, 5, 6, 7])
      assert.strictEqual((yield* store.backlog).undelivered, 0)
    })
  )

  it.effect("gets nothing more for a recipient behind what it did not take, and the rest for others", () =>
    Effect.gen(function* () {
      const broker = new FakeBroker()
      const { leave, ref } = yield* start(broker)
      yield* pass(1_000)
      const numbers = Array.from({ length: 100 }, (_, number) => number)
      const deliveries = [
        ...(yield* Effect.forEach(numbers, (number) => leave(bob, number))).flat(),
        ...(yield* leave(alice, 7))
      ]
      broker.fail(inboxOf(bob))
      yield* ref.tell("Dispatch", { deliveries })
      yield* TestKit.settle
      assert.deepStrictEqual(broker.to(inboxOf(alice)), [7])
      assert.deepStrictEqual(broker.to(inboxOf(bob)), [])
      yield* pass(2_000)
      assert.deepStrictEqual(broker.to(inboxOf(bob)), numbers)
    })
  )

  it.effect("is left alone for the pause, whatever is stored and whoever comes", () =>
    Effect.gen(function* () {
      const broker = new FakeBroker()
      const { leave, ref } = yield* start(broker)
      yield* pass(1_000)
      broker.fail(inboxOf(bob), 4)
      const numbers = Array.from({ length: 20 }, (_, number) => number)
      for (const number of numbers) {
        yield* ref.tell("Dispatch", { deliveries: yield* leave(bob, number) })
        yield* ref.tell("Came", { agent: bob })
        yield* TestKit.settle
      }
      assert.strictEqual(broker.tried, 1)
      yield* pass(10_000)
      assert.deepStrictEqual(broker.to(inboxOf(bob)), numbers)
    })
  )

  it.effect("in the midst of what waited for an agent gets the rest of it in its order", () =>
    Effect.gen(function* () {
      const broker = new FakeBroker()
      const { leave, ref, store } = yield* start(broker)
      yield* pass(1_000)
      const numbers = Array.from({ length: 700 }, (_, number) => number % 256)
      yield* Effect.forEach(numbers, (number) => leave(bob, number))
      broker.fail(inboxOf(bob), 1, 200)
      yield* ref.tell("Came", { agent: bob })
      yield* pass(2_000)
      assert.deepStrictEqual(broker.to(inboxOf(bob)), numbers)
      assert.strictEqual((yield* store.backlog).undelivered, 0)
    })
  )
})

describe("what waits for an agent", () => {
  it.effect("comes when it comes: once, in its order, before what is newer, however often it says so", () =>
    Effect.gen(function* () {
      const broker = new FakeBroker()
      const { leave, reads, ref, store } = yield* start(broker)
      broker.sessions.delete(inboxOf(bob))
      for (let number = 0; number < 600; number++) yield* leave(bob, number % 256)
      yield* pass(1_000)
      broker.published.length = 0
      reads.length = 0
      broker.sessions.add(inboxOf(bob))
      broker.hold(inboxOf(alice))
      yield* ref.tell("Dispatch", { deliveries: yield* leave(alice, 1) })
      for (let time = 0; time < 50; time++) yield* ref.tell("Came", { agent: bob })
      yield* ref.tell("Dispatch", { deliveries: yield* leave(bob, 255) })
      yield* TestKit.settle
      // Nothing is read while a round is on its way.
      assert.isAtMost(reads.length, 1)
      broker.release(inboxOf(alice))
      yield* pass(2_000)
      const expected = Array.from({ length: 600 }, (_, number) => number % 256)
      assert.deepStrictEqual(broker.to(inboxOf(bob)), [...expected, 255])
      assert.deepStrictEqual(broker.to(inboxOf(alice)), [1])
      assert.isAtMost(Math.max(...reads), 256)
      assert.strictEqual((yield* store.backlog).undelivered, 0)
    })
  )

  it.effect("comes at once too when it came while it was found to be away", () =>
    Effect.gen(function* () {
      const broker = new FakeBroker()
      const { leave, ref } = yield* start(broker)
      yield* pass(1_000)
      broker.sessions.delete(inboxOf(bob))
      broker.hold(inboxOf(bob))
      yield* ref.tell("Dispatch", { deliveries: yield* leave(bob, 1) })
      yield* TestKit.settle
      yield* ref.tell("Came", { agent: bob })
      yield* TestKit.settle
      broker.release(inboxOf(bob))
      broker.hold(inboxOf(bob))
      yield* TestKit.settle
      broker.sessions.add(inboxOf(bob))
      broker.published.length = 0
      broker.release(inboxOf(bob))
      yield* TestKit.settle
      assert.deepStrictEqual(broker.to(inboxOf(bob)), [1])
    })
  )

  it.effect("costs others nothing, and is found by a sweep where nobody told that it came", () =>
    Effect.gen(function* () {
      const broker = new FakeBroker()
      const { leave, ref, store } = yield* start(broker)
      broker.sessions.delete(inboxOf(bob))
      const numbers = Array.from({ length: 2_000 }, (_, number) => number % 256)
      yield* Effect.forEach(numbers, (number) => leave(bob, number))
      yield* pass(65_000)
      const before = broker.tried
      yield* pass(60_000)
      yield* ref.tell("Sweep")
      yield* ref.tell("Dispatch", { deliveries: yield* leave(alice, 7) })
      yield* TestKit.settle
      assert.deepStrictEqual(broker.to(inboxOf(alice)), [7])
      assert.isAtMost(broker.tried - before, 4)
      broker.published.length = 0
      broker.sessions.add(inboxOf(bob))
      yield* pass(65_000)
      assert.deepStrictEqual(broker.to(inboxOf(bob)), numbers)
      assert.strictEqual((yield* store.backlog).undelivered, 0)
    })
  )

  it.effect("is not held up by another that keeps coming", () =>
    Effect.gen(function* () {
      const broker = new FakeBroker()
      const { leave, ref } = yield* start(broker)
      yield* pass(1_000)
      broker.sessions.delete(inboxOf(bob))
      for (let number = 0; number < 300; number++) yield* leave(bob, 1)
      broker.hold(inboxOf(bob))
      for (let time = 0; time < 3; time++) {
        yield* ref.tell("Came", { agent: bob })
        yield* TestKit.settle
      }
      yield* ref.tell("Dispatch", { deliveries: yield* leave(alice, 7) })
      broker.release(inboxOf(bob))
      yield* TestKit.settle
      const first = broker.published.findIndex(([topic]) => topic === inboxOf(alice))
      assert.isAtLeast(first, 0)
      assert.isAtMost(first, 256)
    })
  )

  it.effect(
    "is for that agent alone: a round that is on its way brings nothing to the next of its name",
    () =>
      Effect.gen(function* () {
        const broker = new FakeBroker()
        const { book, leave, ref, store } = yield* start(broker)
        yield* pass(1_000)
        broker.hold(inboxOf(alice))
        const deliveries = []
        for (let number = 0; number < 40; number++) deliveries.push(...(yield* leave(alice, number)))
        deliveries.push(...(yield* leave(bob, 0)), ...(yield* leave(bob, 1)))
        yield* ref.tell("Dispatch", { deliveries })
        yield* TestKit.settle
        book.delete(bob)
        yield* brokerAnswer(ref.ask("Expel", { agent: bob }), 1_000)
        // What was on its way when it was cut off.
        yield* ref.tell("Dispatch", { deliveries: yield* leave(bob, 2) })
        yield* store.dropAgent(bob)
        book.set(rowOf(bob, "another device"))
        broker.release(inboxOf(alice))
        yield* pass(1_000)
        assert.lengthOf(broker.to(inboxOf(alice)), 40)
        assert.notInclude(broker.to(inboxOf(bob)), 1)
      })
  )
})

describe("a broker that takes its time", () => {
  it.effect("holds up nobody but those who ask for the same", () =>
    Effect.gen(function* () {
      const broker = new FakeBroker()
      const { leave, ref } = yield* start(broker)
      yield* pass(1_000)
      const [slow, other] = [`${topicRoot}/alice/handshake`, `${topicRoot}/bob/handshake`]
      const publish = (topic: string, byte: number) =>
        ref.ask("Publish", { topic, wire: Uint8Array.of(byte), retain: false })
      broker.hold(slow)
      broker.hold(alice)
      const first = yield* publish(slow, 1)
      const second = yield* publish(slow, 2)
      const expelled = yield* ref.ask("Expel", { agent: alice })
      yield* brokerAnswer(publish(other, 3), 1_000)
      assert.strictEqual(
        yield* brokerAnswer(ref.ask("Password", { agent: bob, device: "d" as DeviceId }), 1_000),
        "password of bob"
      )
      yield* ref.tell("Dispatch", { deliveries: yield* leave(bob, 4) })
      assert.deepStrictEqual(yield* ref.ask("State"), { addresses: [], connected: 0 })
      yield* TestKit.settle
      assert.deepStrictEqual(broker.to(inboxOf(bob)), [4])
      assert.deepStrictEqual(broker.expelled, [])
      broker.release(slow)
      broker.release(alice)
      for (const { answer } of [first, second, expelled])
        assert.isTrue(Exit.isSuccess(yield* Deferred.await(answer)))
      assert.deepStrictEqual(broker.to(slow), [1, 2])
      assert.deepStrictEqual(broker.expelled, [alice])
    })
  )

  it.effect("is asked once for what is wanted many times, and no more than may wait is taken", () =>
    Effect.gen(function* () {
      const broker = new FakeBroker()
      const { ref } = yield* start(broker)
      yield* pass(1_000)
      broker.hold(alice)
      yield* ref.ask("Expel", { agent: alice })
      yield* TestKit.settle
      for (let time = 0; time < 20; time++) yield* ref.ask("Expel", { agent: alice })
      const ask = ref.ask("Password", { agent: alice, device: "d" as DeviceId })
      const answers = yield* Effect.replicateEffect(Effect.exit(ask), 600)
      assert.isAbove(answers.filter(Exit.isFailure).length, 50)
      broker.release(alice)
      yield* TestKit.settle
      // The one in hand, and the one that served all behind it.
      assert.deepStrictEqual(broker.expelled, [alice, alice])
    })
  )

  it.effect("and never answers fails in time, and so does one that is lost", () =>
    Effect.gen(function* () {
      const broker = new FakeBroker()
      const { ref } = yield* start(broker)
      yield* pass(1_000)
      broker.hold(alice)
      broker.hold(bob)
      const { answer } = yield* ref.ask("Expel", { agent: alice })
      yield* pass(61_000)
      assert.isTrue(Exit.isFailure(yield* Deferred.await(answer)))
      const waiting = yield* Effect.forkChild(
        Effect.flip(brokerAnswer(ref.ask("Expel", { agent: bob }), 60_000))
      )
      yield* TestKit.settle
      broker.lose()
      yield* TestKit.settle
      assert.deepInclude(yield* Fiber.join(waiting), { reason: "the MQTT broker was closed" })
    })
  )
})
