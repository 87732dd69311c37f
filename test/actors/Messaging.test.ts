import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect } from "effect"
import {
  type Agent,
  bodies,
  Fleet,
  inboxOf,
  inState,
  send,
  startAgent,
  startServices,
  until,
  withFolder
} from "../support/messaging.ts"

const known = (agent: Agent) => inState(agent, "known")

describe("agents and broker services", () => {
  it.live("exchange a message of each level, and a ping", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const fleet = new Fleet()
        for (const name of ["alice", "bob"]) fleet.add(name)
        const { address } = yield* startServices(fleet, path)
        const alice = yield* startAgent(fleet, "alice", address, path)
        const bob = yield* startAgent(fleet, "bob", address, path)
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
        const { address } = yield* startServices(fleet, path)
        const alice = yield* startAgent(fleet, "alice", address, path)
        yield* Effect.scoped(Effect.flatMap(startAgent(fleet, "bob", address, path), known))
        yield* known(alice)
        for (let index = 0; index < 50; index++) yield* send(alice, "private", ["bob"], index)
        yield* until(
          "all to be sent",
          Effect.map(alice.ref.ask("Report"), ({ queued }) => (queued === 0 ? true : undefined))
        )
        const bob = yield* startAgent(fleet, "bob", address, path)
        const got = yield* inboxOf(bob, 50)
        assert.deepStrictEqual(
          bodies(got),
          Array.from({ length: 50 }, (_, index) => index)
        )
      })
    )
  )

  it.live("let a stranger wait, and refuse a second claimant of a name", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const fleet = new Fleet()
        fleet.add("alice")
        fleet.add("carol", "pending")
        const { address } = yield* startServices(fleet, path)
        const carol = yield* startAgent(fleet, "carol", address, path)
        yield* until(
          "the answer",
          Effect.map(carol.ref.ask("Report"), ({ state }) => (state === "waiting" ? true : undefined))
        )
        const other = new Fleet()
        other.add("alice", "accepted", "somebody else")
        const impostor = yield* startAgent(other, "alice", address, path)
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
