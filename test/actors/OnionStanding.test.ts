/** Which key a device shows at its server's onion service, and what it keeps of the one it shares. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { makeOnionStanding } from "../../src/actors/OnionStanding.ts"
import { IdentityOfNodeKeys } from "../../src/adapters/FileIdentity.ts"
import { NodeKeys } from "../../src/adapters/NodeKeys.ts"
import { SqliteLedgerOver } from "../../src/adapters/SqliteLedger.ts"
import { type DatabaseSync, openDatabase } from "../../src/adapters/sqlite/Database.ts"
import { CryptoEngine } from "../../src/ports/CryptoEngine.ts"
import { OnionAccess, OnionAccessError } from "../../src/ports/OnionAccess.ts"
import type { SharedOnionKey } from "../../src/schemas/DeviceApi.ts"
import type { OnionClientKey } from "../../src/schemas/Onion.ts"
import type { HeldRoot } from "../../src/schemas/protocols/TrustKeeper.ts"
import { SeededEntropy } from "../crypto/SeededEntropy.ts"
import { deviceKeys, engine, rootOf, server, signRoot } from "./support/Parties.ts"

const host = `${"b".repeat(55)}d.onion`
const came = (letter: string): SharedOnionKey => ({
  key: `${letter.repeat(51)}A` as OnionClientKey,
  sealed: "AAAA"
})

const plain = rootOf()
const held: HeldRoot = {
  firstDigest: "sha256:0" as HeldRoot["firstDigest"],
  server,
  envelope: signRoot(plain).envelope,
  root: {
    ...plain,
    servers: plain.servers.map((each) => ({ ...each, addresses: [`http://${host}`, "http://127.0.0.1:1"] }))
  }
}

/** A life of the device over a ledger; `shown` hears which key is shown, `flawed` cannot be opened. */
const life = (database: DatabaseSync, shown: Array<string>, flawed: ReadonlySet<string> = new Set()) => {
  const access = Layer.succeed(OnionAccess, {
    use: (hosts: ReadonlyArray<string>, shared: { readonly came: SharedOnionKey } | null) => {
      if (shared !== null && flawed.has(shared.came.key))
        return Effect.fail(new OnionAccessError({ reason: "it is for somebody else", isFlawed: true }))
      shown.push(`${hosts.join()} ${shared === null ? "own" : shared.came.key.slice(0, 1)}`)
      return Effect.void
    },
    refresh: Effect.sync(() => void shown.push("refresh"))
  })
  const base = Layer.mergeAll(
    Layer.succeed(CryptoEngine, engine),
    Layer.succeed(NodeKeys, deviceKeys),
    SeededEntropy("test", "standing")
  )
  return Effect.provide(
    makeOnionStanding,
    Layer.mergeAll(access, IdentityOfNodeKeys, SqliteLedgerOver(database)).pipe(Layer.provideMerge(base))
  )
}

const disk = Effect.acquireRelease(
  Effect.sync(() => openDatabase(":memory:")),
  (database) => Effect.sync(() => database.close())
)

describe("the key a device shows", () => {
  it.effect("is its own until one to share came, which outlives the program", () =>
    Effect.gen(function* () {
      const database = yield* disk
      const shown: Array<string> = []
      const first = yield* life(database, shown)
      yield* first.follow(held)
      assert.deepStrictEqual([yield* first.held, shown], [null, []])
      yield* first.take(came("C"))
      assert.deepStrictEqual(shown, [`${host} C`])
      const second = yield* life(database, shown)
      assert.strictEqual(yield* second.held, came("C").key)
      yield* second.follow(held)
      yield* second.take(came("C"))
      yield* second.take(came("D"))
      assert.deepStrictEqual(shown.slice(1), [`${host} C`, `${host} D`])
      assert.strictEqual(yield* second.held, came("D").key)
    })
  )
  it.effect("is the other one whenever one is refused; when both were, the enrol service is asked", () =>
    Effect.gen(function* () {
      const shown: Array<string> = []
      const standing = yield* life(yield* disk, shown)
      yield* standing.follow(held)
      assert.isTrue(yield* standing.refused)
      yield* standing.take(came("C"))
      standing.admitted()
      shown.length = 0
      assert.isFalse(yield* standing.refused)
      assert.isTrue(yield* standing.refused)
      assert.deepStrictEqual(shown, [`${host} own`, "refresh", `${host} C`, "refresh"])
      standing.admitted()
      assert.isFalse(yield* standing.refused)
    })
  )
  it.effect("is the other one after two failures in a row that tor does not explain", () =>
    Effect.gen(function* () {
      const shown: Array<string> = []
      const standing = yield* life(yield* disk, shown)
      yield* standing.follow(held)
      yield* standing.take(came("C"))
      shown.length = 0
      assert.isFalse(yield* standing.unexplained)
      standing.admitted()
      assert.isFalse(yield* standing.unexplained)
      assert.deepStrictEqual(shown, [])
      assert.isFalse(yield* standing.unexplained)
      assert.deepStrictEqual(shown, [`${host} own`, "refresh"])
      assert.isFalse(yield* standing.unexplained)
      assert.isTrue(yield* standing.unexplained)
      assert.deepStrictEqual(shown.slice(2), [`${host} C`, "refresh"])
    })
  )
  it.effect(
    "stays as it was when what came is no good, and one that cannot be opened later is asked for again",
    () =>
      Effect.gen(function* () {
        const database = yield* disk
        const shown: Array<string> = []
        const first = yield* life(database, shown, new Set([came("E").key]))
        yield* first.follow(held)
        yield* first.take(came("C"))
        yield* first.take(came("E"))
        assert.strictEqual(yield* first.held, came("C").key)
        assert.strictEqual(shown.at(-1), `${host} C`)
        const second = yield* life(database, shown, new Set([came("C").key]))
        yield* second.follow(held)
        assert.strictEqual(yield* second.held, null)
        assert.strictEqual(shown.at(-1), `${host} own`)
      })
  )
})
