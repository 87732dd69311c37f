/** How the long-running programs end where nobody asked them to. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Fiber, Logger } from "effect"
import type { ActorSystem } from "../../src/kernel/index.ts"
import { untilTerminated } from "../../src/programs/Service.ts"

/** A tree that ends when it is told to, and not by itself. */
const tree = (end: ActorSystem["terminated"]) => ({ terminated: end }) as unknown as ActorSystem

/** Who hears of failures that nobody took up: the tests' runner, too, which would take them for its own. */
const listeners = Effect.acquireRelease(
  Effect.sync(() => {
    const before = process.listeners("unhandledRejection")
    process.removeAllListeners("unhandledRejection")
    return before
  }),
  (before) =>
    Effect.sync(() => {
      process.removeAllListeners("unhandledRejection")
      for (const each of before) process.on("unhandledRejection", each)
    })
)

describe("a program", () => {
  it.effect("ends as one that gave up where a failure reached nobody, and logs it", () =>
    Effect.gen(function* () {
      yield* listeners
      const logged: Array<string> = []
      const logger = Logger.make(
        ({ cause, logLevel }) => void logged.push(`${logLevel} ${Cause.pretty(cause)}`)
      )
      const program = yield* Effect.forkChild(
        Effect.flip(untilTerminated("server", tree(Effect.never))).pipe(
          Effect.provide(Logger.layer([logger]))
        )
      )
      yield* Effect.yieldNow
      assert.lengthOf(process.listeners("unhandledRejection"), 1)
      const fail = (what: string) =>
        void process.emit("unhandledRejection", new Error(what), Promise.resolve())
      fail("the disk is full")
      const gaveUp = yield* Fiber.join(program)
      assert.strictEqual(gaveUp.message, "the server gave up: a failure reached nobody: the disk is full")
      // Many fail at once where a database does; that must not cut off the orderly end.
      fail("the disk is still full")
      yield* Effect.yieldNow
      assert.lengthOf(logged, 2)
      assert.include(logged[0], "Error Error: the disk is full")
      assert.include(logged[1], "Error Error: the disk is still full")
    }).pipe(Effect.scoped)
  )

  it.effect("that ends otherwise listens no longer", () =>
    Effect.gen(function* () {
      yield* listeners
      yield* untilTerminated("client", tree(Effect.succeed({ _tag: "Stopped" })))
      assert.lengthOf(process.listeners("unhandledRejection"), 0)
    }).pipe(Effect.scoped)
  )
})
