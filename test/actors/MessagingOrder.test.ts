/** What one agent sends comes in the order in which it was sent: levels mixed, and where something fails in the middle. */
import { assert, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { LocalRelayCrypto } from "../../src/adapters/mqtt/LocalRelayCrypto.ts"
import { RelayCrypto, RelayCryptoError } from "../../src/ports/RelayCrypto.ts"
import { brokerKinds, embedded } from "../support/brokers.ts"
import {
  bodies,
  Fleet,
  inboxOf,
  inState,
  refusedOf,
  ServicesKeys,
  send,
  withFolder
} from "../support/messaging.ts"
import { describeWith } from "../support/requires.ts"

const numbers = (count: number) => Array.from({ length: count }, (_, index) => index)

for (const kind of brokerKinds)
  describeWith(kind.parts, `messages of one agent, over ${kind.name}`, () => {
    it.live("keep their order, whatever their levels", () =>
      withFolder((path) =>
        Effect.gen(function* () {
          const fleet = new Fleet()
          for (const name of ["alice", "bob"]) fleet.add(name)
          const messaging = yield* kind.open(fleet, path)
          const bob = yield* messaging.agent("bob")
          const alice = yield* messaging.agent("alice")
          for (const agent of [alice, bob]) yield* inState(agent, "known")
          for (const number of numbers(64))
            yield* send(alice, number % 8 < 4 ? "protected" : "private", ["bob"], number)
          assert.deepStrictEqual(bodies(yield* inboxOf(bob, 64)), numbers(64))
        })
      )
    )
  })

describeWith(embedded.parts, "messages behind one that fails", () => {
  it.live("wait for it to come again", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const keys = new ServicesKeys()
        let judged = 0
        const relay = Layer.effect(
          RelayCrypto,
          Effect.map(Effect.service(RelayCrypto), (crypto) => ({
            ...crypto,
            judge: (arrival: Parameters<typeof crypto.judge>[0]) =>
              Effect.suspend(() =>
                ++judged === 3
                  ? Effect.fail(new RelayCryptoError({ code: "died", reason: "its thread ended" }))
                  : crypto.judge(arrival)
              )
          }))
        ).pipe(Layer.provide(LocalRelayCrypto(keys.relay())))
        const fleet = new Fleet()
        for (const name of ["alice", "bob"]) fleet.add(name)
        const { agent, services } = yield* embedded.open(fleet, path, { keys, relay })
        const bob = yield* agent("bob")
        yield* inState(bob, "known")
        const alice = yield* agent("alice")
        for (const number of numbers(24)) yield* send(alice, "protected", ["bob"], number)
        assert.deepStrictEqual(bodies(yield* inboxOf(bob, 24)), numbers(24))
        // What was acknowledged in the moment in which the connection ended may come twice.
        assert.isAtMost(yield* refusedOf(services, "alice", "replayed"), 2)
      })
    )
  )
})
