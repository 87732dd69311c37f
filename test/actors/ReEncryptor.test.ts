/** What operators decide while a message is being judged and sealed. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Redacted } from "effect"
import { TestClock } from "effect/testing"
import { reEncryptor } from "../../src/actors/ReEncryptor.ts"
import { BrokerKeeperKey } from "../../src/actors/ServerKeys.ts"
import { AgentBookCell } from "../../src/adapters/AgentBookCell.ts"
import { LocalRelayCrypto } from "../../src/adapters/mqtt/LocalRelayCrypto.ts"
import { NativeCrypto, NativeCryptoEngine } from "../../src/adapters/NativeCrypto.ts"
import { SystemEntropy } from "../../src/adapters/SystemEntropy.ts"
import { type DatabaseHost, SqliteError } from "../../src/adapters/sqlite/Database.ts"
import { openInProcess } from "../../src/adapters/sqlite/InProcessDatabase.ts"
import { messagesDatabase } from "../../src/adapters/sqlite/messages/MessagesDatabase.ts"
import type { RelayMethods } from "../../src/adapters/sqlite/messages/RelayRows.ts"
import { MessageStoreOver } from "../../src/adapters/sqlite/SqliteMessageStore.ts"
import { toWire } from "../../src/crypto/Messages.ts"
import { signJson } from "../../src/crypto/SignedJson.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import { AgentBook } from "../../src/ports/AgentBook.ts"
import { MessagePolicy } from "../../src/ports/MessagePolicy.ts"
import { type AgentRow, MessageStore } from "../../src/ports/MessageStore.ts"
import { RelayCrypto } from "../../src/ports/RelayCrypto.ts"
import type { DeviceId, Name } from "../../src/schemas/Ids.ts"
import type { Message, MessageId } from "../../src/schemas/Message.ts"
import { brokerServices } from "../../src/schemas/Topics.ts"
import { ringOf, ServicesKeys } from "../support/messaging.ts"

const [alice, bob, carol] = ["alice", "bob", "carol"] as [Name, Name, Name]
const nowMs = 1_800_000_000_000
const lifetimeMs = 60_000

const rowOf = (agent: Name, who: string = agent): AgentRow => {
  const ring = ringOf("device", who)
  return {
    agent,
    device: ring.id as DeviceId,
    signingKey: ring.signingKey,
    agreement: { key: ring.agreementKey, version: 1 }
  } as unknown as AgentRow
}

/** A message from alice to some, with the same id whoever has that name. */
const messageOf = (who: string, to: ReadonlyArray<Name>, id = "a".repeat(26)) => {
  const { signingKey, signingSeed } = ringOf("device", who)
  const signer = { seed: Redacted.value(signingSeed), signingKey }
  return toWire(
    signJson<Message>(NativeCrypto, signer, {
      type: "postern/message/v1",
      id: id as MessageId,
      level: "protected",
      from: alice,
      to,
      issued_at_ms: nowMs,
      expires_at_ms: nowMs + lifetimeMs,
      subject: "",
      body: 1
    })
  )
}
const message = messageOf(alice, [bob, carol])

/** Alice's re-encryptor, which waits before it seals until the test lets it go on. */
const start = Effect.gen(function* () {
  yield* TestClock.setTime(nowMs)
  const database = yield* openInProcess(messagesDatabase, ":memory:")
  const sealing = yield* Deferred.make<void>()
  const Crypto = Layer.effect(
    RelayCrypto,
    Effect.map(RelayCrypto, (crypto): RelayCrypto["Service"] => ({
      ...crypto,
      outgoing: (...args) => Effect.andThen(Deferred.await(sealing), crypto.outgoing(...args))
    }))
  ).pipe(
    Layer.provide(LocalRelayCrypto(new ServicesKeys().relay())),
    Layer.provide(Layer.merge(NativeCryptoEngine, SystemEntropy))
  )
  const calls: Array<string> = []
  const failing = new Set<string>()
  const host: DatabaseHost<RelayMethods> = {
    call: (method, ...args) => {
      calls.push(method)
      if (!failing.has(method)) return database.call(method, ...args)
      const reason = "the disk is full"
      return Effect.fail(new SqliteError({ database: "messages", operation: method, code: "failed", reason }))
    }
  }
  const services = yield* Layer.build(
    Layer.mergeAll(
      MessageStoreOver(host),
      AgentBookCell,
      Layer.succeed(MessagePolicy, { permits: () => true }),
      Crypto
    )
  )
  const { book, store } = yield* Effect.all({ store: MessageStore, book: AgentBook }).pipe(
    Effect.provideContext(services)
  )
  for (const agent of [alice, bob, carol]) book.set(rowOf(agent))
  const busy = yield* Deferred.make<void>()
  const keeper = TestKit.probe(BrokerKeeperKey, { Sweep: () => Deferred.await(busy) })
  const { ref, system } = yield* Effect.provideContext(
    TestKit.start(reEncryptor(alice), { beside: [keeper.spec] }),
    services
  )
  const submitted = yield* Effect.forkChild(
    ref.ask("Submit", { inbox: "protected", wire: message }, { timeoutMs: 2 * lifetimeMs })
  )
  yield* TestKit.settle
  const goOn = Effect.andThen(Deferred.succeed(sealing, undefined), TestKit.settle)
  return {
    book,
    store,
    calls,
    failing,
    submitted,
    submit: (wire: Uint8Array) => ref.ask("Submit", { inbox: "protected", wire }),
    goOn,
    seal: Effect.andThen(Effect.andThen(goOn, Fiber.join(submitted)), TestKit.settle),
    /** Keeps the keeper of the broker busy until its mailbox is full. */
    crowd: Effect.gen(function* () {
      const keeperRef = system.ref(BrokerKeeperKey)
      yield* keeperRef.tell("Sweep")
      yield* TestKit.settle
      const full = yield* Effect.flip(Effect.forever(keeperRef.tell("Due")))
      assert.strictEqual(full._tag, "MailboxFull")
    }),
    free: Effect.andThen(Deferred.succeed(busy, undefined), TestKit.settle),
    /** Whom the broker is to bring something. */
    dispatched: () =>
      keeper.messages.flatMap(([tag, payload]) =>
        tag === "Dispatch" ? payload.deliveries.map(({ to }) => String(to)) : []
      ),
    stored: Effect.map(store.undelivered(null, 0, 100), (rows) => rows.map(({ to }) => String(to))),
    refused: Effect.map(store.refusals(100), (rows) => rows.map(({ code }) => code))
  }
})

describe("a message that is just being sealed", () => {
  it.effect("goes to those it names", () =>
    Effect.gen(function* () {
      const { dispatched, refused, seal, stored } = yield* start
      yield* seal
      assert.deepStrictEqual(yield* stored, [bob, carol])
      assert.deepStrictEqual(dispatched(), [bob, carol])
      assert.deepStrictEqual(yield* refused, [])
    })
  )

  it.effect("is not passed on where its sender is cut off meanwhile", () =>
    Effect.gen(function* () {
      const { book, dispatched, refused, seal, stored } = yield* start
      book.delete(alice)
      yield* seal
      assert.deepStrictEqual(yield* stored, [])
      assert.deepStrictEqual(dispatched(), [])
      assert.deepStrictEqual(yield* refused, ["unknown_sender"])
    })
  )

  it.effect("is not passed on where another device has its sender's name meanwhile", () =>
    Effect.gen(function* () {
      const { book, refused, seal, stored } = yield* start
      book.set(rowOf(alice, "another"))
      yield* seal
      assert.deepStrictEqual(yield* stored, [])
      assert.deepStrictEqual(yield* refused, ["unknown_sender"])
    })
  )

  it.effect("waits for nobody who is gone, and not for the next of that name", () =>
    Effect.gen(function* () {
      const { book, dispatched, refused, seal, stored } = yield* start
      book.delete(bob)
      book.set(rowOf(carol, "another"))
      yield* seal
      assert.deepStrictEqual(yield* stored, [])
      assert.deepStrictEqual(dispatched(), [])
      assert.deepStrictEqual(yield* refused, ["unknown_recipient"])
    })
  )

  it.effect("is not remembered where it expires meanwhile: its id could be forgotten at once", () =>
    Effect.gen(function* () {
      const { refused, seal, stored } = yield* start
      yield* TestClock.adjust(lifetimeMs)
      yield* seal
      assert.deepStrictEqual(yield* stored, [])
      assert.deepStrictEqual(yield* refused, ["expired"])
    })
  )

  it.effect("is told of until the keeper of the broker has room, and its sender waits so long", () =>
    Effect.gen(function* () {
      const { book, crowd, dispatched, free, goOn, stored, submitted } = yield* start
      yield* crowd
      yield* goOn
      assert.deepStrictEqual(yield* stored, [bob, carol])
      yield* TestClock.adjust(1_000)
      assert.isUndefined(submitted.pollUnsafe())
      // Whoever has this name by then must not get it.
      book.set(rowOf(carol, "another"))
      yield* free
      yield* TestClock.adjust(200)
      yield* Fiber.join(submitted)
      yield* TestKit.settle
      assert.deepStrictEqual(dispatched(), [bob])
    })
  )

  it.effect("is acknowledged though the keeper of the broker never has room: it is stored", () =>
    Effect.gen(function* () {
      const { crowd, dispatched, free, goOn, stored, submitted } = yield* start
      yield* crowd
      yield* goOn
      for (let second = 0; second < 7; second++) yield* TestClock.adjust(1_000)
      yield* Fiber.join(submitted)
      assert.deepStrictEqual(yield* stored, [bob, carol])
      yield* free
      assert.deepStrictEqual(dispatched(), [])
    })
  )
})

describe("an id", () => {
  it.effect("is its device's: whoever has the name next may use it, and it may not use it again", () =>
    Effect.gen(function* () {
      const { book, refused, seal, stored, submit } = yield* start
      yield* seal
      book.set(rowOf(alice, "another"))
      yield* submit(messageOf("another", [bob]))
      assert.deepStrictEqual(yield* stored, [bob, carol, bob])
      yield* submit(messageOf("another", [bob]))
      assert.deepStrictEqual(yield* refused, ["replayed"])
      book.set(rowOf(alice))
      yield* submit(message)
      assert.deepStrictEqual(yield* stored, [bob, carol, bob])
    })
  )
})

describe("recipients that get nothing", () => {
  const strangers = Array.from({ length: 98 }, (_, number) => `stranger-${number}` as Name)
  const wire = messageOf(alice, [bob, ...strangers, brokerServices as Name], "b".repeat(26))

  it.effect("are counted together, once for each message", () =>
    Effect.gen(function* () {
      const { calls, refused, seal, stored, store, submit } = yield* start
      yield* seal
      calls.length = 0
      yield* submit(wire)
      assert.deepStrictEqual(calls, ["accept", "refused"])
      assert.deepStrictEqual(yield* stored, [bob, carol, bob])
      yield* submit(wire)
      assert.deepStrictEqual(yield* refused, ["replayed", "unknown_recipient"])
      const counts = yield* store.refusalCounts
      assert.deepStrictEqual(
        counts.map(({ code, count }) => `${code} ${count}`),
        ["replayed 1", "unknown_recipient 99"]
      )
    })
  )

  it.effect("keep nobody else from it where they cannot be counted", () =>
    Effect.gen(function* () {
      const { dispatched, failing, refused, seal, submit } = yield* start
      yield* seal
      failing.add("refused")
      yield* submit(wire)
      yield* TestKit.settle
      assert.deepStrictEqual(dispatched(), [bob, carol, bob])
      failing.clear()
      assert.deepStrictEqual(yield* refused, ["unknown_recipient"])
    })
  )
})
