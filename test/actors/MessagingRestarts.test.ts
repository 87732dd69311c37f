/** What restarts, rotated keys and operators' decisions leave as it was, with messages on their way. */
import { connect } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Scope } from "effect"
import mqtt from "mqtt"
import { BrokerKeeperKey, DirectoryKey } from "../../src/actors/ServerKeys.ts"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { toWire } from "../../src/crypto/Messages.ts"
import { makeOutgoing, outgoingEntropyBytes } from "../../src/crypto/Relay.ts"
import type { Message, SecureLevel } from "../../src/schemas/Message.ts"
import { brokerAnswer } from "../../src/schemas/protocols/BrokerKeeper.ts"
import { brokerServices, topicOf } from "../../src/schemas/Topics.ts"
import {
  bodies,
  Fleet,
  inboxOf,
  inState,
  inStatus,
  refusedOf,
  rotated,
  ServicesKeys,
  type ServicesOptions,
  seesPeers,
  send,
  serverKeys,
  startAgent,
  startServices,
  until,
  withFolder
} from "../support/messaging.ts"
import { freePort } from "../support/Program.ts"
import { newId, RogueAgent } from "../support/RogueAgent.ts"

const levels = ["protected", "private", "end_to_end"] as const satisfies ReadonlyArray<SecureLevel>

const fleetOf = (...names: ReadonlyArray<string>) => {
  const fleet = new Fleet()
  for (const name of names) fleet.add(name)
  return fleet
}

/** Broker services that can be ended and begun again on the same folder and port. */
const restartable = (fleet: Fleet, path: string, options: ServicesOptions = {}) =>
  Effect.gen(function* () {
    const port = yield* Effect.promise(freePort)
    const outer = yield* Effect.scope
    let scope: Scope.Closeable | undefined
    const begin = Effect.gen(function* () {
      scope = yield* Scope.fork(outer)
      return yield* startServices(fleet, path, { ...options, port }).pipe(Scope.provide(scope))
    })
    const end = Effect.suspend(() => (scope === undefined ? Effect.void : Scope.close(scope, Exit.void)))
    return { first: yield* begin, again: Effect.andThen(end, begin), end }
  })

const rogueOf = (fleet: Fleet, name: string, address: URL) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const rogue = await RogueAgent.connect(name, fleet.ring(name), { server: serverKeys.id, address })
      await rogue.shakeHands()
      return rogue
    }),
    (rogue) => Effect.promise(() => rogue.leave())
  )

/** Sends numbers while something happens; gives them. */
const stream = (
  agent: Parameters<typeof send>[0],
  count: number,
  meanwhile: Effect.Effect<unknown, unknown>
) =>
  Effect.gen(function* () {
    const happening = yield* Effect.forkChild(meanwhile)
    const numbers = Array.from({ length: count }, (_, index) => index)
    for (const number of numbers) {
      yield* send(agent, levels[number % levels.length] as SecureLevel, ["bob"], number)
      yield* Effect.sleep(5)
    }
    yield* Fiber.join(happening)
    return numbers
  })

const sorted = (values: ReadonlyArray<unknown>) =>
  [...values].sort((one, other) => Number(one) - Number(other))

describe("restarts", () => {
  it.live("of broker services forget no id, and no proof", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const fleet = fleetOf("alice", "bob")
        const services = yield* restartable(fleet, path)
        const bob = yield* startAgent(fleet, "bob", services.first.address, path)
        yield* inState(bob, "known")
        const alice = yield* rogueOf(fleet, "alice", services.first.address)
        const wires = levels.slice(0, 2).map((level) => {
          const message = alice.message(["bob"], { level, body: level })
          if (level === "protected") return { inbox: "protected" as const, wire: toWire(message) }
          const key = new ServicesKeys().ring.agreementKey
          return { inbox: "private" as const, wire: toWire(alice.sealed(message, brokerServices, key)) }
        })
        for (const { inbox, wire } of wires)
          yield* Effect.promise(() => alice.publish(brokerServices, inbox, wire))
        yield* inboxOf(bob, 2)

        const again = yield* services.again
        const returned = yield* rogueOf(fleet, "alice", again.address)
        for (const { inbox, wire } of wires)
          yield* Effect.promise(() => returned.publish(brokerServices, inbox, wire))
        assert.strictEqual(yield* refusedOf(again, "alice", "replayed"), 2)
        // The proof of the connection before the restart.
        const refused = yield* Effect.promise(() =>
          mqtt
            .connectAsync(`mqtt://${again.address.host}`, {
              clientId: "alice",
              username: "alice",
              password: alice.client.options.password as Buffer,
              reconnectPeriod: 0
            })
            .then(
              (client) => client.endAsync(true).then(() => "taken"),
              (error: { readonly code?: number }) => String(error.code)
            )
        )
        assert.strictEqual(refused, "5")
        const last = returned.message(["bob"], { body: "last" })
        yield* Effect.promise(() => returned.publish(brokerServices, "protected", toWire(last)))
        assert.sameMembers([...bodies(yield* inboxOf(bob, 3))], ["protected", "private", "last"])
      })
    )
  )

  it.live("of broker services turn away nobody who was on the way to them", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const fleet = fleetOf("alice")
        const services = yield* restartable(fleet, path)
        const { hostname, port } = services.first.address
        const begun = yield* Deferred.make<void>()
        const restarted = yield* Deferred.make<void>()
        // As through Tor, where the way takes long.
        const dial = Deferred.succeed(begun, undefined).pipe(
          Effect.andThen(Deferred.await(restarted)),
          Effect.andThen(Effect.sync(() => connect(Number(port), hostname)))
        )
        const alice = yield* startAgent(fleet, "alice", services.first.address, path, {
          find: Effect.succeed({ topicRoot: "mf2c", password: null, brokers: [{ mqtt: 4, dial }] })
        })
        yield* Deferred.await(begun)
        const again = yield* services.again
        yield* Deferred.succeed(restarted, undefined)
        yield* inState(alice, "known")
        assert.deepStrictEqual(yield* again.store.refusals(100), [])
      })
    )
  )

  it.live("of an agent forget no id, and nothing that its application has not dealt with", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const keys = new ServicesKeys()
        const fleet = fleetOf("alice", "bob")
        const services = yield* startServices(fleet, path, { keys })
        const alice = yield* rogueOf(fleet, "alice", services.address)
        /** Brings bob what broker services would. */
        const bring = (message: Message) =>
          Effect.forEach(
            makeOutgoing(
              NativeCrypto,
              keys.relay(),
              { _tag: "Opened", message },
              [{ name: "bob" as never, agreementKey: fleet.ring("bob").agreementKey }],
              Date.now(),
              new Uint8Array(outgoingEntropyBytes).fill(7)
            ),
            ({ inbox, to, wire }) =>
              brokerAnswer(
                services.system.ref(BrokerKeeperKey).ask("Publish", {
                  topic: topicOf("mf2c", { agent: to, inbox }),
                  wire,
                  retain: false
                }),
                60_000
              )
          )
        const messages = (["protected", "private"] as const).map((level) =>
          alice.message(["bob"], { level, body: level })
        )
        const life = Effect.gen(function* () {
          const bob = yield* startAgent(fleet, "bob", services.address, path)
          yield* inState(bob, "known")
          for (const message of messages) {
            yield* bring(message)
            yield* bring(message)
          }
          yield* bring(alice.message(["bob"], { body: newId() }))
          return bob
        })
        yield* Effect.scoped(Effect.flatMap(life, (bob) => inboxOf(bob, 3)))
        const bob = yield* life
        const got = bodies(yield* inboxOf(bob, 4))
        assert.lengthOf(got, 4)
        assert.strictEqual(got.filter((body) => body === "protected").length, 1)
        assert.strictEqual(got.filter((body) => body === "private").length, 1)
      })
    )
  )

  it.live("of broker services, and of the recipient with another key, lose nothing that waits", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const fleet = fleetOf("alice", "bob")
        const services = yield* restartable(fleet, path)
        const alice = yield* startAgent(fleet, "alice", services.first.address, path)
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* inState(yield* startAgent(fleet, "bob", services.first.address, path), "known")
            yield* seesPeers(alice, ["alice", "bob"])
          })
        )
        for (const level of ["public", ...levels] as const) yield* send(alice, level, ["bob"], level)
        yield* until(
          "all to be sent",
          Effect.map(alice.ref.ask("Report"), ({ queued }) => (queued === 0 ? true : undefined))
        )
        yield* services.end
        // Sent while there is no broker at all.
        yield* send(alice, "private", ["bob"], "meanwhile")
        fleet.rings.set("bob", rotated(rotated(fleet.ring("bob"))))
        const again = yield* services.again
        const bob = yield* startAgent(fleet, "bob", again.address, path)
        const got = bodies(yield* inboxOf(bob, 5))
        assert.sameMembers([...got], ["public", ...levels, "meanwhile"])
      })
    )
  )
})

describe("rotated keys", () => {
  it.live("of an agent that is there lose nothing that is on its way", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const fleet = fleetOf("alice", "bob")
        const services = yield* startServices(fleet, path, { intervalMs: 1_000 })
        const alice = yield* startAgent(fleet, "alice", services.address, path)
        const bob = yield* startAgent(fleet, "bob", services.address, path)
        yield* seesPeers(alice, ["alice", "bob"])
        const first = fleet.ring("bob").agreementKey
        const rotate = Effect.gen(function* () {
          for (let time = 0; time < 3; time++) {
            yield* Effect.sleep(60)
            fleet.rings.set("bob", rotated(fleet.ring("bob")))
            yield* bob.ref.tell("Rotated")
          }
        })
        const numbers = yield* stream(alice, 40, rotate)
        assert.deepStrictEqual(sorted(bodies(yield* inboxOf(bob, 40))), numbers)
        const newest = fleet.ring("bob").agreementKey
        assert.notStrictEqual(newest, first)
        yield* until(
          "the newest key in the list",
          Effect.map(alice.ref.ask("Peers"), (peers) =>
            peers.find(({ agreement }) => agreement.key === newest && agreement.version === 4)
          )
        )
        // Of handshakes that overtake the answers to those before, the last one's answer counts.
        const { replayed = 0, ...others } = (yield* bob.ref.ask("Report")).refused
        assert.isAtMost(replayed, 3)
        assert.deepEqual(others as Record<string, number>, {})
      })
    )
  )

  it.live("of broker services lose nothing that is on its way, and reach agents that are there", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const keys = new ServicesKeys()
        const fleet = fleetOf("alice", "bob")
        const services = yield* startServices(fleet, path, { keys })
        const alice = yield* startAgent(fleet, "alice", services.address, path)
        const bob = yield* startAgent(fleet, "bob", services.address, path)
        yield* seesPeers(alice, ["alice", "bob"])
        const rotate = Effect.gen(function* () {
          yield* Effect.sleep(60)
          keys.ring = rotated(keys.ring)
          yield* Effect.sleep(60)
          // The next handshake brings the new key.
          yield* alice.ref.tell("Rotated")
        })
        const numbers = yield* stream(alice, 40, rotate)
        assert.deepStrictEqual(sorted(bodies(yield* inboxOf(bob, 40))), numbers)
        const rows = yield* services.store.refusals(100)
        assert.deepStrictEqual(rows, [])
      })
    )
  )
})

describe("a decision of operators", () => {
  it.live("cuts off who is there, with messages on their way, and nobody else", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const fleet = fleetOf("alice", "bob", "carol")
        const services = yield* startServices(fleet, path)
        const alice = yield* startAgent(fleet, "alice", services.address, path)
        const carol = yield* startAgent(fleet, "carol", services.address, path)
        const bob = yield* startAgent(fleet, "bob", services.address, path)
        yield* seesPeers(alice, ["alice", "bob", "carol"])
        for (let number = 0; number < 20; number++) {
          yield* send(alice, "private", ["bob", "carol"], number)
          if (number !== 10) continue
          const device = fleet.decide("bob", "revoked")
          yield* services.system.ref(DirectoryKey).tell("Decided", { device })
        }
        const got = bodies(yield* inboxOf(carol, 20))
        assert.deepStrictEqual(
          sorted(got),
          Array.from({ length: 20 }, (_, number) => number)
        )
        yield* until(
          "bob to be turned away",
          Effect.map(bob.ref.ask("Report"), ({ detail }) =>
            detail.includes("credentials") ? true : undefined
          )
        )
        yield* seesPeers(alice, ["alice", "carol"])
        assert.isUndefined(services.book.get("bob" as never))
        const before = (yield* bob.store.waiting(0, 100)).length
        yield* send(alice, "private", ["bob", "carol"], "after")
        yield* inboxOf(carol, 21)
        // Of those before, all may have gone out while he was still there.
        yield* until(
          "a refusal",
          Effect.map(refusedOf(services, "alice", "unknown_recipient"), (count) =>
            count > 0 ? count : undefined
          )
        )
        assert.lengthOf(yield* bob.store.waiting(0, 100), before)

        // Accepted again, he comes again, to an empty session.
        fleet.decide("bob", "accepted")
        const returned = yield* startAgent(fleetOf("alice", "bob"), "bob", services.address, `${path}/`)
        yield* inStatus(services, "bob", "C")
        assert.isDefined(returned)
      })
    )
  )

  it.live("cuts off who is there and never shook hands", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const fleet = fleetOf("mute", "bob")
        const { address, system } = yield* startServices(fleet, path)
        const comes = (name: string) =>
          Effect.acquireRelease(
            Effect.promise(() =>
              RogueAgent.connect(name, fleet.ring(name), { server: serverKeys.id, address })
            ),
            (rogue) => Effect.promise(() => rogue.leave())
          )
        const [mute, bob] = [yield* comes("mute"), yield* comes("bob")]
        const device = fleet.decide("mute", "revoked")
        yield* system.ref(DirectoryKey).tell("Decided", { device })
        yield* until(
          "the end of its connection",
          Effect.sync(() => (mute.closed ? true : undefined))
        )
        assert.isFalse(bob.closed)
      })
    )
  )
})
