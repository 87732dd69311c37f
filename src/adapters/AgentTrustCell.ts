/** The cell behind `AgentTrust`: fresh and empty for each program built. */
import { Deferred, Effect, Layer } from "effect"
import { type AgentStanding, AgentTrust } from "../ports/AgentTrust.ts"

const same = (left: AgentStanding | null, right: AgentStanding | null): boolean => {
  if (left === null || right === null) return left === right
  return (
    left.name === right.name &&
    left.device === right.device &&
    left.server === right.server &&
    left.services.size === right.services.size &&
    [...left.services].every((key) => right.services.has(key))
  )
}

export const AgentTrustCell: Layer.Layer<AgentTrust> = Layer.sync(AgentTrust, () => {
  let held: AgentStanding | null = null
  let change = Deferred.makeUnsafe<void>()
  return {
    current: () => held,
    set: (standing) => {
      if (same(held, standing)) return
      held = standing
      const before = change
      change = Deferred.makeUnsafe<void>()
      Deferred.doneUnsafe(before, Effect.void)
    },
    changed: () => Deferred.await(change)
  }
})
