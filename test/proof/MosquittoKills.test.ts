/** Messages over a real Mosquitto that is killed again and again, while their recipient is away. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { mosquitto5 } from "../support/brokers.ts"
import {
  bodies,
  Fleet,
  inboxOf,
  inState,
  inStatus,
  refusedOf,
  send,
  until,
  withFolder
} from "../support/messaging.ts"
import { describeWith } from "../support/requires.ts"

describeWith(mosquitto5.parts, "messages over a Mosquitto that is killed", () => {
  it.live("are neither lost nor doubled, whoever was away", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const fleet = new Fleet()
        for (const name of ["alice", "bob"]) fleet.add(name)
        const messaging = yield* mosquitto5.open(fleet, path)
        const alice = yield* messaging.agent("alice")
        yield* inState(alice, "known")
        yield* Effect.scoped(Effect.flatMap(messaging.agent("bob"), (bob) => inState(bob, "known")))
        // A goodbye over a slow disk is behind its bound, and the will says the rest.
        yield* inStatus(messaging.services, "bob", "DG", "DU")
        const { mosquitto } = messaging
        for (let index = 0; index < 30; index++) {
          yield* send(alice, index % 2 === 0 ? "private" : "protected", ["bob"], index)
          if (index % 10 === 5) {
            yield* Effect.promise(() => mosquitto?.stop("SIGKILL") as Promise<void>)
            yield* Effect.promise(() => mosquitto?.start() as Promise<void>)
          }
        }
        yield* until(
          "all to be sent",
          Effect.map(alice.ref.ask("Report"), ({ queued }) => (queued === 0 ? true : undefined))
        )
        yield* Effect.promise(() => mosquitto?.stop("SIGKILL") as Promise<void>)
        yield* Effect.promise(() => mosquitto?.start() as Promise<void>)
        const bob = yield* messaging.agent("bob")
        const got = yield* inboxOf(bob, 30)
        assert.deepStrictEqual(
          bodies(got)
            .map(Number)
            .sort((a, b) => a - b),
          Array.from({ length: 30 }, (_, index) => index)
        )
        assert.strictEqual(yield* refusedOf(messaging.services, "alice", "bad_signature"), 0)
      })
    )
  )
})
