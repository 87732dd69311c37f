/** An agent's publications at a broker that takes long to acknowledge, or never does. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Result } from "effect"
import { TestClock } from "effect/testing"
import { asPi, localBus } from "./localBus.ts"

/** A link to a broker whose services think about each publication for as long as the test wants. */
const slowLink = Effect.gen(function* () {
  const asked = yield* Deferred.make<void>()
  const done = yield* Deferred.make<void>()
  const bus = yield* localBus({
    received: Effect.andThen(Deferred.succeed(asked, undefined), Deferred.await(done))
  })
  yield* Effect.addFinalizer(() => Deferred.succeed(done, undefined))
  const link = yield* Effect.flatMap(bus.find, ({ connect }) =>
    connect({ ...asPi, hasRoom: Effect.succeed(true), received: () => Effect.void })
  )
  const publication = yield* Effect.forkChild(
    Effect.result(link.publish("fleet/broker-services/protected", new Uint8Array(8)))
  )
  yield* Deferred.await(asked)
  // For so long broker services try to make a message safe.
  yield* TestClock.adjust(60_000)
  assert.isUndefined(publication.pollUnsafe(), "it was given up before broker services did")
  return { done, link, publication }
})

describe("a publication", () => {
  it.effect("has as long as broker services give themselves", () =>
    Effect.gen(function* () {
      const { done, publication } = yield* slowLink
      yield* Deferred.succeed(done, undefined)
      assert.isTrue(Result.isSuccess(yield* Fiber.join(publication)))
    })
  )

  it.effect("that is never acknowledged ends the connection, on which it must not be sent again", () =>
    Effect.gen(function* () {
      const { link, publication } = yield* slowLink
      yield* TestClock.adjust(30_000)
      const given = yield* Fiber.join(publication)
      assert.isTrue(Result.isFailure(given) && given.failure.code === "unreachable")
      assert.include(yield* link.ended, "was not acknowledged")
    })
  )
})
