/** The cell behind `FleetTrust`: fresh and empty for each server built. */
import { Deferred, Effect, Layer } from "effect"
import { type FleetRoot, FleetTrust } from "../ports/FleetTrust.ts"

export const FleetTrustCell: Layer.Layer<FleetTrust> = Layer.sync(FleetTrust, () => {
  let held: FleetRoot | null = null
  let change = Deferred.makeUnsafe<void>()
  return {
    current: () => held,
    set: (root) => {
      held = root
      const before = change
      change = Deferred.makeUnsafe<void>()
      Deferred.doneUnsafe(before, Effect.void)
    },
    changed: () => Deferred.await(change)
  }
})
