/** An agent that is away from a real Mosquitto for long, while the lists of agents change and Mosquitto is killed. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { clientOf } from "../support/bareBroker.ts"
import { mosquitto3 } from "../support/brokers.ts"
import {
  bodies,
  Fleet,
  inboxOf,
  inState,
  inStatus,
  seesPeers,
  send,
  until,
  withFolder
} from "../support/messaging.ts"
import { waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"

const queuePackets = 20
const count = 12

describeWith(mosquitto3.parts, "an agent that is away from Mosquitto for long", () => {
  it.live("gets each message that was for it, and the newest list", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const fleet = new Fleet()
        for (const name of ["alice", "bob", "carol", "watcher"]) fleet.add(name)
        const messaging = yield* mosquitto3.open(fleet, path, { intervalMs: 20, queuePackets })
        const { mosquitto, services } = messaging
        const alice = yield* messaging.agent("alice")
        yield* inState(alice, "known")
        yield* Effect.scoped(Effect.flatMap(messaging.agent("bob"), (bob) => inState(bob, "known")))
        // A goodbye over a slow disk is behind its bound, and the will says the rest.
        yield* inStatus(services, "bob", "DG", "DU")

        let lists = 0
        const watch = Effect.gen(function* () {
          const password = (yield* messaging.passwordOf("watcher")) as string
          const as = { clientId: "watcher", username: "watcher", password }
          const client = yield* clientOf(mosquitto?.address as string, as, () => void lists++)
          yield* Effect.promise(() => client.subscribeAsync("mf2c/broker-services/discovery", { qos: 1 }))
          lists = 0
          yield* Effect.promise(() => waitUntil("many lists", () => lists > 3 * queuePackets))
        })
        yield* Effect.scoped(watch)
        yield* inState(yield* messaging.agent("carol"), "known")
        for (let index = 0; index < count; index++) {
          yield* send(alice, index % 2 === 0 ? "private" : "protected", ["bob"], index)
          if (index !== count / 2) continue
          yield* Effect.promise(() => mosquitto?.stop("SIGKILL") as Promise<void>)
          yield* Effect.promise(() => mosquitto?.start() as Promise<void>)
          yield* Effect.scoped(watch)
        }
        yield* until(
          "all to be sent",
          Effect.map(alice.ref.ask("Report"), ({ queued }) => (queued === 0 ? true : undefined))
        )
        yield* Effect.scoped(watch)

        const bob = yield* messaging.agent("bob")
        const got = yield* inboxOf(bob, count)
        assert.deepStrictEqual(
          bodies(got)
            .map(Number)
            .sort((left, right) => left - right),
          Array.from({ length: count }, (_, index) => index)
        )
        yield* seesPeers(bob, ["alice", "bob", "carol"])
      })
    )
  )
})
