/** What an agent has no room for, and leaves with the broker. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect } from "effect"
import { asPi, localBus } from "./localBus.ts"

describe("a message that an agent has no room for", () => {
  it.live("ends the connection when there is room, and not because it could be dealt with otherwise", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { connect: come } = yield* (yield* localBus({ roomMs: 10 })).find
        const inbox = "fleet/pi/public"
        const rest = yield* Deferred.make<void>()
        const came: Array<string> = []
        let isSent = false
        let asked = 0
        const ended = yield* Effect.scoped(
          Effect.gen(function* () {
            const link = yield* come({
              ...asPi,
              received: ({ payload }) =>
                Effect.suspend(() => {
                  came.push(new TextDecoder().decode(payload))
                  // Once it is refused for want of room; as one that has expired meanwhile, it never is again.
                  return came.length === 1
                    ? Effect.fail({ message: "there is no room", isLeft: true })
                    : Effect.void
                }),
              hasRoom: Effect.sync(() => isSent && came.length === 2 && ++asked === 5)
            })
            yield* link.subscribe(["fleet/pi/#"])
            for (const body of ["left", "taken"]) yield* link.publish(inbox, new TextEncoder().encode(body))
            isSent = true
            return yield* link.ended
          })
        )
        assert.strictEqual(asked, 5)
        assert.include(ended, "asked for again")
        assert.deepStrictEqual(came, ["left", "taken"])
        yield* come({
          ...asPi,
          received: ({ payload }) =>
            Effect.suspend(() => {
              came.push(new TextDecoder().decode(payload))
              return Effect.asVoid(Deferred.succeed(rest, undefined))
            }),
          hasRoom: Effect.succeed(true)
        })
        yield* Deferred.await(rest)
        assert.deepStrictEqual(came, ["left", "taken", "left"])
      })
    )
  )
})
