/** Actors that the kernel's tests are made of. */
import { Effect, Exit, Layer, Logger, Schema, type Scope } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { ActorKey, Behaviour } from "../../src/kernel/index.ts"

export const Manner = Schema.Literals(["normal", "defect", "interrupt"])

/** An actor that does as it is told, so that tests can kill it in every way. */
export const PuppetProtocol = RpcGroup.make(
  Rpc.make("Ping", { success: Schema.Int }),
  Rpc.make("Die", { payload: { manner: Manner } }),
  Rpc.make("Sleep", { payload: { ms: Schema.Finite }, success: Schema.Int }),
  Rpc.make("Deaf"),
  Rpc.make("Fail", { error: Schema.String })
)
export type PuppetRpcs = typeof PuppetProtocol extends RpcGroup.RpcGroup<infer R> ? R : never

/** What a factory shall do in a certain life. */
export type Birth = "well" | "fails" | "dies" | "hangs" | "hangs deaf"

/** A puppet and what was seen of it. */
export interface Puppet {
  readonly key: ActorKey<PuppetRpcs>
  readonly behaviour: Behaviour<PuppetRpcs>
  /** Factories run so far. */
  lives: number
  /** Scopes closed so far. */
  closed: number
  handled: Array<string>
}

/** A factory that never returns and does not heed interruption. */
export const deaf = Effect.uninterruptible(Effect.never)

/** Makes a puppet whose lives begin as `births` says; after the list, well. */
export const puppet = (name: string, births: ReadonlyArray<Birth> = [], log: Array<string> = []): Puppet => {
  const seen: Puppet = {
    key: ActorKey.make(name, PuppetProtocol),
    behaviour: undefined as never,
    lives: 0,
    closed: 0,
    handled: []
  }
  const behaviour = Behaviour.make(PuppetProtocol, (ctx) =>
    Effect.gen(function* () {
      const life = ++seen.lives
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          seen.closed++
          log.push(`${name} closed`)
        })
      )
      log.push(`${name} started`)
      const birth = births[life - 1] ?? "well"
      if (birth === "fails") {
        return yield* Effect.fail("no luck")
      }
      if (birth === "dies") {
        return yield* Effect.die(new Error("stillborn"))
      }
      if (birth !== "well") {
        return yield* birth === "hangs" ? Effect.never : deaf
      }
      return ctx.handlers({
        Ping: () =>
          Effect.sync(() => {
            seen.handled.push("Ping")
            return life
          }),
        Die: ({ payload }) =>
          payload.manner === "normal"
            ? ctx.stopSelf
            : payload.manner === "defect"
              ? Effect.die(new Error("told to die"))
              : Effect.interrupt,
        Sleep: ({ payload }) => Effect.as(Effect.sleep(payload.ms), life),
        Deaf: () => deaf,
        Fail: () => Exit.fail("as told")
      })
    })
  )
  return Object.assign(seen, { behaviour })
}

/** Runs a property whose check is an Effect, each run with a TestClock and a Scope of its own, without log output. */
export const property = <A>(
  arbitrary: fc.Arbitrary<A>,
  check: (value: A) => Effect.Effect<unknown, unknown, Scope.Scope>,
  numRuns: number
): Promise<void> =>
  fc.assert(
    fc.asyncProperty(arbitrary, async (value) => {
      const layer = Layer.merge(TestClock.layer(), Logger.layer([]))
      await Effect.runPromise(Effect.provide(Effect.scoped(check(value)), layer))
    }),
    { numRuns }
  )
