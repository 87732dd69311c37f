/** How an agent comes to know its broker services, whatever becomes of its handshakes and of the answers to them. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import type { Directory, Handshake } from "../../src/schemas/Agents.ts"
import type { Name } from "../../src/schemas/Ids.ts"
import { MessageLimits } from "../../src/schemas/Message.ts"
import { deviceKeys, serverKeys } from "./support/Parties.ts"
import {
  answer,
  byServices,
  minute,
  PlayedBroker,
  standing,
  start,
  stateOf,
  statuses
} from "./support/PlayedAgent.ts"

const letter = { level: "protected", to: ["bob" as Name], subject: "", body: 1, lifetimeMs: null } as const

/** An agent that has shaken hands for the first time. */
const coming = (broker: PlayedBroker) =>
  Effect.gen(function* () {
    const agent = yield* start(broker)
    agent.trust.set(standing)
    yield* shaken(broker, 1)
    return agent
  })

const shaken = (broker: PlayedBroker, times: number) =>
  TestKit.until(() => broker.shaken.length === times, `handshake ${times}`)

const last = (broker: PlayedBroker) => broker.shaken.at(-1) as Handshake

/** Lets minutes pass one by one. */
const pass = (minutes: number) => Effect.repeat(TestClock.adjust(minute), { times: minutes - 1 })

const refusedOf = (agent: Effect.Success<ReturnType<typeof start>>) =>
  Effect.map(agent.ref.ask("Report"), ({ refused }): Readonly<Record<string, number>> => refused)

describe("an agent's handshakes", () => {
  it.effect("are answered once: what is made of one that is sent again does not mute it", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* coming(broker)
      yield* answer(broker, last(broker), "known")
      assert.strictEqual(yield* stateOf(agent), "known")
      // Somebody has read the handshake and sent it to broker services, after its time.
      yield* answer(broker, last(broker), "refused", "the handshake is 120000 ms off this clock")
      assert.strictEqual(yield* stateOf(agent), "known")
      yield* answer(broker, last(broker), "known")
      assert.deepStrictEqual(yield* refusedOf(agent), { replayed: 1 })
      yield* agent.ref.ask("Send", letter)
      yield* TestKit.until(
        () => broker.of("fleet/broker-services/protected").length === 1,
        "the message to broker services"
      )
      yield* pass(60)
      assert.strictEqual(broker.shaken.length, 1)
    })
  )

  it.effect("have a nonce each, and an answer to an older one does not count", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* coming(broker)
      yield* answer(broker, last(broker), "known")
      yield* agent.ref.ask("Show", { visible: false, edgeDevices: [] })
      yield* shaken(broker, 2)
      const [first, second] = broker.shaken
      assert.notStrictEqual(first?.nonce, second?.nonce)
      assert.strictEqual(first?.session, second?.session)
      // What it knows goes on counting until the new one is answered.
      yield* answer(broker, first as Handshake, "refused")
      assert.strictEqual(yield* stateOf(agent), "known")
      yield* answer(broker, second as Handshake, "refused", "the name is another device's")
      assert.strictEqual(yield* stateOf(agent), "refused")
      assert.deepStrictEqual(yield* refusedOf(agent), { replayed: 1 })
    })
  )

  for (const verdict of ["refused", "waiting"] as const)
    it.effect(`go on, ever more slowly, while the answer is \`${verdict}\``, () =>
      Effect.gen(function* () {
        const broker = new PlayedBroker()
        const agent = yield* coming(broker)
        yield* answer(broker, last(broker), verdict)
        assert.strictEqual(yield* stateOf(agent), verdict)
        yield* TestClock.adjust(minute)
        yield* shaken(broker, 2)
        for (let passed = 0; passed < 60; passed++) {
          yield* answer(broker, last(broker), verdict)
          yield* TestClock.adjust(minute)
        }
        assert.isAbove(broker.shaken.length, 10)
        assert.isBelow(broker.shaken.length, 25)
        yield* answer(broker, last(broker), "known")
        assert.strictEqual(yield* stateOf(agent), "known")
        yield* TestKit.until(() => broker.of(statuses).length === 1, "its word that it is there")
        assert.deepInclude(broker.of(statuses)[0], { status: "C" })
        const before = broker.shaken.length
        yield* pass(30)
        assert.strictEqual(broker.shaken.length, before)
      })
    )

  it.effect("say why an agent was refused, and not so in the next session", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* coming(broker)
      yield* answer(broker, last(broker), "refused", "its clock is wrong")
      assert.deepInclude(yield* agent.ref.ask("Standing"), {
        state: "refused",
        detail: "its clock is wrong"
      })
      broker.cut()
      yield* TestClock.adjust(minute)
      assert.strictEqual(broker.finds, 2)
      assert.deepInclude(yield* agent.ref.ask("Standing"), { state: "connected", detail: "" })
    })
  )

  it.effect("are repeated until the last one is answered, though an older one was", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* coming(broker)
      yield* answer(broker, last(broker), "known")
      agent.turn()
      yield* agent.ref.tell("Rotated")
      yield* shaken(broker, 2)
      // It was lost on the way, or the answer to it.
      yield* TestClock.adjust(minute)
      yield* shaken(broker, 3)
      assert.strictEqual(last(broker).agreement.version, 2)
      assert.strictEqual(yield* stateOf(agent), "known")
      yield* answer(broker, last(broker), "known")
      yield* pass(30)
      assert.strictEqual(broker.shaken.length, 3)
    })
  )

  it.effect("count again when their answers take longer than it waited for the first", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* coming(broker)
      let answered = 0
      for (let passedMs = 0; passedMs < 5 * minute; passedMs += 1_000) {
        yield* TestClock.adjust(1_000)
        const late = broker.shaken[answered]
        if (late === undefined || passedMs - late.issued_at_ms < 40_000) continue
        answered++
        yield* answer(broker, late, "known")
      }
      assert.strictEqual(yield* stateOf(agent), "known")
    })
  )
})

describe("the list of agents", () => {
  const lifetimeMs = 10 * minute
  const list = ({ agreement, device, signing_key }: Handshake, version: number, issuedAtMs: number) =>
    byServices<Directory>({
      type: "postern/directory/v1",
      version,
      part: 1,
      parts: 1,
      agents: [{ agent: "bob" as Name, device, signing_key, agreement, status: "C", edge_devices: [] }],
      issued_at_ms: issuedAtMs,
      expires_at_ms: issuedAtMs + lifetimeMs
    })

  it.effect("is taken until it expires, so that nobody can bring one with keys of long ago", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* coming(broker)
      yield* pass(30)
      const nowMs = 30 * minute
      const bring = (wire: Uint8Array) => broker.bring("fleet/broker-services/discovery", wire)
      yield* bring(list(last(broker), 9, nowMs - lifetimeMs))
      yield* bring(list(last(broker), 9, nowMs + MessageLimits.receivedFutureMs + 1))
      assert.deepStrictEqual(yield* agent.ref.ask("Peers"), [])
      assert.deepStrictEqual(yield* refusedOf(agent), { expired: 1, from_the_future: 1 })
      yield* bring(list(last(broker), 8, nowMs - lifetimeMs + 1))
      assert.strictEqual((yield* agent.ref.ask("Peers")).length, 1)
    })
  )

  it.effect("counts for as long as the root names the key that signed it", () =>
    Effect.gen(function* () {
      const broker = new PlayedBroker()
      const agent = yield* coming(broker)
      const bring = Effect.suspend(() =>
        broker.bring("fleet/broker-services/discovery", list(last(broker), 1, 0))
      )
      const peers = Effect.map(agent.ref.ask("Peers"), (all) => all.map(({ agent: name }) => name))
      const other = { ...standing, services: new Set([deviceKeys.signingKey]) }
      yield* bring
      agent.trust.set({ ...standing, services: new Set([serverKeys.signingKey, deviceKeys.signingKey]) })
      yield* shaken(broker, 2)
      assert.deepStrictEqual(yield* peers, ["bob"])
      agent.trust.set(other)
      yield* shaken(broker, 3)
      assert.deepStrictEqual(yield* peers, [])
      agent.trust.set(standing)
      yield* shaken(broker, 4)
      yield* bring
      assert.deepStrictEqual(yield* peers, ["bob"])
      // The agent is away when the root changes.
      broker.cut()
      yield* TestKit.until(
        () => Effect.orDie(Effect.map(stateOf(agent), (state) => state === "offline")),
        "its end"
      )
      agent.trust.set(other)
      yield* TestClock.adjust(minute)
      assert.isAbove(broker.shaken.length, 4)
      assert.deepStrictEqual(yield* peers, [])
    })
  )
})
