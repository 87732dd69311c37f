import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Result } from "effect"
import { NativeCrypto, NativeCryptoEngine } from "../../src/adapters/NativeCrypto.ts"
import { RelayThreads, ThreadedRelayCrypto } from "../../src/adapters/relay/ThreadedRelayCrypto.ts"
import { SystemEntropy } from "../../src/adapters/SystemEntropy.ts"
import { toWire } from "../../src/crypto/Messages.ts"
import { receive } from "../../src/crypto/Reception.ts"
import { RelayCrypto } from "../../src/ports/RelayCrypto.ts"
import { brokerServices } from "../../src/schemas/Topics.ts"
import { Fleet, ServicesKeys, serverKeys, startServices, until, withFolder } from "../support/messaging.ts"
import { RogueAgent } from "../support/RogueAgent.ts"
import { relayEntry } from "../support/relayEntry.ts"

const keys = new ServicesKeys()
const Threads = ThreadedRelayCrypto({ keys: keys.relay(), entry: relayEntry, threads: 2 }).pipe(
  Layer.provide(Layer.merge(NativeCryptoEngine, SystemEntropy))
)

/** Broker services on threads, and agents that have shaken hands. */
const setting = <const Names extends ReadonlyArray<string>>(path: string, ...names: Names) =>
  Effect.gen(function* () {
    const built = yield* Layer.build(Threads)
    const fleet = new Fleet()
    for (const name of names) fleet.add(name)
    const relay = Layer.succeed(RelayCrypto, Context.get(built, RelayCrypto))
    const { address } = yield* startServices(fleet, path, { keys, relay })
    const come = (name: string) =>
      Effect.acquireRelease(
        Effect.promise(async () => {
          const agent = await RogueAgent.connect(name, fleet.ring(name), { server: serverKeys.id, address })
          await agent.shakeHands()
          return agent
        }),
        (agent) => Effect.promise(() => agent.leave())
      )
    const agents = yield* Effect.forEach(names, come)
    return { agents, threads: Context.get(built, RelayThreads) }
  })

/** Publishes a private message; ends when it is acknowledged. */
const send = (from: RogueAgent, to: string, body: unknown) =>
  Effect.promise(() => {
    const message = from.message([to], { level: "private", body: body as never })
    return from.publish(
      brokerServices,
      "private",
      toWire(from.sealed(message, brokerServices, keys.ring.agreementKey))
    )
  })

/** The bodies of private messages that came, in the order in which they came. */
const bodiesOf = (agent: RogueAgent): ReadonlyArray<unknown> =>
  agent.arrived
    .filter(({ topic }) => topic === agent.topic(agent.name, "private"))
    .map(({ payload }) => {
      const receiver = {
        name: agent.name,
        agreements: agent.ring.agreements,
        services: new Set<string>([keys.ring.signingKey]),
        keyOf: () => undefined
      }
      const got = receive(NativeCrypto, receiver, "private", new Uint8Array(payload), Date.now())
      return Result.getOrThrow(got).body
    })

const came = (agent: RogueAgent, count: number) =>
  until(
    `${count} messages of ${agent.name}`,
    Effect.sync(() => (bodiesOf(agent).length >= count ? true : undefined))
  )

const numbers = (count: number) => Array.from({ length: count }, (_, index) => index)

describe("broker services on threads", () => {
  it.live("bring every message that they acknowledged, once and in order, whatever thread is killed", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const { agents, threads } = yield* setting(path, "alice", "bob", "carol", "dave")
        const [alice, bob, carol, dave] = agents as [RogueAgent, RogueAgent, RogueAgent, RogueAgent]
        const count = 60
        const sending = yield* Effect.forkChild(
          Effect.all(
            [
              Effect.forEach(numbers(count), (index) => send(alice, "bob", index), { concurrency: 8 }),
              Effect.forEach(numbers(count), (index) => send(carol, "dave", index), { concurrency: 8 })
            ],
            { concurrency: 2 }
          )
        )
        // Work that three threads died over would be given up, with the connection of its sender.
        for (let kills = 0; sending.pollUnsafe() === undefined && kills < 2; ) {
          if ((yield* threads.figures).inHand > 0) yield* threads.kill(kills++)
          yield* Effect.sleep(10)
        }
        yield* Fiber.join(sending)
        // It is heard of a little later.
        yield* until(
          "a death",
          Effect.map(threads.figures, ({ deaths }) => (deaths > 0 ? deaths : undefined))
        )
        for (const receiver of [bob, dave]) {
          yield* came(receiver, count)
          assert.deepStrictEqual(bodiesOf(receiver), numbers(count))
        }
      })
    )
  )

  it.live("carry one agent's messages while another floods without end", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const { agents } = yield* setting(path, "alice", "bob", "mallory", "trent")
        const [alice, bob, mallory] = agents as [RogueAgent, RogueAgent, RogueAgent]
        let flooded = 0
        const flood = yield* Effect.forkChild(
          Effect.forEach(
            numbers(32),
            () =>
              Effect.forever(
                Effect.andThen(
                  send(mallory, "trent", "flood"),
                  Effect.sync(() => {
                    flooded++
                  })
                )
              ),
            { concurrency: "unbounded", discard: true }
          )
        )
        yield* until(
          "the flood to flow",
          Effect.sync(() => (flooded > 64 ? true : undefined))
        )
        for (const index of numbers(5)) {
          yield* send(alice, "bob", index)
          yield* came(bob, index + 1)
        }
        yield* Fiber.interrupt(flood)
        assert.deepStrictEqual(bodiesOf(bob), numbers(5))
        assert.isFalse(mallory.closed)
      })
    )
  )

  it.live("are held up by no recipient that reads nothing", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const { agents } = yield* setting(path, "alice", "bob", "stuck")
        const [alice, bob, stuck] = agents as [RogueAgent, RogueAgent, RogueAgent]
        // The connection stays, and nothing is taken from it any more.
        const socket = stuck.client.stream
        socket.unpipe()
        socket.pause()
        const large = "x".repeat(60_000)
        yield* Effect.forEach(numbers(120), () => send(alice, "stuck", large), { concurrency: 8 })
        yield* send(alice, "bob", 0)
        yield* came(bob, 1)
        assert.deepStrictEqual([bodiesOf(bob), bodiesOf(stuck)], [[0], []])
      })
    )
  )
})
