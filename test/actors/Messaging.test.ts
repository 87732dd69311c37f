import { assert, it } from "@effect/vitest"
import { Deferred, Effect } from "effect"
import { brokerKinds } from "../support/brokers.ts"
import { type Agent, bodies, Fleet, inboxOf, inState, send, until, withFolder } from "../support/messaging.ts"
import { describeWith } from "../support/requires.ts"

const known = (agent: Agent) => inState(agent, "known")

for (const kind of brokerKinds)
  describeWith(kind.parts, `agents and broker services, over ${kind.name}`, () => {
    it.live("exchange a message of each level, and a ping", () =>
      withFolder((path) =>
        Effect.gen(function* () {
          const fleet = new Fleet()
          for (const name of ["alice", "bob"]) fleet.add(name)
          const messaging = yield* kind.open(fleet, path)
          const alice = yield* messaging.agent("alice")
          const bob = yield* messaging.agent("bob")
          yield* known(alice)
          yield* known(bob)
          yield* until(
            "each other",
            Effect.map(alice.ref.ask("Peers"), (peers) => (peers.length === 2 ? peers : undefined))
          )
          for (const level of ["public", "protected", "private", "end_to_end"] as const)
            yield* send(alice, level, ["bob"], { level })
          const got = yield* inboxOf(bob, 4)
          assert.deepStrictEqual(
            bodies(got)
              .map((body) => (body as { level: string }).level)
              .sort(),
            ["end_to_end", "private", "protected", "public"]
          )
          for (const to of ["bob", "broker-services"]) {
            const ticket = yield* alice.ref.ask("Ping", { to: to as never })
            assert.isNumber(yield* Deferred.await(ticket.answer))
          }
        })
      )
    )

    it.live("bring what was sent to who was away, once", () =>
      withFolder((path) =>
        Effect.gen(function* () {
          const fleet = new Fleet()
          for (const name of ["alice", "bob"]) fleet.add(name)
          const messaging = yield* kind.open(fleet, path)
          const alice = yield* messaging.agent("alice")
          yield* Effect.scoped(Effect.flatMap(messaging.agent("bob"), known))
          yield* known(alice)
          for (let index = 0; index < 20; index++) yield* send(alice, "private", ["bob"], index)
          yield* until(
            "all to be sent",
            Effect.map(alice.ref.ask("Report"), ({ queued }) => (queued === 0 ? true : undefined))
          )
          const bob = yield* messaging.agent("bob")
          const got = yield* inboxOf(bob, 20)
          assert.deepStrictEqual(
            bodies(got),
            Array.from({ length: 20 }, (_, index) => index)
          )
        })
      )
    )

    if (kind.takesStrangers) {
      it.live("let a stranger wait", () =>
        withFolder((path) =>
          Effect.gen(function* () {
            const fleet = new Fleet()
            fleet.add("carol", "pending")
            const messaging = yield* kind.open(fleet, path)
            const carol = yield* messaging.agent("carol")
            yield* inState(carol, "waiting")
          })
        )
      )
    }

    it.live("refuse a second claimant of a name", () =>
      withFolder((path) =>
        Effect.gen(function* () {
          const fleet = new Fleet()
          fleet.add("alice")
          const messaging = yield* kind.open(fleet, path)
          const other = new Fleet()
          other.add("alice", "accepted", "somebody else")
          const impostor = yield* messaging.impostor(other, "alice")
          yield* until(
            "the refusal",
            Effect.map(impostor.ref.ask("Report"), ({ detail }) =>
              detail.includes("credentials") ? true : undefined
            )
          )
        })
      )
    )
  })
