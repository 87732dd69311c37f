/** Fast-forward: a server that lied about how far things are must be put right by the root's keys, without a restart. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { ServerId } from "../../src/schemas/Ids.ts"
import { answering, ok, report, rootOf, server, signAnswer } from "../adapters/support/server.ts"

describe("fast-forward", () => {
  it.effect("a root version far ahead is forgotten with the next root, not before", () =>
    Effect.gen(function* () {
      let rootVersion = 2_000_000_000
      const { link } = yield* answering((request) => signAnswer(request, { ...ok, rootVersion }))
      yield* link.progress(report)
      rootVersion = 3
      assert.strictEqual((yield* Effect.flip(link.progress(report)))._tag, "ServerUntrusted")
      yield* link.trust({ root: rootOf(3), server: server.id as ServerId })
      assert.strictEqual((yield* Effect.flip(link.progress(report)))._tag, "ServerUntrusted")
      rootVersion = 4
      yield* link.trust({ root: rootOf(4), server: server.id as ServerId })
      yield* link.progress(report)
      rootVersion = 3
      assert.strictEqual((yield* Effect.flip(link.progress(report)))._tag, "ServerUntrusted")
    })
  )
})
