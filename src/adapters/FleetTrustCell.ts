/** The cell behind `FleetTrust`: fresh and empty for each server built. */
import { Layer } from "effect"
import { type FleetRoot, FleetTrust } from "../ports/FleetTrust.ts"

export const FleetTrustCell: Layer.Layer<FleetTrust> = Layer.sync(FleetTrust, () => {
  let held: FleetRoot | null = null
  return {
    current: () => held,
    set: (root) => {
      held = root
    }
  }
})
