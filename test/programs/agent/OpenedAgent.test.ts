/** Waiting for operators, over a desk that may fail. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { AgentDesk } from "../../../src/ports/AgentDesk.ts"
import { untilAccepted } from "../../../src/programs/agent/OpenedAgent.ts"
import { AgentTrouble, type LocalReport } from "../../../src/schemas/AgentLocal.ts"

type Phase = LocalReport["enrolment"]["phase"]

/** An agent that answers looks at it, or fails them, as it is told; the last goes on. */
const opened = (looks: Array<Phase | AgentTrouble>) => ({
  looks,
  agent: {
    desk: {
      report: Effect.suspend(() => {
        const now = looks.length > 1 ? looks.shift() : looks[0]
        return now instanceof AgentTrouble
          ? Effect.fail(now)
          : Effect.succeed({ enrolment: { phase: now, claim_code: null, detail: "" } } as LocalReport)
      })
    } as AgentDesk,
    isOwn: true,
    ended: Effect.never
  }
})
const trouble = (code: AgentTrouble["code"]) => new AgentTrouble({ code, reason: "the agent did not answer" })

describe("an agent that waits to be accepted", () => {
  it.effect("goes on waiting where single looks at it fail", () =>
    Effect.gen(function* () {
      const { agent, looks } = opened([
        "not_enrolled",
        trouble("failed"),
        trouble("timed_out"),
        "not_enrolled",
        trouble("failed"),
        "accepted"
      ])
      const waiting = yield* Effect.forkChild(untilAccepted(agent, () => Effect.void))
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(waiting)
      assert.deepStrictEqual(looks, ["accepted"])
    })
  )

  it.effect("fails where no look succeeds any more, or another version answers", () =>
    Effect.gen(function* () {
      for (const code of ["failed", "malformed", "gone"] as const) {
        const { agent } = opened(["not_enrolled", trouble(code)])
        const waiting = yield* Effect.forkChild(Effect.flip(untilAccepted(agent, () => Effect.void)))
        yield* TestClock.adjust("2 minutes")
        assert.strictEqual((yield* Fiber.join(waiting)).code, code)
      }
    })
  )
})
