/** What `postern agent send` waits for. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { AgentDesk } from "../../../src/ports/AgentDesk.ts"
import { untilSent } from "../../../src/programs/cli/LocalAgent.ts"
import { AgentTrouble } from "../../../src/schemas/AgentLocal.ts"
import type { MessageId } from "../../../src/schemas/Message.ts"

const [mine, other] = ["a".repeat(26), "b".repeat(26)] as [MessageId, MessageId]

const deskOf = (waiting: ReadonlySet<string>, broken = false) =>
  ({
    unsent: (id: MessageId) =>
      broken
        ? Effect.fail(new AgentTrouble({ code: "failed", reason: "the disk is broken" }))
        : Effect.sync(() => waiting.has(id)),
    report: Effect.sync(() => ({ agent: { state: "known", detail: "", queued: waiting.size } }))
  }) as unknown as AgentDesk

describe("sending a message from the command line", () => {
  it.effect("ends when this message is sent, whatever else waits", () =>
    Effect.gen(function* () {
      const waiting = new Set<string>([mine, other])
      const sending = yield* Effect.forkChild(untilSent(deskOf(waiting), mine, 30_000))
      yield* TestClock.adjust(5_000)
      assert.isUndefined(sending.pollUnsafe())
      waiting.delete(mine)
      yield* TestClock.adjust(1_000)
      yield* Fiber.join(sending)
      assert.deepStrictEqual([...waiting], [other])
    })
  )

  it.effect("fails where it waits still, or where that cannot be known", () =>
    Effect.gen(function* () {
      const sending = yield* Effect.forkChild(Effect.flip(untilSent(deskOf(new Set([mine])), mine, 30_000)))
      yield* TestClock.adjust(31_000)
      assert.include((yield* Fiber.join(sending)).message, `${mine} is kept`)
      const broken = yield* Effect.flip(untilSent(deskOf(new Set(), true), mine, 30_000))
      assert.strictEqual(broken.message, "the disk is broken")
    })
  )
})
