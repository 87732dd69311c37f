/** An agent under a virtual clock, at a broker that the test plays. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Result } from "effect"
import { TestClock } from "effect/testing"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import { AgentStore, AgentStoreError } from "../../src/ports/AgentStore.ts"
import { BusError } from "../../src/ports/MessageBus.ts"
import type { Handshake } from "../../src/schemas/Agents.ts"
import type { Name } from "../../src/schemas/Ids.ts"
import { device, deviceKeys, otherDeviceKeys, serverKeys } from "./support/Parties.ts"
import {
  answer,
  handshakes,
  minute,
  PlayedBroker,
  Store,
  standing,
  start,
  stateOf,
  statuses
} from "./support/PlayedAgent.ts"

describe("an agent", () => {
  it.effect("asks for no broker before there is trust, and comes at once when there is", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* start(broker)
      yield* TestClock.adjust(60 * minute)
      assert.strictEqual(broker.finds, 0)
      assert.strictEqual(yield* stateOf(agent), "no_trust")
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.of(handshakes).length === 1, "the handshake")
      assert.deepInclude(broker.of(handshakes)[0], { agent: "pi", device, visible: true })
      assert.strictEqual(yield* stateOf(agent), "connected")
    })
  )

  it.effect("asks a server without messaging rarely, and a root that changes makes it ask anew", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      broker.away = new BusError({ code: "none", reason: "the server has no messaging" })
      const agent = yield* start(broker)
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.finds === 1, "the first question")
      for (let passed = 0; passed < 360; passed++) yield* TestClock.adjust(minute)
      assert.isAbove(broker.finds, 20)
      assert.isBelow(broker.finds, 50)
      assert.deepInclude(yield* agent.ref.ask("Standing"), { state: "no_messaging", lacking_ms: 0 })
      broker.away = null
      agent.trust.set({ ...standing, services: new Set([serverKeys.signingKey, deviceKeys.signingKey]) })
      yield* TestKit.until(() => broker.of(handshakes).length === 1, "the handshake")
    })
  )

  it.effect("tells a key that was changed at once, in the same session", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* start(broker)
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.of(handshakes).length === 1, "the handshake")
      agent.turn()
      yield* agent.ref.tell("Rotated")
      yield* TestKit.until(() => broker.of(handshakes).length === 2, "the second one")
      const [before, after] = broker.of(handshakes)
      assert.deepStrictEqual(
        [before?.["agreement"], after?.["agreement"]],
        [
          { key: deviceKeys.agreementKey, version: 1 },
          { key: otherDeviceKeys.agreementKey, version: 2 }
        ]
      )
      assert.strictEqual(after?.["session"], before?.["session"])
      assert.strictEqual(broker.finds, 1)
    })
  )

  it.effect("says goodbye when it is trusted no more, and comes under its new name when that changed", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* start(broker)
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.of(handshakes).length === 1, "the handshake")
      agent.trust.set({ ...standing, name: "pi-attic" as Name })
      yield* TestKit.until(() => broker.of(handshakes).length === 2, "the handshake of the new name")
      assert.deepInclude(broker.of(statuses).at(-1), { agent: "pi", status: "DG" })
      assert.strictEqual(broker.connection?.name, "pi-attic")
      agent.trust.set(null)
      yield* TestKit.until(() => broker.left === 2, "its leaving")
      assert.deepInclude(broker.of(statuses).at(-1), { agent: "pi-attic", status: "DG" })
      yield* TestClock.adjust(60 * minute)
      assert.strictEqual(yield* stateOf(agent), "no_trust")
      assert.strictEqual(broker.finds, 2)
    })
  )

  it.effect("says goodbye when its program ends", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* start(broker)
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.of(handshakes).length === 1, "the handshake")
      yield* TestKit.stop(agent.system)
      assert.deepInclude(broker.of(statuses).at(-1), { agent: "pi", status: "DG" })
      assert.strictEqual(broker.left, 1)
    })
  )

  it.effect("is not kept from its goodbye by what comes when it ends", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* start(broker)
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.of(handshakes).length === 1, "the handshake")
      const refusals: Array<unknown> = []
      broker.acknowledge = (topic) =>
        topic === statuses
          ? Effect.match(broker.bring("fleet/pi/public", new Uint8Array(1)), {
              onFailure: (error) => void refusals.push(error),
              onSuccess: () => void refusals.push("taken")
            })
          : Effect.void
      yield* TestKit.stop(agent.system)
      assert.lengthOf(refusals, 1)
      // Any other failure would end the connection at once, and the broker would publish the will.
      assert.deepInclude(refusals[0], { isLeft: true })
    })
  )

  it.effect("stays connected though nothing that it asks is acknowledged, or answered", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* start(broker)
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.of(handshakes).length === 1, "the handshake")
      broker.acknowledge = (topic) => (topic.endsWith("/pingreq") ? Effect.never : Effect.void)
      // The tasks of one round are nearly as many as an actor may have.
      const names = Array.from({ length: 100 }, (_, n) => `bob-${n}` as Name)
      let asked = 0
      for (let round = 0; round < 6; round++) {
        yield* Effect.forkChild(
          Effect.forEach(names, (to) => Effect.map(agent.ref.ask("Ping", { to }), () => void asked++), {
            concurrency: "unbounded"
          })
        )
        yield* TestKit.until(() => asked === 100 * (round + 1), `round ${round}`)
        yield* TestClock.adjust(10_000)
      }
      assert.strictEqual(broker.finds, 1)
      assert.strictEqual(yield* stateOf(agent), "connected")
    })
  )

  it.effect("takes what comes when it has time again, where its programs ask for too much at once", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const goOn = yield* Deferred.make<void>()
      const agent = yield* start(
        broker,
        Layer.effect(
          AgentStore,
          Effect.map(Effect.service(AgentStore), (store) => ({
            ...store,
            queue: (...kept: Parameters<typeof store.queue>) =>
              Effect.andThen(Deferred.await(goOn), store.queue(...kept))
          }))
        ).pipe(Layer.provide(Store))
      )
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.of(handshakes).length === 1, "the handshake")
      const letter = { level: "public", to: ["bob" as Name], subject: "", body: 1, lifetimeMs: null } as const
      yield* Effect.addFinalizer(() => Deferred.succeed(goOn, undefined))
      const sends = Array.from({ length: 1_100 }, () => Effect.exit(agent.ref.ask("Send", letter)))
      const sending = yield* Effect.forkChild(Effect.all(sends, { concurrency: "unbounded" }))
      yield* TestKit.settle
      // The place of the one that is dealt with.
      const another = yield* Effect.forkChild(Effect.exit(agent.ref.ask("Send", letter)))
      yield* TestKit.settle
      assert.strictEqual((yield* Effect.flip(agent.ref.ask("Send", letter)))._tag, "MailboxFull")
      const coming = yield* Effect.forkChild(
        Effect.result(broker.bring("fleet/pi/public", new TextEncoder().encode("no message at all")))
      )
      yield* TestClock.adjust(1_000)
      assert.isUndefined(coming.pollUnsafe(), "it was given back")
      yield* Deferred.succeed(goOn, undefined)
      yield* Fiber.joinAll([sending, another])
      yield* TestClock.adjust(1_000)
      assert.isTrue(Result.isSuccess(yield* Fiber.join(coming)))
      assert.deepInclude((yield* agent.ref.ask("Report")).refused, { malformed: 1 })
    })
  )

  it.effect("says for how long it has lacked a session, and waits longer each time", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      broker.away = new BusError({ code: "unreachable", reason: "nobody listens there" })
      const agent = yield* start(broker)
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.finds === 1, "the first attempt")
      assert.strictEqual((yield* agent.ref.ask("Standing")).lacking_ms, 0)
      for (let passed = 0; passed < 60; passed++) yield* TestClock.adjust(minute)
      assert.deepInclude(yield* agent.ref.ask("Standing"), {
        state: "offline",
        detail: "nobody listens there",
        lacking_ms: 60 * minute
      })
      assert.isBelow(broker.finds, 120)
      broker.away = null
      for (let passed = 0; broker.of(handshakes).length === 0 && passed < 2; passed++)
        yield* TestClock.adjust(minute)
      assert.isAbove(broker.of(handshakes).length, 0)
    })
  )

  it.effect("does not come again at once to a broker that cuts it off again and again", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* start(broker)
      agent.trust.set(standing)
      for (let passed = 0; passed < 600; passed++) {
        broker.cut()
        yield* TestClock.adjust(1_000)
      }
      // Once a minute in the end; after each one to two seconds it would be hundreds of times.
      assert.isBelow(broker.finds, 30)
      assert.isAbove(broker.finds, 8)
    })
  )

  it.effect("sends at once what comes while it looks for what waits", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const looked = yield* Deferred.make<void>()
      const goOn = yield* Deferred.make<void>()
      const agent = yield* start(
        broker,
        Layer.effect(
          AgentStore,
          Effect.map(Effect.service(AgentStore), (store) => ({
            ...store,
            // What was found when it looked; told late.
            queued: (...args) =>
              Effect.tap(store.queued(...args), () =>
                Effect.andThen(Deferred.succeed(looked, undefined), Deferred.await(goOn))
              )
          }))
        ).pipe(Layer.provide(Store))
      )
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.of(handshakes).length === 1, "the handshake")
      yield* answer(broker, broker.shaken[0] as Handshake, "known")
      yield* Deferred.await(looked)
      const letter = { level: "public", to: ["bob" as Name], subject: "", body: 1, lifetimeMs: null } as const
      yield* agent.ref.ask("Send", letter)
      yield* Deferred.succeed(goOn, undefined)
      yield* TestKit.until(() => broker.of("fleet/bob/public").length === 1, "the message")
    })
  )

  it.effect("tells of one message whether it waits to be sent, whatever others do", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* start(broker)
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.of(handshakes).length === 1, "the handshake")
      const letter = { to: ["bob" as Name], subject: "", body: 1, lifetimeMs: null } as const
      // Nobody knows Bob's key.
      const kept = yield* agent.ref.ask("Send", { ...letter, level: "end_to_end" })
      const sent = yield* agent.ref.ask("Send", { ...letter, level: "public" })
      const unsent = Effect.forEach([kept, sent], (id) => agent.ref.ask("Unsent", { id }))
      assert.deepStrictEqual(yield* unsent, [true, true])
      yield* answer(broker, broker.shaken[0] as Handshake, "known")
      yield* TestKit.until(() => broker.of("fleet/bob/public").length === 1, "the message")
      yield* TestKit.settle
      assert.deepStrictEqual(yield* unsent, [true, false])
    })
  )

  it.effect("sends some messages at once, in their order, and those again that were not acknowledged", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* start(broker)
      const inbox = "fleet/bob/public"
      const bodies = () => broker.of(inbox).map(({ body }) => body)
      // Whatever has an odd number is lost with the connection, once.
      const isLost = { now: true }
      let underWay = 0
      let most = 0
      broker.acknowledge = (topic) => {
        if (topic !== inbox) return Effect.void
        const number = bodies().at(-1) as number
        most = Math.max(most, ++underWay)
        return Effect.sleep(1_000).pipe(
          Effect.andThen(
            Effect.suspend(() => {
              underWay--
              return isLost.now && number % 2 === 1
                ? Effect.fail(new BusError({ code: "unreachable", reason: "it was cut" }))
                : Effect.void
            })
          )
        )
      }
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.of(handshakes).length === 1, "the handshake")
      for (let body = 0; body < 24; body++)
        yield* agent.ref.ask("Send", {
          ...({ level: "public", to: ["bob" as Name], subject: "", lifetimeMs: null } as const),
          body
        })
      yield* answer(broker, broker.shaken[0] as Handshake, "known")
      yield* TestKit.until(() => bodies().length === 8, "the first ones")
      assert.deepStrictEqual(bodies(), [0, 1, 2, 3, 4, 5, 6, 7])
      yield* TestClock.adjust(1_000)
      assert.strictEqual((yield* agent.ref.ask("Report")).queued, 20)
      isLost.now = false
      broker.published.length = 0
      for (let passed = 0; passed < 60; passed++) yield* TestClock.adjust(1_000)
      const others = Array.from({ length: 16 }, (_, index) => 8 + index)
      assert.deepStrictEqual(bodies(), [1, 3, 5, 7, ...others])
      assert.strictEqual((yield* agent.ref.ask("Report")).queued, 0)
      assert.strictEqual(most, 8)
    })
  )

  it.effect("comes again no sooner because a publication of the session that ended fails late", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const late = yield* Deferred.make<void, BusError>()
      broker.away = new BusError({ code: "unreachable", reason: "nobody listens there" })
      const agent = yield* start(broker)
      agent.trust.set(standing)
      for (let passed = 0; broker.finds < 6 && passed < 300; passed++) yield* TestClock.adjust(1_000)
      broker.away = null
      for (let passed = 0; broker.shaken.length === 0 && passed < 60; passed++) yield* TestClock.adjust(1_000)
      broker.acknowledge = (topic) => (topic === "fleet/bob/public" ? Deferred.await(late) : Effect.void)
      yield* answer(broker, broker.shaken[0] as Handshake, "known")
      const letter = { level: "public", to: ["bob" as Name], subject: "", body: 1, lifetimeMs: null } as const
      yield* agent.ref.ask("Send", letter)
      yield* TestKit.until(() => broker.of("fleet/bob/public").length === 1, "the message")
      const { finds } = broker
      broker.cut()
      yield* TestKit.until(
        () => Effect.orDie(Effect.map(stateOf(agent), (state) => state === "offline")),
        "its end"
      )
      yield* Deferred.fail(late, new BusError({ code: "unreachable", reason: "it was cut" }))
      yield* TestKit.settle
      // After so many failures it waits for half a minute.
      for (let passed = 0; passed < 10; passed++) yield* TestClock.adjust(1_000)
      assert.strictEqual(broker.finds, finds)
      for (let passed = 0; passed < 60; passed++) yield* TestClock.adjust(1_000)
      assert.strictEqual(broker.finds, finds + 1)
      assert.lengthOf(broker.of("fleet/bob/public"), 1)
      yield* answer(broker, broker.shaken.at(-1) as Handshake, "known")
      yield* TestKit.until(() => broker.of("fleet/bob/public").length === 2, "the message again")
    })
  )

  it.effect("acknowledges no message that it could not keep", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      let trouble = new AgentStoreError({ code: "failed", reason: "the disk is full" })
      const agent = yield* start(
        broker,
        Layer.effect(
          AgentStore,
          Effect.map(Effect.service(AgentStore), (store) => ({
            ...store,
            take: () => Effect.suspend(() => Effect.fail(trouble))
          }))
        ).pipe(Layer.provide(Store))
      )
      agent.trust.set(standing)
      yield* TestKit.until(() => broker.of(handshakes).length === 1, "the handshake")
      const came = (text: string) => broker.bring("fleet/pi/public", new TextEncoder().encode(text))
      const message = {
        type: "postern/public/v1",
        id: "a".repeat(26),
        claimed_from: "bob",
        issued_at_ms: 0,
        subject: "",
        body: 1
      }
      const error = yield* Effect.flip(came(JSON.stringify(message)))
      assert.include(JSON.stringify(error), "the disk is full")
      assert.propertyVal(error, "isLeft", false)
      trouble = new AgentStoreError({ code: "ids_full", reason: "as many ids are remembered as may be" })
      assert.propertyVal(yield* Effect.flip(came(JSON.stringify(message))), "isLeft", true)
      const word = yield* agent.ref.ask("Standing")
      // No program that takes messages could mend this.
      assert.deepInclude(word, { inbox_full: false, ids_full: true })
      assert.include(word.detail, "ids of messages")
      // What is refused is dealt with, and counted; so is what anybody may send, where there is no more room for it.
      yield* came("no message at all")
      trouble = new AgentStoreError({ code: "full", reason: "as many messages wait as may wait" })
      yield* came(JSON.stringify(message))
      assert.deepInclude((yield* agent.ref.ask("Report")).refused, { malformed: 1, overloaded: 1 })
    })
  )
})
