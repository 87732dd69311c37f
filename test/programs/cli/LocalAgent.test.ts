/** What commands of `postern agent` wait for. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { AgentDesk } from "../../../src/ports/AgentDesk.ts"
import type { OpenedAgent } from "../../../src/programs/agent/OpenedAgent.ts"
import { reportText } from "../../../src/programs/cli/AgentText.ts"
import { untilSent, untilSettled } from "../../../src/programs/cli/LocalAgent.ts"
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

const standing = (phases: Array<string>, isOwn: boolean) => {
  const looks = { count: 0 }
  const report = Effect.sync(() => {
    looks.count++
    const phase = phases.length > 1 ? phases.shift() : phases[0]
    return { enrolment: { phase, claim_code: "abcd", detail: "" } }
  })
  return { looks, opened: { desk: { report }, isOwn, ended: Effect.never } as unknown as OpenedAgent }
}

describe("looking at an agent from the command line", () => {
  it.effect(
    "waits for operators no longer than it takes to be let in beforehand, whatever they decided",
    () =>
      Effect.gen(function* () {
        for (const phases of [["not_enrolled"], ["revoked"], ["rejected"], ["not_enrolled", "accepted"]]) {
          const { looks, opened } = standing(phases, true)
          const settling = yield* Effect.forkChild(untilSettled(opened))
          yield* TestClock.adjust(10_000)
          yield* Fiber.join(settling)
          assert.isAbove(looks.count, 1)
        }
      })
  )

  it.effect("does not wait where the agent runs already", () =>
    Effect.gen(function* () {
      const { looks, opened } = standing(["not_enrolled"], false)
      yield* untilSettled(opened)
      assert.strictEqual(looks.count, 1)
    })
  )

  it("shows the claim code of one that nobody has let in", () => {
    const report = (claim_code: string | null) =>
      reportText({
        enrolment: { phase: claim_code === null ? "accepted" : "not_enrolled", claim_code, detail: "" },
        agent: { name: null, state: "no_trust", detail: "", queued: 0, waiting: 0, refused: {}, links: [] }
      })
    assert.match(report("abcd"), /state: +not_enrolled\nclaim code: +abcd\n/)
    assert.notInclude(report(null), "claim code")
  })
})

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
