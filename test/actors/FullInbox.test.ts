/** An agent whose application takes nothing. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { agentBounds } from "../../src/adapters/sqlite/messages/AgentDatabase.ts"
import type { Name } from "../../src/schemas/Ids.ts"
import type { Message } from "../../src/schemas/Message.ts"
import { brokerKinds } from "../support/brokers.ts"
import { type Agent, Fleet, inboxOf, inState, send, until, withFolder } from "../support/messaging.ts"
import { describeWith } from "../support/requires.ts"

const known = (agent: Agent) => inState(agent, "known")

/** As many messages as may wait, of somebody else. */
const fill = (agent: Agent) =>
  Effect.forEach(
    Array.from({ length: agentBounds.inbox }, (_, number) => number),
    (number) => {
      const message = { id: `id ${number}`, from: "dave", body: number, expires_at_ms: 4_000_000_000_000 }
      return agent.store.take({ _tag: "Secure", message: message as unknown as Message, receivedAtMs: 0 })
    },
    { discard: true }
  )

for (const kind of brokerKinds)
  describeWith(kind.parts, `an agent whose inbox is full, over ${kind.name}`, () => {
    it.live("stays there and sends, says so, and gets what was left when there is room again", () =>
      withFolder((path) =>
        Effect.gen(function* () {
          const fleet = new Fleet()
          for (const name of ["alice", "bob"]) fleet.add(name)
          const messaging = yield* kind.open(fleet, path)
          const alice = yield* messaging.agent("alice")
          const bob = yield* messaging.agent("bob", { inMemory: true, roomMs: 100 })
          const session = Effect.sync(() => messaging.services.book.get("bob" as Name)?.session)
          yield* known(alice)
          yield* known(bob)
          const first = yield* session
          yield* fill(bob)
          for (const level of ["protected", "private"] as const) yield* send(alice, level, ["bob"], level)
          const full = yield* until(
            "the word of a full inbox",
            Effect.map(bob.ref.ask("Standing"), (word) => (word.inbox_full ? word : undefined))
          )
          assert.strictEqual(full.state, "known")
          assert.include(full.detail, "inbox is full")
          yield* send(bob, "private", ["alice"], "I am here")
          yield* inboxOf(alice, 1)
          assert.strictEqual(yield* session, first)
          const places = (yield* bob.store.waiting(0, agentBounds.inbox)).map(({ place }) => place)
          yield* bob.store.dealtWith(places)
          const came = yield* inboxOf(bob, 2)
          assert.sameMembers(
            came.map(({ received }) => received.message.body),
            ["protected", "private"]
          )
          assert.strictEqual((yield* known(bob)).detail, "")
          assert.isFalse((yield* bob.ref.ask("Standing")).inbox_full)
          assert.notStrictEqual(yield* session, first)
        })
      )
    )
  })
