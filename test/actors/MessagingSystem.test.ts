/** The report's system, part by part, over a real broker (DESIGN 7; the levels of its Table 1). */
import { randomBytes } from "node:crypto"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Result } from "effect"
import { embeddedBroker } from "../../src/adapters/mqtt/EmbeddedBroker.ts"
import { MqttUpgrades } from "../../src/adapters/mqtt/MqttUpgrades.ts"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { openInProcess } from "../../src/adapters/sqlite/InProcessDatabase.ts"
import { messagesDatabase } from "../../src/adapters/sqlite/messages/MessagesDatabase.ts"
import { readDirectory, readHandshake } from "../../src/crypto/Handshakes.ts"
import { toWire } from "../../src/crypto/Messages.ts"
import { isSignedByItsKey, signJson } from "../../src/crypto/SignedJson.ts"
import type { Handshake, HandshakeAnswer } from "../../src/schemas/Agents.ts"
import type { SecureLevel } from "../../src/schemas/Message.ts"
import { brokerServices } from "../../src/schemas/Topics.ts"
import { LooseCable } from "../support/LooseCable.ts"
import {
  type Agent,
  bodies,
  Fleet,
  inboxOf,
  inState,
  inStatus,
  refusedOf,
  type Services,
  ServicesKeys,
  seesPeers,
  send,
  serverKeys,
  startAgent,
  startServices,
  until,
  withFolder
} from "../support/messaging.ts"
import { newId, RogueAgent, signerOf } from "../support/RogueAgent.ts"

const levels = ["protected", "private", "end_to_end"] as const satisfies ReadonlyArray<SecureLevel>

const fleetOf = (...names: ReadonlyArray<string>) => {
  const fleet = new Fleet()
  for (const name of names) fleet.add(name)
  return fleet
}

const rogueOf = (fleet: Fleet, name: string, services: Pick<Services, "address">, topicRoot = "mf2c") =>
  Effect.acquireRelease(
    Effect.promise(() =>
      RogueAgent.connect(name, fleet.ring(name), {
        server: serverKeys.id,
        address: services.address,
        topicRoot
      })
    ),
    (rogue) => Effect.promise(() => rogue.leave())
  )

const looseCable = (services: Pick<Services, "address">) =>
  Effect.acquireRelease(
    Effect.promise(() => LooseCable.to(services.address)),
    (cable) => Effect.promise(() => cable.close())
  )

const refusedAt = (agent: Agent, code: string) =>
  until(
    `a refusal as ${code}`,
    Effect.map(agent.ref.ask("Report"), ({ refused }) => (refused as Record<string, number>)[code])
  )

describe("topics and levels", () => {
  it.live("stand below any root, for every agent and broker services", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const topicRoot = "farm/north"
        const fleet = fleetOf("alice", "bob", "eve")
        const services = yield* startServices(fleet, path, { topicRoot })
        const alice = yield* startAgent(fleet, "alice", services.address, path, {
          topicRoot,
          edgeDevices: ["thermometer"]
        })
        const bob = yield* startAgent(fleet, "bob", services.address, path, { topicRoot })
        yield* seesPeers(alice, ["alice", "bob"])
        for (const level of ["public", ...levels] as const) yield* send(alice, level, ["bob"], level)
        assert.sameMembers([...bodies(yield* inboxOf(bob, 4))], ["public", ...levels])
        const ticket = yield* alice.ref.ask("Ping", { to: brokerServices })
        assert.isNumber(yield* Deferred.await(ticket.answer))
        // Whoever comes later finds the keys and the list below the same root.
        const eve = yield* rogueOf(fleet, "eve", services, topicRoot)
        yield* Effect.promise(() =>
          eve.client.subscribeAsync([`${topicRoot}/+/public/#`, eve.topic(brokerServices, "discovery")], {
            qos: 1
          })
        )
        for (const inbox of [eve.topic("alice", "public/handshake"), eve.topic(brokerServices, "discovery")])
          yield* until(
            inbox,
            Effect.sync(() => eve.arrived.find(({ topic }) => topic === inbox))
          )
        const told = eve.arrived.find(({ topic }) => topic.endsWith("/alice/public/handshake"))
        const shake = Result.getOrThrow(readHandshake(NativeCrypto, new Uint8Array(told?.payload ?? [])))
        assert.deepStrictEqual(shake.edge_devices, ["thermometer"])
        assert.strictEqual(shake.signing_key, fleet.ring("alice").signingKey)
      })
    )
  )

  it.live("bring a message to many recipients, with sender, level, time and proof of origin", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const names = ["bob", "carol", "dave", "erin"]
        const fleet = fleetOf("alice", ...names)
        const services = yield* startServices(fleet, path)
        const alice = yield* startAgent(fleet, "alice", services.address, path)
        const others = yield* Effect.forEach(names, (name) => startAgent(fleet, name, services.address, path))
        yield* seesPeers(alice, ["alice", ...names])
        const before = Date.now()
        for (const level of ["protected", "private"] as const)
          yield* send(alice, level, [...names, "bob"], { level })
        for (const [index, other] of others.entries()) {
          const got = yield* inboxOf(other, 2)
          assert.lengthOf(got, 2, names[index])
          for (const { received } of got) {
            assert.strictEqual(received._tag, "Secure")
            if (received._tag !== "Secure") continue
            const { message, receivedAtMs } = received
            assert.strictEqual(message.from, "alice")
            assert.deepStrictEqual(message.body, { level: message.level })
            assert.deepStrictEqual(message.to as ReadonlyArray<string>, names)
            assert.isAtLeast(message.issued_at_ms, before)
            assert.isAtLeast(receivedAtMs, message.issued_at_ms)
            // The sender's own word, which the recipient can show to others.
            assert.strictEqual(message.signing_key, fleet.ring("alice").signingKey)
            assert.isTrue(isSignedByItsKey(NativeCrypto, message))
          }
        }
      })
    )
  )
})

describe("arrival", () => {
  it.live("is not taken from a false broker's key", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const fleet = fleetOf("alice")
        const services = yield* startServices(fleet, path, { keys: new ServicesKeys("false services") })
        const alice = yield* startAgent(fleet, "alice", services.address, path)
        yield* refusedAt(alice, "bad_signature")
        yield* send(alice, "private", ["bob"], "not for false services")
        const { queued, state } = yield* alice.ref.ask("Report")
        assert.deepStrictEqual({ queued, state }, { queued: 1, state: "connected" })
        assert.deepStrictEqual(yield* alice.ref.ask("Peers"), [])
      })
    )
  )

  it.live("is not taken from another's nonce or a replayed answer, but from the right one", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const keys = new ServicesKeys()
        const fleet = fleetOf("alice")
        const shakes: Array<Handshake> = []
        const database = yield* openInProcess(messagesDatabase, `${path}/messages.db`)
        const broker = yield* embeddedBroker({
          listen: { host: "127.0.0.1", port: 0 },
          upgrades: new MqttUpgrades(),
          topicRoot: "mf2c",
          maximumConnections: 10,
          queuePackets: 100,
          database
        })({
          authenticate: () => Effect.succeed("agent"),
          received: ({ payload, topic }) =>
            Effect.sync(() => {
              if (topic.endsWith("/handshake"))
                shakes.push(Result.getOrThrow(readHandshake(NativeCrypto, payload)))
            }),
          presence: () => Effect.void,
          refused: () => Effect.void
        })
        const address = new URL(broker.addresses[0] as string)
        const alice = yield* startAgent(fleet, "alice", address, path)
        const shake = yield* until(
          "the handshake",
          Effect.sync(() => shakes[0])
        )
        const answer = (changes: Partial<HandshakeAnswer> = {}) =>
          broker.publish(
            "mf2c/alice/handshake",
            toWire(
              signJson<HandshakeAnswer>(NativeCrypto, signerOf(keys.ring), {
                type: "postern/handshake-answer/v1",
                agent: "alice" as never,
                session: shake.session,
                nonce: shake.nonce,
                verdict: "known",
                detail: "",
                agreement: { key: keys.ring.agreementKey, version: 1 },
                issued_at_ms: Date.now(),
                ...changes
              })
            )
          )
        const wrong: ReadonlyArray<Partial<HandshakeAnswer>> = [
          { nonce: newId() },
          { session: newId() as never },
          { agent: "bob" as never }
        ]
        for (const changes of wrong) yield* answer(changes)
        yield* until(
          "three refusals",
          Effect.map(alice.ref.ask("Report"), ({ refused }) => (refused.replayed === 3 ? true : undefined))
        )
        assert.strictEqual((yield* alice.ref.ask("Report")).state, "connected")
        yield* answer()
        yield* inState(alice, "known")
      })
    )
  )
})

describe("status", () => {
  it.live("tells of a pulled cable, and of a new session while the old one's will is still to come", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const fleet = fleetOf("alice", "bob")
        const services = yield* startServices(fleet, path)
        const cable = yield* looseCable(services)
        // One that keeps in touch every second, and one that does so rarely.
        yield* startAgent(fleet, "alice", cable.address, path, { keepaliveSeconds: 1 })
        const stale = yield* Effect.promise(() =>
          RogueAgent.connect("bob", fleet.ring("bob"), {
            server: serverKeys.id,
            address: cable.address,
            keepaliveSeconds: 600
          })
        )
        yield* Effect.promise(() => stale.shakeHands())
        yield* inStatus(services, "alice", "C")
        const first = yield* inStatus(services, "bob", "C")
        cable.pull()
        yield* inStatus(services, "alice", "DU")
        // Nobody can know yet that bob is gone; he comes again by another way, and his old will is published then.
        assert.strictEqual(services.book.get("bob" as never)?.status, "C")
        const bob = yield* rogueOf(fleet, "bob", services)
        yield* Effect.promise(() => bob.shakeHands())
        yield* Effect.promise(() => bob.publish(brokerServices, "status", stale.status("DU")))
        yield* until(
          "the stale status to be refused",
          Effect.map(refusedOf(services, "bob", "replayed"), (count) => (count > 0 ? count : undefined))
        )
        const now = yield* inStatus(services, "bob", "C")
        assert.notStrictEqual(now.session, first.session)
        cable.plug()
        yield* inStatus(services, "alice", "C")
        yield* Effect.promise(() => stale.leave())
      })
    )
  )

  it.live("tells of a broken connection, and of a clean leave, which stays one", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const fleet = fleetOf("alice", "bob")
        const services = yield* startServices(fleet, path)
        const cable = yield* looseCable(services)
        const bob = yield* rogueOf(fleet, "bob", { address: cable.address })
        yield* Effect.promise(() => bob.shakeHands())
        yield* inStatus(services, "bob", "C")
        cable.cut()
        yield* inStatus(services, "bob", "DU")

        const before = Date.now()
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* inState(yield* startAgent(fleet, "alice", services.address, path), "known")
          })
        )
        const left = yield* inStatus(services, "alice", "DG")
        assert.isAtLeast(left.statusAtMs, before)
        // What bob's coming changes is told after whatever alice's leaving has left to be told.
        const again = yield* rogueOf(fleet, "bob", services)
        yield* Effect.promise(() => again.shakeHands())
        yield* inStatus(services, "bob", "C")
        assert.strictEqual(services.book.get("alice" as never)?.status, "DG")
      })
    )
  )
})

describe("discovery", () => {
  const listsAt = (eve: RogueAgent) =>
    eve.arrived
      .filter(({ topic }) => topic.endsWith("/discovery"))
      .map(({ payload }) => Result.getOrThrow(readDirectory(NativeCrypto, new Uint8Array(payload))))

  it.live("is signed, kept for those who come later, told at intervals, and never names who hides", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const keys = new ServicesKeys()
        const fleet = fleetOf("alice", "bob", "eve", "late")
        const services = yield* startServices(fleet, path, { keys, intervalMs: 600 })
        const eve = yield* rogueOf(fleet, "eve", services)
        yield* Effect.promise(() =>
          eve.client.subscribeAsync([eve.topic(brokerServices, "discovery"), "mf2c/+/public/handshake"], {
            qos: 1
          })
        )
        // The one that is kept may come beside one that is told just now, or behind it.
        const subscribedAtMs = Date.now()
        const alice = yield* startAgent(fleet, "alice", services.address, path, {
          edgeDevices: ["thermometer", "pump"]
        })
        const bob = yield* startAgent(fleet, "bob", services.address, path, { visible: false })
        yield* inState(bob, "known")
        yield* seesPeers(bob, ["alice"])
        const [entry] = yield* seesPeers(alice, ["alice"])
        assert.deepStrictEqual(entry?.edge_devices, ["thermometer", "pump"])
        const seen = listsAt(eve).length
        // Nothing changes any more, and it is told all the same.
        yield* until(
          "two further lists",
          Effect.sync(() => (listsAt(eve).length >= seen + 2 ? true : undefined))
        )
        // However short the interval: clocks differ, and broker services may be away for a while.
        for (const { expires_at_ms, issued_at_ms } of listsAt(eve))
          assert.strictEqual(expires_at_ms - issued_at_ms, 15 * 60_000)
        const versions = listsAt(eve).flatMap(({ issued_at_ms, version }) =>
          issued_at_ms > subscribedAtMs ? [version] : []
        )
        assert.isAtLeast(versions.length, 2)
        assert.deepStrictEqual(
          versions,
          [...versions].sort((one, other) => one - other)
        )
        assert.strictEqual(new Set(versions).size, versions.length)
        for (const { signing_key } of listsAt(eve)) assert.strictEqual(signing_key, keys.ring.signingKey)
        assert.notInclude(JSON.stringify(listsAt(eve)), '"bob"')

        // Alice hides, and is gone from the list and from what is kept for those who come later.
        yield* alice.ref.tell("Show", { visible: false, edgeDevices: [] })
        yield* seesPeers(bob, [])
        const late = yield* rogueOf(fleet, "late", services)
        yield* Effect.promise(() =>
          late.client.subscribeAsync(["mf2c/+/public/handshake", late.topic(brokerServices, "discovery")], {
            qos: 1
          })
        )
        yield* until(
          "the list",
          Effect.sync(() => listsAt(late)[0])
        )
        assert.deepStrictEqual(
          listsAt(late).flatMap(({ agents }) => agents),
          []
        )
        assert.lengthOf(
          late.arrived.filter(({ topic }) => topic.endsWith("/public/handshake")),
          0
        )
      })
    )
  )
})

describe("ping", () => {
  it.live("measures the way to peers and broker services, and is answered so many times alone", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const fleet = fleetOf("alice", "bob", "mallory")
        const services = yield* startServices(fleet, path)
        const alice = yield* startAgent(fleet, "alice", services.address, path)
        const bob = yield* startAgent(fleet, "bob", services.address, path)
        const mallory = yield* rogueOf(fleet, "mallory", services)
        yield* Effect.promise(() => mallory.shakeHands())
        yield* seesPeers(alice, ["alice", "bob", "mallory"])
        yield* seesPeers(bob, ["alice", "bob", "mallory"])
        for (const to of ["bob", "bob", brokerServices] as const) {
          const ticket = yield* alice.ref.ask("Ping", { to: to as never })
          assert.isAtLeast((yield* Deferred.await(ticket.answer)) ?? -1, 0)
        }
        yield* until(
          "the quality of both links",
          Effect.map(alice.ref.ask("Report"), ({ links }) => {
            const told = links.map(({ agent, lost, pings }) => ({ agent: String(agent), lost, pings }))
            return JSON.stringify(told) ===
              JSON.stringify([
                { agent: "bob", lost: 0, pings: 2 },
                { agent: brokerServices, lost: 0, pings: 1 }
              ])
              ? links
              : undefined
          })
        )

        // A question is answered once, as often as it is asked; and many questions are answered for a part.
        const earlier = (yield* bob.ref.ask("Report")).refused.replayed ?? 0
        const begunMs = performance.now()
        const question = mallory.ping("bob")
        for (let time = 0; time < 3; time++)
          yield* Effect.promise(() => mallory.publish("bob", "public/pingreq", question))
        for (let time = 0; time < 30; time++)
          yield* Effect.promise(() => mallory.publish("bob", "public/pingreq", mallory.ping("bob")))
        // In another's name, and to another.
        yield* Effect.promise(() =>
          mallory.publish("bob", "public/pingreq", mallory.ping("bob", { from: "alice" as never }))
        )
        yield* Effect.promise(() => mallory.publish("bob", "public/pingreq", mallory.ping("alice")))
        const { refused } = yield* until(
          "all questions to be judged",
          Effect.map(bob.ref.ask("Report"), (report) =>
            (report.refused.wrong_recipient ?? 0) > 0 ? report : undefined
          )
        )
        // Five at once, and one a second.
        const answered = 5 + Math.ceil((performance.now() - begunMs) / 1_000)
        assert.isAtLeast(refused.overloaded ?? 0, 31 - answered)
        assert.strictEqual((refused.replayed ?? 0) - earlier, 2)
        assert.strictEqual(refused.unknown_sender, 1)
        const answers = mallory.arrived.filter(({ topic }) => topic.endsWith("/mallory/public/pingack"))
        assert.isAtMost(answers.length, answered)
      })
    )
  )
})

describe("an agent's inboxes", () => {
  it.live("take nothing that any other than broker services could have put there", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const fleet = fleetOf("alice", "bob")
        const services = yield* startServices(fleet, path)
        const bob = yield* startAgent(fleet, "bob", services.address, path)
        const alice = yield* rogueOf(fleet, "alice", services)
        yield* Effect.promise(() => alice.shakeHands())
        yield* inState(bob, "known")
        const fill = yield* Effect.forkChild(
          Effect.forEach(
            Array.from({ length: 50 }),
            () => Effect.promise(() => alice.publish("bob", "public", new Uint8Array(randomBytes(100)))),
            { discard: true }
          )
        )
        yield* Fiber.join(fill)
        yield* until(
          "the refusals",
          Effect.map(bob.ref.ask("Report"), ({ refused }) => (refused.malformed === 50 ? true : undefined))
        )
        // A good one behind them, from somebody who signs with another key than its own: a claim, no more.
        const claimed = {
          type: "postern/public/v1",
          id: newId(),
          claimed_from: "carol",
          issued_at_ms: Date.now(),
          subject: "",
          body: "from carol, it says"
        }
        const wire = new TextEncoder().encode(JSON.stringify(claimed))
        for (let time = 0; time < 2; time++) yield* Effect.promise(() => alice.publish("bob", "public", wire))
        const [first, ...more] = yield* inboxOf(bob, 1)
        assert.strictEqual(first?.received._tag, "Public")
        assert.lengthOf(more, 0)
        assert.isFalse(alice.closed)
      })
    )
  )
})
