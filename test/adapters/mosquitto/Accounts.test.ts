import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import { type AccountsLine, makeAccounts } from "../../../src/adapters/mosquitto/Accounts.ts"
import type { ControlCommand } from "../../../src/adapters/mosquitto/DynamicSecurity.ts"
import { openInProcess } from "../../../src/adapters/sqlite/InProcessDatabase.ts"
import { messagesDatabase } from "../../../src/adapters/sqlite/messages/MessagesDatabase.ts"
import { BrokerError } from "../../../src/ports/MessageBroker.ts"
import type { DeviceId, Name } from "../../../src/schemas/Ids.ts"

const alice = "alice" as Name
const first = "first" as DeviceId
const second = "second" as DeviceId

/** Accounts beside a Mosquitto that does what it is told, and a fleet in which alice is one device or nobody. */
const make = Effect.gen(function* () {
  const fleet: { alice: DeviceId | null } = { alice: first }
  const database = yield* openInProcess(messagesDatabase, ":memory:")
  const asked: Array<string> = []
  const isAgent = (agent: string, device: DeviceId) =>
    Effect.sync(() => {
      asked.push(agent)
      return agent === alice && fleet.alice === device
    })
  let secrets = 0
  const accounts = yield* makeAccounts({
    topicRoot: "mf2c",
    database,
    isAgent,
    entropy: (bytes) => Effect.sync(() => new Uint8Array(bytes).fill(++secrets))
  })
  const at = {
    clients: new Map<string, string>(),
    takenOver: [] as Array<string>,
    /** Done before Mosquitto does what it is told. */
    before: Effect.void as Effect.Effect<unknown>,
    takeOver: Effect.void as Effect.Effect<void, BrokerError>
  }
  const run = (commands: ReadonlyArray<ControlCommand>) =>
    Effect.gen(function* () {
      yield* at.before
      for (const { command, password, username } of commands) {
        if (command === "deleteClient") at.clients.delete(username as string)
        if (command === "createClient") at.clients.set(username as string, password as string)
      }
    })
  const line: AccountsLine = {
    control: { run, accounts: Effect.succeed([]) },
    takeOver: (agent) =>
      Effect.andThen(
        at.takeOver,
        Effect.sync(() => void at.takenOver.push(agent))
      )
  }
  return { accounts, at, asked, fleet, line, rows: database.call("accounts") }
})

describe("an account", () => {
  it.effect("is not made for a device that was revoked after it had asked", () =>
    Effect.gen(function* () {
      const { accounts, at, fleet, line, rows } = yield* make
      fleet.alice = null
      const refused = yield* Effect.flip(accounts.password(line, alice, first))
      assert.include(refused.reason, "first: it is not accepted as alice")
      assert.isFalse(accounts.has(alice))
      assert.deepStrictEqual([...at.clients], [])
      assert.deepStrictEqual(yield* rows, [])
    }).pipe(Effect.scoped)
  )

  it.effect("that was standing is handed out to a revoked device no more", () =>
    Effect.gen(function* () {
      const { accounts, fleet, line } = yield* make
      yield* accounts.password(line, alice, first)
      fleet.alice = null
      const refused = yield* Effect.flip(accounts.password(line, alice, first))
      assert.include(refused.reason, "first: it is not accepted as alice")
    }).pipe(Effect.scoped)
  )

  it.effect("is gone again when its device was revoked while it was made", () =>
    Effect.gen(function* () {
      const { accounts, at, fleet, line, rows } = yield* make
      const reached = yield* Deferred.make<void>()
      const goOn = yield* Deferred.make<void>()
      at.before = Effect.andThen(Deferred.succeed(reached, undefined), Deferred.await(goOn))
      const asking = yield* Effect.forkChild(Effect.flip(accounts.password(line, alice, first)))
      yield* Deferred.await(reached)
      fleet.alice = null
      yield* Deferred.succeed(goOn, undefined)
      assert.include((yield* Fiber.join(asking)).reason, "it is not accepted as alice")
      assert.isFalse(accounts.has(alice))
      assert.deepStrictEqual([...at.clients], [])
      assert.deepStrictEqual(at.takenOver, ["alice"])
      assert.deepStrictEqual(yield* rows, [])
    }).pipe(Effect.scoped)
  )

  it.effect("is not taken from its owner by the name's last one, who asks late", () =>
    Effect.gen(function* () {
      const { accounts, at, fleet, line } = yield* make
      yield* accounts.password(line, alice, first)
      fleet.alice = second
      const password = yield* accounts.password(line, alice, second)
      assert.deepStrictEqual(at.takenOver, ["alice"])
      yield* Effect.flip(accounts.password(line, alice, first))
      assert.strictEqual(at.clients.get("alice"), password)
      assert.deepStrictEqual(at.takenOver, ["alice"])
    }).pipe(Effect.scoped)
  )

  it.effect("whose session could not be ended leaves it to nobody who has the name next", () =>
    Effect.gen(function* () {
      const { accounts, at, fleet, line } = yield* make
      yield* accounts.password(line, alice, first)
      at.takeOver = Effect.fail(new BrokerError({ reason: "it hung up" }))
      fleet.alice = second
      yield* Effect.flip(accounts.sweep(line))
      yield* Effect.flip(accounts.password(line, alice, second))
      assert.deepStrictEqual([...at.clients], [])
      at.takeOver = Effect.void
      yield* accounts.sweep(line)
      assert.deepStrictEqual(at.takenOver, ["alice"])
      yield* accounts.password(line, alice, second)
      assert.deepStrictEqual(at.takenOver, ["alice"])
    }).pipe(Effect.scoped)
  )

  it.effect("is looked at alone, where only some are to be", () =>
    Effect.gen(function* () {
      const { accounts, asked, at, fleet, line } = yield* make
      yield* accounts.password(line, alice, first)
      fleet.alice = null
      asked.length = 0
      yield* accounts.sweep(line, ({ agent }) => agent !== alice)
      assert.deepStrictEqual(asked, [])
      assert.deepStrictEqual([...at.clients.keys()], ["alice"])
      yield* accounts.sweep(line, ({ agent }) => agent === alice)
      assert.deepStrictEqual(asked, ["alice"])
      assert.deepStrictEqual([...at.clients.keys()], [])
    }).pipe(Effect.scoped)
  )
})
