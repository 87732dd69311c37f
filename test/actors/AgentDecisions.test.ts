/** What operators' decisions do to agents: registrar and directory as they are, over real stores, beside a broker that obeys or not. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Exit, Layer, Redacted } from "effect"
import { TestClock } from "effect/testing"
import { directory } from "../../src/actors/Directory.ts"
import { registrar } from "../../src/actors/Registrar.ts"
import { BrokerKeeperKey, DirectoryKey, RegistrarKey } from "../../src/actors/ServerKeys.ts"
import { AgentBookCell } from "../../src/adapters/AgentBookCell.ts"
import { LocalRelayCrypto } from "../../src/adapters/mqtt/LocalRelayCrypto.ts"
import type { NodeKeyRing } from "../../src/adapters/NodeKeys.ts"
import { openInProcess } from "../../src/adapters/sqlite/InProcessDatabase.ts"
import { messagesDatabase } from "../../src/adapters/sqlite/messages/MessagesDatabase.ts"
import { MessageStoreOver } from "../../src/adapters/sqlite/SqliteMessageStore.ts"
import { toWire } from "../../src/crypto/Messages.ts"
import { signJson } from "../../src/crypto/SignedJson.ts"
import { Backoff, ChildSpec, Supervisor } from "../../src/kernel/index.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import { AgentBook } from "../../src/ports/AgentBook.ts"
import { FleetStore } from "../../src/ports/FleetStore.ts"
import { MessageStore } from "../../src/ports/MessageStore.ts"
import type { Handshake, SessionId } from "../../src/schemas/Agents.ts"
import type { Admission, Preauthorisation } from "../../src/schemas/Enrolment.ts"
import { type DeviceId, Incarnation, type Name, type ServerId } from "../../src/schemas/Ids.ts"
import type { MessageId } from "../../src/schemas/Message.ts"
import { NoBroker } from "../../src/schemas/protocols/BrokerKeeper.ts"
import type { TopicRole } from "../../src/schemas/TopicRights.ts"
import { admission, enrolment, makeDisk, servicesOver } from "../support/fleet.ts"
import { device, engine, nowMs, otherDevice, server, signAsOperator, trust } from "../support/operators.ts"

const [cellar, attic] = ["pi-cellar", "pi-attic"] as [Name, Name]
const topicRoot = "mf2c"
const session = "s".repeat(26) as SessionId
const idOf = (letter: string) => letter.repeat(26) as MessageId

/** Time in steps, so that what it sets off is done meanwhile. */
const pass = (totalMs: number) =>
  Effect.replicateEffect(Effect.andThen(TestClock.adjust(500), TestKit.settle), totalMs / 500, {
    discard: true
  })

const handshake = (by: NodeKeyRing, agent: Name, atMs: number) =>
  toWire(
    signJson<Handshake>(
      engine,
      { seed: Redacted.value(by.signingSeed), signingKey: by.signingKey },
      {
        type: "postern/handshake/v1",
        agent,
        device: by.id as DeviceId,
        session,
        nonce: idOf("n"),
        agreement: { key: by.agreementKey, version: 1 },
        visible: true,
        edge_devices: [],
        issued_at_ms: atMs
      }
    )
  )

/** Stores that outlive a server, and a broker that obeys while it may. */
const makeWorld = Effect.gen(function* () {
  yield* TestClock.setTime(nowMs + 10_000)
  const broker = {
    obeys: true,
    connected: [] as ReadonlyArray<string>,
    expelled: [] as Array<string>,
    published: [] as Array<string>
  }
  const database = yield* openInProcess(messagesDatabase, ":memory:")
  return { broker, database, disk: yield* makeDisk }
})
type World = Effect.Success<typeof makeWorld>

/** The broker does it at once. */
const done = (what: () => void) =>
  Effect.sync(() => {
    what()
    const answer = Deferred.makeUnsafe<Exit.Exit<void, NoBroker>>()
    Deferred.doneUnsafe(answer, Effect.succeed(Exit.void))
    return { id: 0, waitMs: 0, answer }
  })

/** A server with messaging, as far as decisions go. It ends with its scope. */
const start = Effect.fnUntraced(function* ({ broker, database, disk }: World) {
  const services = yield* Layer.build(
    Layer.mergeAll(
      MessageStoreOver(database),
      AgentBookCell,
      LocalRelayCrypto({
        signer: { seed: Redacted.value(server.signingSeed), signingKey: server.signingKey },
        agreements: server.agreements,
        agreement: { key: server.agreementKey, version: 1 }
      })
    ).pipe(Layer.provideMerge(servicesOver(disk)))
  )
  const keeper = TestKit.probe(BrokerKeeperKey, {
    Connected: () => Effect.succeed(broker.connected),
    Expel: ({ payload }) =>
      broker.obeys
        ? done(() => broker.expelled.push(payload.agent))
        : Effect.fail(new NoBroker({ reason: "it hangs" })),
    Publish: ({ payload }) => done(() => broker.published.push(payload.topic))
  })
  const root = Supervisor.spec({
    id: "server",
    strategy: "one-for-one",
    backoff: Backoff.none,
    children: [
      keeper.spec,
      ChildSpec.make({ key: RegistrarKey, behaviour: registrar }),
      ChildSpec.make({ key: DirectoryKey, behaviour: directory({ topicRoot, intervalMs: 60_000 }) })
    ]
  })
  const system = yield* Effect.provide(TestKit.make({ root }), services)
  const registry = system.ref(RegistrarKey)
  const agents = system.ref(DirectoryKey)
  yield* registry.ask("PublishRoot", { envelope: trust.envelope, actor: "anna" })
  const parts = yield* Effect.all({ store: MessageStore, book: AgentBook, fleet: FleetStore }).pipe(
    Effect.provideContext(services)
  )
  let sequence = 0
  return {
    ...parts,
    agents,
    enrol: (by: NodeKeyRing) =>
      Effect.flatMap(Clock.currentTimeMillis, (atMs) =>
        registry.ask("Enrol", { device: by.id as DeviceId, envelope: enrolment(atMs, by).envelope })
      ),
    preauthorise: (by: NodeKeyRing, name: Name) =>
      Effect.gen(function* () {
        const atMs = yield* Clock.currentTimeMillis
        const document: Preauthorisation = {
          type: "postern/preauthorisation/v1",
          subject: by.id as DeviceId,
          name,
          server: server.id as ServerId,
          root_digest: trust.digest,
          root_version: 1,
          issued_at_ms: atMs,
          expires_at_ms: atMs + 60_000
        }
        const { envelope } = signAsOperator("preauthorisation", document)
        yield* registry.ask("Preauthorise", { envelope, actor: "anna" })
      }),
    decide: (by: NodeKeyRing, changes: Partial<Admission>) =>
      Effect.gen(function* () {
        sequence += 1
        const atMs = yield* Clock.currentTimeMillis
        const { envelope } = admission(atMs, { sequence: atMs - nowMs + sequence, ...changes }, by)
        yield* registry.ask("Admit", { device: by.id as DeviceId, envelope, actor: "anna" })
        yield* TestKit.settle
      }),
    shake: (by: NodeKeyRing, agent: Name, role: TopicRole = "agent") =>
      Effect.gen(function* () {
        const wire = handshake(by, agent, yield* Clock.currentTimeMillis)
        yield* agents.ask("Arrived", { inbox: "handshake", from: agent, role, wire })
        yield* TestKit.settle
      }),
    /** Something that waits for an agent. */
    leave: (to: Name, id: string) =>
      parts.store.accept(
        "carol's" as DeviceId,
        idOf(id),
        nowMs * 2,
        [{ to, inbox: "private", wire: Uint8Array.of(1) }],
        nowMs
      )
  }
})

/** The device is an agent, and something waits for it. */
const withAgent = Effect.gen(function* () {
  const world = yield* makeWorld
  const fleet = yield* start(world)
  yield* fleet.enrol(device)
  yield* fleet.decide(device, {})
  yield* fleet.shake(device, cellar)
  yield* fleet.leave(cellar, "a")
  yield* pass(1_000)
  world.broker.expelled.length = 0
  world.broker.published.length = 0
  return { world, ...fleet }
})

describe("a decision about a device", () => {
  it.effect("cuts off who was turned away: nothing is passed on, session and all that waits are gone", () =>
    Effect.gen(function* () {
      const { book, decide, shake, store, world } = yield* withAgent
      assert.strictEqual(book.get(cellar)?.device, device.id)
      yield* decide(device, { decision: "revoke" })
      assert.isUndefined(book.get(cellar))
      assert.deepStrictEqual(world.broker.expelled, [cellar])
      assert.include(world.broker.published, `${topicRoot}/${cellar}/public/handshake`)
      assert.deepStrictEqual(yield* store.agents, [])
      assert.deepStrictEqual(yield* store.undelivered(cellar, 0, 10), [])
      // Everybody hears of it with the next list, and it does not come back.
      yield* pass(1_000)
      assert.include(world.broker.published, `${topicRoot}/broker-services/discovery`)
      yield* shake(device, cellar)
      assert.isUndefined(book.get(cellar))
    })
  )

  it.effect(
    "holds where the broker fails: nothing is passed on meanwhile, and it is asked until it obeys",
    () =>
      Effect.gen(function* () {
        const { agents, book, decide, enrol, shake, store, world } = yield* withAgent
        world.broker.obeys = false
        yield* decide(device, { decision: "revoke" })
        assert.isUndefined(book.get(cellar))
        yield* pass(20_000)
        assert.lengthOf(yield* store.agents, 1)
        // Whoever gets the name meanwhile must wait until all of its last owner is gone.
        yield* enrol(otherDevice)
        yield* decide(otherDevice, { name: cellar })
        yield* shake(otherDevice, cellar)
        assert.isUndefined(book.get(cellar))
        world.broker.obeys = true
        yield* pass(31_000)
        assert.include(world.broker.expelled, cellar)
        assert.deepStrictEqual(yield* store.undelivered(cellar, 0, 10), [])
        yield* shake(otherDevice, cellar)
        assert.strictEqual(book.get(cellar)?.device, otherDevice.id)
        assert.lengthOf(yield* agents.ask("Agents", { behind: null, status: null, limit: 10 }), 1)
      })
  )

  it.effect("ends an old name with all that waits under it, and lets the device in under its new one", () =>
    Effect.gen(function* () {
      const { book, decide, leave, shake, store, world } = yield* withAgent
      yield* decide(device, { name: attic })
      assert.isUndefined(book.get(cellar))
      assert.sameMembers(world.broker.expelled, [cellar, attic])
      assert.deepStrictEqual(yield* store.undelivered(cellar, 0, 10), [])
      yield* leave(attic, "b")
      yield* shake(device, attic)
      assert.strictEqual(book.get(attic)?.device, device.id)
      assert.lengthOf(yield* store.undelivered(attic, 0, 10), 1)
    })
  )

  it.effect("leaves an agent alone that is accepted again, as after a restored ledger", () =>
    Effect.gen(function* () {
      const { book, decide, store, world } = yield* withAgent
      yield* decide(device, { incarnation: Incarnation.make("b".repeat(26)) })
      yield* pass(1_000)
      assert.deepStrictEqual(world.broker.expelled, [])
      assert.strictEqual(book.get(cellar)?.device, device.id)
      assert.lengthOf(yield* store.undelivered(cellar, 0, 10), 1)
    })
  )

  it.effect("lets in who waits as a stranger: cut off, it comes again as an agent", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld
      const { book, decide, enrol, shake, store } = yield* start(world)
      yield* enrol(device)
      yield* shake(device, cellar)
      assert.isUndefined(book.get(cellar))
      yield* decide(device, {})
      assert.deepStrictEqual(world.broker.expelled, [cellar])
      yield* shake(device, cellar)
      assert.strictEqual(book.get(cellar)?.device, device.id)
      yield* pass(10_000)
      assert.deepStrictEqual(world.broker.expelled, [cellar])
      assert.lengthOf(yield* store.agents, 1)
    })
  )

  it.effect(
    "makes nobody an agent whose session the broker has still to end: what came for it would go too",
    () =>
      Effect.gen(function* () {
        const world = yield* makeWorld
        const { book, decide, enrol, shake } = yield* start(world)
        yield* enrol(device)
        world.broker.obeys = false
        yield* decide(device, {})
        // It comes while the broker is asked again and again.
        yield* shake(device, cellar)
        assert.isUndefined(book.get(cellar))
        world.broker.obeys = true
        yield* pass(31_000)
        assert.deepStrictEqual(world.broker.expelled, [cellar])
        yield* shake(device, cellar)
        assert.strictEqual(book.get(cellar)?.device, device.id)
        yield* pass(60_000)
        assert.deepStrictEqual(world.broker.expelled, [cellar])
      })
  )

  it.effect(
    "that a stranger's connection was not told of makes it no agent: cut off, it comes again as one",
    () =>
      Effect.gen(function* () {
        const world = yield* makeWorld
        const { book, enrol, fleet, shake, store } = yield* start(world)
        yield* enrol(device)
        yield* shake(device, cellar, "stranger")
        // The store has it, and nobody is told.
        const { decision, envelope } = admission(nowMs, { sequence: 1_000_000 })
        yield* fleet.admit(decision, envelope, "anna", nowMs)
        yield* shake(device, cellar, "stranger")
        assert.isUndefined(book.get(cellar))
        assert.deepStrictEqual(yield* store.agents, [])
        assert.deepStrictEqual(world.broker.expelled, [cellar])
        yield* shake(device, cellar)
        assert.strictEqual(book.get(cellar)?.device, device.id)
      })
  )

  it.effect("made beforehand counts as well: who enrols is let in at once", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld
      const { enrol, preauthorise } = yield* start(world)
      yield* preauthorise(device, cellar)
      yield* enrol(device)
      yield* TestKit.settle
      assert.deepStrictEqual(world.broker.expelled, [cellar])
      // It asks again and again; that is no decision.
      yield* enrol(device)
      yield* pass(1_000)
      assert.deepStrictEqual(world.broker.expelled, [cellar])
    })
  )

  it.effect("is followed up after a restart in between, and where the word of it was lost", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld
      yield* Effect.scoped(
        Effect.gen(function* () {
          const { decide, enrol, fleet, leave, shake } = yield* start(world)
          yield* enrol(device)
          yield* decide(device, {})
          yield* shake(device, cellar)
          yield* leave(cellar, "a")
          // The store has it, and nobody is told.
          const { decision, envelope } = admission(nowMs, { decision: "revoke", sequence: 1_000_000 })
          yield* fleet.admit(decision, envelope, "anna", nowMs)
        })
      )
      world.broker.expelled.length = 0
      const { book, store } = yield* start(world)
      yield* pass(1_000)
      assert.isUndefined(book.get(cellar))
      assert.deepStrictEqual(world.broker.expelled, [cellar])
      assert.deepStrictEqual(yield* store.agents, [])
      assert.deepStrictEqual(yield* store.undelivered(cellar, 0, 10), [])
    })
  )

  it.effect("is told again where the directory had no place for the word", () =>
    Effect.gen(function* () {
      const { disk } = yield* makeWorld
      const isFree = yield* Deferred.make<void>()
      const busy = TestKit.probe(DirectoryKey, { Review: () => Deferred.await(isFree) })
      const decidedOf = () => busy.messages.filter(([tag]) => tag === "Decided").map(([, payload]) => payload)
      const registering = ChildSpec.make({ key: RegistrarKey, behaviour: registrar })
      const root = Supervisor.spec({
        id: "server",
        strategy: "one-for-one",
        children: [registering, busy.spec]
      })
      const system = yield* Effect.provide(TestKit.make({ root }), yield* Layer.build(servicesOver(disk)))
      const registry = system.ref(RegistrarKey)
      const by = device.id as DeviceId
      yield* registry.ask("PublishRoot", { envelope: trust.envelope, actor: "anna" })
      yield* registry.ask("Enrol", { device: by, envelope: enrolment(nowMs + 10_000, device).envelope })
      yield* pass(1_000)
      const before = decidedOf().length
      const fill = Effect.forever(system.ref(DirectoryKey).tell("Review"))
      assert.strictEqual((yield* Effect.flip(fill))._tag, "MailboxFull")
      const { envelope } = admission(nowMs + 10_000, { sequence: 1 }, device)
      yield* registry.ask("Admit", { device: by, envelope, actor: "anna" })
      yield* pass(60_000)
      assert.lengthOf(decidedOf(), before)
      yield* Deferred.succeed(isFree, undefined)
      yield* pass(1_000)
      assert.deepStrictEqual(decidedOf().slice(before), [{ device: by }])
    })
  )

  it.effect("reaches who was judged before it and stands at the broker after it", () =>
    Effect.gen(function* () {
      const { agents, decide, world } = yield* withAgent
      yield* decide(device, { decision: "revoke" })
      world.broker.expelled.length = 0
      yield* agents.tell("Present", { agent: cellar, connected: true, role: "stranger" })
      yield* TestKit.settle
      assert.deepStrictEqual(world.broker.expelled, [])
      yield* agents.tell("Present", { agent: cellar, connected: true, role: "agent" })
      yield* TestKit.settle
      assert.deepStrictEqual(world.broker.expelled, [cellar])
    })
  )
})

/** A device that is accepted and connected as an agent, and never shakes hands. */
const withMute = Effect.gen(function* () {
  const world = yield* makeWorld
  const fleet = yield* start(world)
  const present = (agent: string, role: TopicRole, connected = true) =>
    Effect.andThen(fleet.agents.tell("Present", { agent: agent as Name, connected, role }), TestKit.settle)
  yield* fleet.enrol(device)
  yield* fleet.decide(device, {})
  yield* present(cellar, "agent")
  world.broker.connected = [cellar]
  world.broker.expelled.length = 0
  world.broker.published.length = 0
  return { world, present, ...fleet }
})

/** So often all agents are held against the fleet. */
const reviewMs = 5 * 60_000

describe("a decision about a device that never said who it is", () => {
  it.effect("cuts it off at once where it stands at the broker, with what it left for others", () =>
    Effect.gen(function* () {
      const { decide, world } = yield* withMute
      yield* decide(device, { decision: "revoke" })
      assert.deepStrictEqual(world.broker.expelled, [cellar])
      assert.include(world.broker.published, `${topicRoot}/${cellar}/public/handshake`)
    })
  )

  it.effect("ends what stands under its old name, and nothing of whoever has that name now", () =>
    Effect.gen(function* () {
      const { decide, enrol, present, shake, world } = yield* withMute
      yield* decide(device, { name: attic })
      assert.sameMembers(world.broker.expelled, [cellar, attic])
      yield* enrol(otherDevice)
      yield* decide(otherDevice, { name: cellar })
      yield* present(cellar, "agent")
      yield* shake(otherDevice, cellar)
      world.broker.expelled.length = 0
      yield* decide(device, { decision: "revoke" })
      yield* pass(reviewMs)
      assert.deepStrictEqual(world.broker.expelled, [])
    })
  )

  it.effect("leaves it where it is while it is accepted, and strangers at any time", () =>
    Effect.gen(function* () {
      const { present, world } = yield* withMute
      yield* present("who-1", "stranger")
      world.broker.connected = [cellar, "who-1"]
      yield* pass(2 * reviewMs)
      assert.deepStrictEqual(world.broker.expelled, [])
    })
  )

  it.effect("ends the session of one that has left", () =>
    Effect.gen(function* () {
      const { decide, present, world } = yield* withMute
      yield* present(cellar, "agent", false)
      world.broker.connected = []
      yield* decide(device, { decision: "revoke" })
      yield* pass(reviewMs)
      assert.deepStrictEqual(world.broker.expelled, [cellar])
    })
  )

  it.effect("reaches it with the next review where the word of the decision was lost", () =>
    Effect.gen(function* () {
      const { fleet, world } = yield* withMute
      const { decision, envelope } = admission(nowMs, { decision: "revoke", sequence: 1_000_000 })
      yield* fleet.admit(decision, envelope, "anna", nowMs)
      yield* pass(reviewMs)
      assert.deepStrictEqual(world.broker.expelled, [cellar])
    })
  )

  it.effect("reaches it where the directory has begun anew meanwhile, and knows nobody who is there", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld
      world.broker.connected = [cellar, attic]
      yield* Effect.scoped(
        Effect.gen(function* () {
          const { decide, enrol } = yield* start(world)
          yield* enrol(device)
          yield* decide(device, { decision: "revoke" })
          yield* enrol(otherDevice)
          yield* decide(otherDevice, { name: attic })
        })
      )
      world.broker.expelled.length = 0
      yield* start(world)
      yield* pass(1_000)
      assert.deepStrictEqual(world.broker.expelled, [cellar])
    })
  )
})

describe("an agent that went without a word", () => {
  it.effect("is told as gone when the broker has missed it twice, and not one that is just coming", () =>
    Effect.gen(function* () {
      const { agents, book, world } = yield* withAgent
      world.broker.connected = [cellar]
      yield* pass(2 * reviewMs)
      assert.strictEqual(book.get(cellar)?.status, "C")
      world.broker.connected = []
      yield* pass(reviewMs)
      assert.strictEqual(book.get(cellar)?.status, "C")
      yield* agents.tell("Present", { agent: cellar, connected: true, role: "agent" })
      yield* TestKit.settle
      yield* pass(reviewMs)
      assert.strictEqual(book.get(cellar)?.status, "C")
      // The word that it has gone is lost.
      yield* pass(2 * reviewMs)
      assert.strictEqual(book.get(cellar)?.status, "DU")
    })
  )
})

describe("what the directory tells operators", () => {
  it.effect("is who the agents are, what waits for them, and what was refused, strangers together", () =>
    Effect.gen(function* () {
      const { agents, enrol, decide, shake, leave } = yield* withAgent
      yield* enrol(otherDevice)
      yield* decide(otherDevice, { name: attic })
      yield* shake(otherDevice, attic)
      yield* leave(cellar, "c")
      const junk = Uint8Array.of(0x7b)
      for (const from of [attic, "who-1" as Name, "who-2" as Name, "who-3" as Name])
        yield* agents.ask("Arrived", { inbox: "status", from, role: "stranger", wire: junk })
      yield* pass(6_000)
      const overview = yield* agents.ask("Overview")
      assert.deepInclude(overview, {
        signing_key: server.signingKey,
        agents: { C: 2, DG: 0, DU: 0 },
        visible: 2,
        undelivered: 2,
        queued: 0,
        refusals: { malformed: 4 }
      })
      const rows = yield* agents.ask("Refusals", { limit: 10 })
      assert.deepStrictEqual(
        rows.map(({ agent, code, count }) => [agent, code, count]),
        [
          [null, "malformed", 3],
          ["pi-attic", "malformed", 1]
        ]
      )
      const all = yield* agents.ask("Agents", { behind: null, status: null, limit: 10 })
      assert.deepStrictEqual(
        all.map(({ agent, status, undelivered }) => [agent, status, undelivered]),
        [
          [attic, "C", 0],
          [cellar, "C", 2]
        ]
      )
      const [behind] = yield* agents.ask("Agents", { behind: attic, status: "C", limit: 1 })
      assert.strictEqual(behind?.agent, cellar)
      assert.deepStrictEqual(yield* agents.ask("Agents", { behind: null, status: "DU", limit: 10 }), [])
      const detail = yield* agents.ask("Agent", { agent: attic })
      assert.deepStrictEqual(
        detail?.refusals.map(({ code }) => code),
        ["malformed"]
      )
      assert.isNull(yield* agents.ask("Agent", { agent: "nobody" as Name }))
    })
  )
})
