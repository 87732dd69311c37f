/** Many seeds of the simulated world: nothing is lost, nothing is run twice, every order ends once, every chain verifies. */
import { describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { rough, traceOf } from "../sim/World.ts"
import { scaled } from "../support/proof.ts"

const firstSeed = 100

describe("rough hours", () => {
  const seeds = Array.from({ length: scaled(10) }, (_, index) => firstSeed + index)
  it.effect.each(seeds)("seed %i", (seed) => Effect.asVoid(traceOf(rough(seed))))
})
