import { Effect, type Scope } from "effect"
import fc from "fast-check"

/**
 * Checks an effectful property; each run has a scope of its own. `POSTERN_PROOF` multiplies the runs.
 */
export const property = <A>(
  arbitrary: fc.Arbitrary<A>,
  runs: number,
  check: (value: A) => Effect.Effect<void, unknown, Scope.Scope>
): Effect.Effect<void> =>
  Effect.promise(() =>
    fc.assert(
      fc.asyncProperty(arbitrary, (value) => Effect.runPromise(Effect.scoped(check(value)))),
      { numRuns: process.env["POSTERN_PROOF"] === "long" ? runs * 10 : runs }
    )
  )
