/** An agent's desk over actors that are slow. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { AgentInboxKey, SmartAgentKey, TrustKeeperKey } from "../../src/actors/ClientKeys.ts"
import { makeActorDesk } from "../../src/adapters/agent/ActorDesk.ts"
import { SystemEntropy } from "../../src/adapters/SystemEntropy.ts"
import { ActorSystem, Behaviour, ChildSpec, Supervisor } from "../../src/kernel/index.ts"
import type { LocalLetter } from "../../src/schemas/AgentLocal.ts"
import { SmartAgentProtocol } from "../../src/schemas/protocols/SmartAgent.ts"

const keepMs = 100

/** An agent whose disk takes so long for each message. */
const start = Effect.gen(function* () {
  const kept: Array<unknown> = []
  const slowAgent = Behaviour.make(SmartAgentProtocol, (context) =>
    Effect.succeed(
      context.handlers({
        Send: ({ payload: { body } }: { payload: { body: unknown } }) =>
          Effect.andThen(
            Effect.sleep(keepMs),
            Effect.sync(() => {
              kept.push(body)
              return `${kept.length}`.padStart(26, "z").replace(/[0-9]/g, "a")
            })
          ),
        Said: () => Effect.void
      } as never)
    )
  )
  const system = yield* ActorSystem.make({
    root: Supervisor.spec({
      id: "test",
      strategy: "one-for-one",
      children: [ChildSpec.make({ key: SmartAgentKey, behaviour: slowAgent })]
    })
  })
  const agent = system.ref(SmartAgentKey)
  const desk = yield* makeActorDesk({
    agent,
    inbox: system.ref(AgentInboxKey),
    trust: system.ref(TrustKeeperKey)
  }).pipe(Effect.provide(SystemEntropy))
  return { agent, desk, kept }
})

const letter = (body: number): LocalLetter =>
  ({ level: "private", to: ["bob"], subject: "", body, lifetime_ms: null }) as unknown as LocalLetter

describe("an agent's desk", () => {
  it.effect("keeps all messages of a burst, in their order, and leaves the agent room for what comes", () =>
    Effect.gen(function* () {
      const { agent, desk, kept } = yield* start
      const bodies = Array.from({ length: 2_000 }, (_, index) => index)
      const sending = yield* Effect.forkChild(
        Effect.forEach(bodies, (body) => desk.send(letter(body)), { concurrency: "unbounded" })
      )
      yield* TestClock.adjust(keepMs)
      // What comes from the broker finds room in the agent's mailbox.
      yield* agent.tell("Said")
      while (kept.length < bodies.length) {
        yield* TestClock.adjust(100 * keepMs)
        if (sending.pollUnsafe() !== undefined) break
      }
      assert.lengthOf(yield* Fiber.join(sending), bodies.length)
      assert.deepStrictEqual(kept, bodies)
    })
  )
})
