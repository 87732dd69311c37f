/** The server's list of keys to its onion service, with the real store and registrar, and no tor: who is in it, and when. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Layer, Redacted, Result, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { onionKeeper } from "../../src/actors/OnionKeeper.ts"
import { OnionKeeperKey, RegistrarKey } from "../../src/actors/ServerKeys.ts"
import { makeDeviceApi } from "../../src/adapters/http/DeviceApi.ts"
import { type NodeKeyRing, nodeKeyRingFrom } from "../../src/adapters/NodeKeys.ts"
import { secretKeysEntropyBytes } from "../../src/crypto/IdentityKeys.ts"
import { formatOnionKey, onionKeyOf, openSharedKey } from "../../src/crypto/OnionKeys.ts"
import { ChildSpec } from "../../src/kernel/index.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import { AccessStore } from "../../src/ports/AccessStore.ts"
import { FleetStore } from "../../src/ports/FleetStore.ts"
import { OnionServices } from "../../src/ports/OnionServices.ts"
import { serverActors, startServer } from "../../src/programs/serverDoors.ts"
import type { EnrolmentAnswer, PollAnswer } from "../../src/schemas/DeviceApi.ts"
import type { DeviceId, Name, ServerId } from "../../src/schemas/Ids.ts"
import type { OnionClientKey, OnionHost } from "../../src/schemas/Onion.ts"
import { seededBytes } from "../crypto/SeededEntropy.ts"
import {
  admission,
  config,
  type Disk,
  enrolment,
  exchange,
  makeDisk,
  pollBody,
  servicesOver,
  signedRequest,
  statementOf
} from "../support/fleet.ts"
import { engine, nowMs, server, trust } from "../support/operators.ts"

const host = `${"a".repeat(55)}d.onion` as OnionHost

/** A port that notes what it is told. */
class NotedServices {
  readonly lists: Array<{ readonly keys: ReadonlySet<OnionClientKey>; readonly atMs: number }> = []
  readonly enrolment: Array<boolean> = []
  readonly layer = Layer.succeed(OnionServices, {
    hosts: { device: host, enrol: host, management: host },
    closed: { tor: { own: true, progress: 0, summary: "", warning: null }, services: [] },
    open: Effect.succeed({
      setClients: (keys: ReadonlyArray<OnionClientKey>) =>
        Effect.map(Clock.currentTimeMillis, (atMs) => {
          this.lists.push({ keys: new Set(keys), atMs })
        }),
      publishEnrolment: (isOpen: boolean) => Effect.sync(() => void this.enrolment.push(isOpen)),
      check: Effect.void,
      status: Effect.succeed({ tor: { own: true, progress: 100, summary: "", warning: null }, services: [] }),
      tunnel: Effect.succeed(null),
      ended: Effect.never
    })
  })
  get newest(): ReadonlySet<OnionClientKey> {
    return this.lists.at(-1)?.keys ?? new Set()
  }
}

const entropyOf = (path: string, length: number) => Effect.runSync(seededBytes("onion", path).bytes(length))
const nodeOf = (n: number): NodeKeyRing =>
  nodeKeyRingFrom(engine, "device", entropyOf(`device ${n}`, secretKeysEntropyBytes))
const onionOf = (n: number | string): OnionClientKey =>
  onionKeyOf(engine, Redacted.make(entropyOf(`onion ${n}`, 32)))

/** A server with its onion keeper, over a disk. */
const start = Effect.fnUntraced(function* (
  disk: Disk,
  maximumClients: number,
  enrolment: "invited" | "never" = "invited"
) {
  const noted = new NotedServices()
  const services = yield* Layer.build(Layer.merge(servicesOver(disk), noted.layer))
  return yield* Effect.gen(function* () {
    const keeper = ChildSpec.make({
      key: OnionKeeperKey,
      shutdownMs: 1_000,
      behaviour: onionKeeper({ enrolment, maximum_clients: maximumClients })
    })
    const system = yield* startServer(config, () => [], { onion: () => [keeper] })
    const stopping = Deferred.await(yield* Deferred.make<void>())
    const api = yield* makeDeviceApi({
      actors: serverActors(system),
      addresses: () => ["http://127.0.0.1:8470"],
      stopping
    })
    yield* system.ref(RegistrarKey).ask("PublishRoot", { envelope: trust.envelope, actor: "alice" })
    return { system, api, noted, store: yield* FleetStore, access: yield* AccessStore }
  }).pipe(Effect.provide(services))
})
type Started = Effect.Success<ReturnType<typeof start>>

const enrolled = Effect.fnUntraced(function* ({ api }: Started, n: number, key = onionOf(n)) {
  const by = nodeOf(n)
  const atMs = yield* Clock.currentTimeMillis
  const { envelope } = enrolment(atMs, by, { onion_key: key })
  const reply = yield* exchange(api, signedRequest(atMs, "POST", "/enrolment", { by, body: envelope }))
  assert.strictEqual(reply.status, 200, JSON.stringify(reply.json))
  return reply.json as EnrolmentAnswer
})

const decide = Effect.fnUntraced(function* (
  { system }: Started,
  n: number,
  decision: "accept" | "revoke",
  sequence = 1
) {
  const by = nodeOf(n)
  const changes = { decision, sequence, name: `pi-${n}` as Name }
  const { envelope } = admission(yield* Clock.currentTimeMillis, changes, by)
  yield* system.ref(RegistrarKey).ask("Admit", { device: by.id as DeviceId, envelope, actor: "alice" })
})

const poll = Effect.fnUntraced(function* (
  { api }: Started,
  n: number,
  { held, key = onionOf(n), wait = 0 }: { held?: OnionClientKey; key?: OnionClientKey; wait?: number } = {}
) {
  const by = nodeOf(n)
  const atMs = yield* Clock.currentTimeMillis
  const statement = statementOf({ at_ms: atMs, onion_key: key }, by)
  const body = pollBody({ statement, wait_ms: wait, ...(held === undefined ? {} : { onion_held: held }) })
  const reply = yield* exchange(api, signedRequest(atMs, "POST", "/poll", { by, body }))
  assert.strictEqual(reply.status, 200, JSON.stringify(reply.json))
  return reply.json as PollAnswer
})

/** Opens what a device was handed; its secret must belong to the key. */
const opened = (n: number, answer: PollAnswer | EnrolmentAnswer): OnionClientKey => {
  const shared = answer.onion_shared
  if (shared === undefined) throw new Error("no shared key came")
  const by = nodeOf(n)
  const self = { device: by.id as DeviceId, server: server.id as ServerId }
  const secret = openSharedKey(engine, by.ageIdentities, shared, self)
  if (Result.isFailure(secret)) throw new Error(secret.failure)
  const stranger = openSharedKey(engine, nodeOf(n + 500).ageIdentities, shared, self)
  assert.isTrue(Result.isFailure(stranger))
  return shared.key
}

const settle = (ms: number) => Effect.andThen(TestClock.adjust(ms), TestKit.settle)

const underTest = <A, E>(body: (disk: Disk) => Effect.Effect<A, E, Scope.Scope>) =>
  Effect.gen(function* () {
    yield* TestClock.setTime(nowMs)
    yield* body(yield* makeDisk)
  })

describe("the server's list of keys", () => {
  it.effect(
    "gets who is accepted and loses who is revoked, within seconds, and is the same after a restart",
    () =>
      underTest((disk) =>
        Effect.gen(function* () {
          const first = yield* start(disk, 2)
          yield* enrolled(first, 1)
          yield* settle(5_000)
          assert.strictEqual(first.noted.newest.size, 0)
          yield* decide(first, 1, "accept")
          yield* settle(5_000)
          assert.deepStrictEqual([...first.noted.newest], [onionOf(1)])
          yield* decide(first, 1, "revoke", 2)
          yield* settle(5_000)
          assert.strictEqual(first.noted.newest.size, 0)
          yield* enrolled(first, 2)
          yield* decide(first, 2, "accept")
          yield* settle(5_000)
          yield* TestKit.stop(first.system)
          const second = yield* start(disk, 2)
          yield* settle(5_000)
          assert.deepStrictEqual([...second.noted.newest], [onionOf(2)])
        })
      )
  )
  it.effect(
    "follows a key that changes, in a poll and in an enrolment; what is older and comes late does not bring it back",
    () =>
      underTest((disk) =>
        Effect.gen(function* () {
          const fleet = yield* start(disk, 2)
          yield* enrolled(fleet, 1)
          yield* decide(fleet, 1, "accept")
          yield* settle(5_000)
          const before = yield* Clock.currentTimeMillis
          const late = enrolment(before, nodeOf(1), { onion_key: onionOf("late") })
          yield* settle(5_000)
          yield* poll(fleet, 1, { key: onionOf("second") })
          yield* settle(5_000)
          assert.deepStrictEqual([...fleet.noted.newest], [onionOf("second")])
          const atMs = yield* Clock.currentTimeMillis
          const request = signedRequest(atMs, "POST", "/enrolment", { by: nodeOf(1), body: late.envelope })
          assert.strictEqual((yield* exchange(fleet.api, request)).status, 200)
          yield* settle(5_000)
          assert.deepStrictEqual([...fleet.noted.newest], [onionOf("second")])
          yield* enrolled(fleet, 1, onionOf("third"))
          yield* settle(5_000)
          assert.deepStrictEqual([...fleet.noted.newest], [onionOf("third")])
        })
      )
  )
  it.effect("takes no key that no honest program makes", () =>
    underTest((disk) =>
      Effect.gen(function* () {
        const fleet = yield* start(disk, 2)
        const zero = formatOnionKey(new Uint8Array(32))
        const by = nodeOf(1)
        const atMs = yield* Clock.currentTimeMillis
        const { envelope } = enrolment(atMs, by, { onion_key: zero })
        const reply = yield* exchange(
          fleet.api,
          signedRequest(atMs, "POST", "/enrolment", { by, body: envelope })
        )
        assert.strictEqual(reply.code, "bad_request")
        yield* enrolled(fleet, 1)
        yield* decide(fleet, 1, "accept")
        yield* settle(5_000)
        yield* poll(fleet, 1, { key: zero })
        yield* settle(5_000)
        assert.strictEqual(fleet.noted.newest.size, 0)
      })
    )
  )
  it.effect("is published a few times only while a thousand devices are accepted", () =>
    underTest((disk) =>
      Effect.gen(function* () {
        const fleet = yield* start(disk, 128)
        const before = fleet.noted.lists.length
        const keeper = fleet.system.ref(OnionKeeperKey)
        for (let n = 0; n < 1_000; n++) {
          const device = `dev_${n
            .toString(32)
            .padStart(52, "a")
            .replace(/[0189]/g, "z")}-${n}` as DeviceId
          const atMs = yield* Clock.currentTimeMillis
          const { envelope, request } = enrolment(atMs, nodeOf(0), { onion_key: onionOf(n) })
          const { decision: accepted, envelope: decision } = admission(atMs, { name: `pi-${n}` as Name })
          yield* fleet.store.enrol({ ...request, device }, envelope, atMs)
          yield* fleet.store.admit({ ...accepted, device, name: `pi-${n}` as Name }, decision, "alice", atMs)
          yield* Effect.ignore(keeper.tell("ClientsChanged"))
          yield* TestClock.adjust(10)
        }
        yield* settle(10_000)
        const lists = fleet.noted.lists.slice(before)
        assert.isAtMost(lists.length, 6)
        for (const [index, { atMs }] of lists.entries())
          if (index > 0) assert.isAtLeast(atMs - (lists[index - 1]?.atMs ?? 0), 3_000)
        // 128 with places of their own, the groups, and as many of the others as there is room for.
        assert.strictEqual(fleet.noted.newest.size, 256)
        const { devices, groups } = yield* fleet.access.access
        assert.strictEqual(devices.filter(({ group }) => group === 0).length, 128)
        assert.strictEqual(groups.length, 28)
        // Nobody of them holds a key yet: those without a place in the list need the enrol service.
        assert.deepStrictEqual(fleet.noted.enrolment.at(-1), true)
      })
    )
  )
})

describe("a key that a group shares", () => {
  const grouped = Effect.fnUntraced(function* (disk: Disk) {
    const fleet = yield* start(disk, 1)
    for (const n of [1, 2, 3, 4]) {
      yield* enrolled(fleet, n)
      yield* decide(fleet, n, "accept")
      yield* settle(4_000)
    }
    return fleet
  })

  it.effect("reaches its members by their polls and by enrolment, for their eyes only", () =>
    underTest((disk) =>
      Effect.gen(function* () {
        const fleet = yield* grouped(disk)
        assert.isUndefined((yield* poll(fleet, 1)).onion_shared)
        const key = opened(2, yield* poll(fleet, 2))
        assert.strictEqual(opened(3, yield* poll(fleet, 3)), key)
        assert.strictEqual(opened(4, yield* enrolled(fleet, 4)), key)
        assert.isTrue(fleet.noted.newest.has(key))
        // Who holds it is not told again.
        assert.isUndefined((yield* poll(fleet, 2, { held: key })).onion_shared)
      })
    )
  )
  it.effect(
    "is another one as soon as a member is revoked; held polls bring it, and a sleeper finds in by its own key",
    () =>
      underTest((disk) =>
        Effect.gen(function* () {
          const fleet = yield* grouped(disk)
          const key = opened(2, yield* poll(fleet, 2))
          for (const n of [2, 3, 4]) yield* poll(fleet, n, { held: key })
          const holding = yield* Effect.forkChild(poll(fleet, 3, { held: key, wait: 60_000 }))
          yield* TestKit.settle
          yield* decide(fleet, 2, "revoke", 2)
          yield* settle(3_500)
          assert.isFalse(fleet.noted.newest.has(key))
          assert.isFalse(fleet.noted.newest.has(onionOf(2)))
          // Those who remain stand in the list by their own keys until they say that they hold the new one.
          for (const n of [1, 3, 4]) assert.isTrue(fleet.noted.newest.has(onionOf(n)), `${n}`)
          const exit = holding.pollUnsafe()
          assert.strictEqual(exit?._tag, "Success")
          const next = opened(3, exit?._tag === "Success" ? exit.value : (undefined as never))
          assert.notStrictEqual(next, key)
          assert.isTrue(fleet.noted.newest.has(next))
          yield* poll(fleet, 3, { held: next })
          // Much later the other one wakes up.
          yield* TestClock.adjust("1 hour")
          assert.isTrue(fleet.noted.newest.has(onionOf(4)))
          assert.strictEqual(opened(4, yield* poll(fleet, 4, { held: key })), next)
          const gone = yield* poll(fleet, 2, { held: key })
          assert.isUndefined(gone.onion_shared)
          assert.strictEqual(gone.objection, "not_enrolled")
        })
      )
  )
  it.effect("survives a restart of the server; a member revoked just before the power failed does not", () =>
    underTest((disk) =>
      Effect.gen(function* () {
        const fleet = yield* grouped(disk)
        const key = opened(2, yield* poll(fleet, 2))
        for (const n of [2, 3, 4]) yield* poll(fleet, n, { held: key })
        yield* settle(5_000)
        yield* TestKit.stop(fleet.system)
        const again = yield* start(disk, 1)
        yield* settle(5_000)
        assert.isTrue(again.noted.newest.has(key))
        // Revoked, and the program ends before the list was worked out.
        yield* decide(again, 2, "revoke", 2)
        yield* TestKit.stop(again.system)
        const last = yield* start(disk, 1)
        yield* settle(5_000)
        assert.isFalse(last.noted.newest.has(key))
        assert.isTrue(last.noted.newest.has(onionOf(3)))
      })
    )
  )
})
