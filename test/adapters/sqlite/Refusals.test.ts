import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import type { DatabaseHost } from "../../../src/adapters/sqlite/Database.ts"
import { openInProcess } from "../../../src/adapters/sqlite/InProcessDatabase.ts"
import { messagesDatabase } from "../../../src/adapters/sqlite/messages/MessagesDatabase.ts"
import type { RelayMethods } from "../../../src/adapters/sqlite/messages/RelayRows.ts"
import { makeMessageStore } from "../../../src/adapters/sqlite/SqliteMessageStore.ts"
import type { MessageStore } from "../../../src/ports/MessageStore.ts"
import type { Name } from "../../../src/schemas/Ids.ts"
import { Limits } from "../../../src/schemas/Limits.ts"

const database = openInProcess(messagesDatabase, ":memory:")
const alice = "alice" as Name
const summary = (store: MessageStore["Service"]) =>
  Effect.map(store.refusals(Limits.refusalRows), (rows) =>
    rows.map(({ agent, code, count, lastAtMs }) => `${agent ?? "-"} ${code} ${count} ${lastAtMs}`)
  )

/** A host that lets a call through one at a time, when the test says so, and counts them. */
const gated = (host: DatabaseHost<RelayMethods>) => {
  const gates: Array<Deferred.Deferred<void>> = []
  const calls: Array<string> = []
  const call = (method: string, ...args: ReadonlyArray<unknown>) =>
    Effect.gen(function* () {
      calls.push(method)
      if (method === "refused") {
        const gate = yield* Deferred.make<void>()
        gates.push(gate)
        yield* Deferred.await(gate)
      }
      return yield* (
        host.call as (method: string, ...args: ReadonlyArray<unknown>) => Effect.Effect<unknown>
      )(method, ...args)
    })
  return { host: { call } as unknown as DatabaseHost<RelayMethods>, gates, calls }
}

describe("counts of refusals", () => {
  it.effect("are kept for each agent and reason, those who are no agents together", () =>
    Effect.gen(function* () {
      const store = makeMessageStore(yield* database)
      yield* store.refused(alice, "replayed", 1)
      yield* store.refused(alice, "replayed", 5, 100)
      yield* store.refused(alice, "expired", 3)
      yield* store.refused(null, "bad_credentials", 4)
      assert.deepStrictEqual(yield* summary(store), [
        "alice replayed 101 5",
        "- bad_credentials 1 4",
        "alice expired 1 3"
      ])
      assert.deepStrictEqual(
        (yield* store.refusals(10, null)).map(({ code }) => code),
        ["bad_credentials"]
      )
      assert.deepStrictEqual(
        (yield* store.refusals(10, alice)).map(({ code }) => code),
        ["replayed", "expired"]
      )
      assert.deepStrictEqual(yield* store.refusalCounts, [
        { code: "bad_credentials", count: 1, lastAtMs: 4 },
        { code: "expired", count: 1, lastAtMs: 3 },
        { code: "replayed", count: 101, lastAtMs: 5 }
      ])
    })
  )

  it.effect("take a bounded number of rows: those longest without news go", () =>
    Effect.gen(function* () {
      const host = yield* database
      const store = makeMessageStore(host)
      yield* store.refused(alice, "replayed", 1)
      yield* store.refused("quiet" as Name, "replayed", 2)
      const many = Array.from({ length: Limits.refusalRows - 1 }, (_, index) => ({
        agent: `agent-${index}` as Name,
        code: "expired" as const,
        count: 1,
        lastAtMs: 3 + index
      }))
      yield* host.call("refused", [{ agent: alice, code: "replayed", count: 1, lastAtMs: 10_000 }, ...many])
      const rows = yield* store.refusals(2 * Limits.refusalRows)
      assert.strictEqual(rows.length, Limits.refusalRows)
      assert.isTrue(rows.some(({ agent, count }) => agent === alice && count === 2))
      assert.isFalse(rows.some(({ agent }) => agent === "quiet"))
    })
  )

  it.effect("that come in a flood are written together, and none is lost", () =>
    Effect.gen(function* () {
      const { calls, gates, host } = gated(yield* database)
      const store = makeMessageStore(host)
      const first = yield* Effect.forkChild(store.refused(alice, "replayed", 1))
      while (gates.length < 1) yield* Effect.yieldNow
      // While the first is being written the others go their way.
      for (let index = 0; index < 5_000; index++) yield* store.refused(`x-${index}` as Name, "expired", 2)
      yield* Deferred.succeed(gates[0] as Deferred.Deferred<void>, undefined)
      while (gates.length < 2) yield* Effect.yieldNow
      yield* Deferred.succeed(gates[1] as Deferred.Deferred<void>, undefined)
      yield* Fiber.join(first)
      assert.deepStrictEqual(calls, ["refused", "refused"])
      const counts = yield* store.refusalCounts
      assert.deepStrictEqual(
        counts.map(({ code, count }) => `${code} ${count}`),
        ["expired 5000", "replayed 1"]
      )
    })
  )

  it.effect("are not lost where writing them failed", () =>
    Effect.gen(function* () {
      const real = yield* database
      let failing = true
      const call = (method: string, ...args: ReadonlyArray<unknown>) =>
        failing
          ? Effect.fail({ operation: method, code: "failed", reason: "no room" })
          : (real.call as (method: string, ...args: ReadonlyArray<unknown>) => Effect.Effect<unknown>)(
              method,
              ...args
            )
      const store = makeMessageStore({ call } as unknown as DatabaseHost<RelayMethods>)
      const error = yield* Effect.flip(store.refused(alice, "replayed", 1))
      assert.match(error.reason, /no room/)
      failing = false
      yield* store.refused(alice, "replayed", 2)
      assert.deepStrictEqual(yield* summary(store), ["alice replayed 2 2"])
    })
  )
})
