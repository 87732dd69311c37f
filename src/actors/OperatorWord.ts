/**
 * What the server says to a document of operators before it looks into it: whether the root is still good, and whether
 * those who signed are still operators. The devices judge all this again.
 */
import { Clock, Effect } from "effect"
import type { Distrust } from "../crypto/Documents.ts"
import type { FleetRoot } from "../ports/FleetTrust.ts"
import type { DsseEnvelope } from "../schemas/Dsse.ts"
import { Conflict, Refused } from "../schemas/ManagementApi.ts"

/** Fails once the root has expired: no device would begin anything under it. */
export const requireGoodRoot = ({ root }: FleetRoot): Effect.Effect<void, Conflict> =>
  Effect.flatMap(Clock.currentTimeMillis, (nowMs) =>
    nowMs < root.expires_at_ms
      ? Effect.void
      : Effect.fail(
          new Conflict({ code: "root_expired", message: `the trust root ${root.version} has expired` })
        )
  )

/** How a document that does not hold is refused: with a code of its own where an operator signed who was revoked since. */
export const refusalOf = (
  distrust: Distrust,
  envelope: DsseEnvelope,
  { formerOperators, root }: FleetRoot
): Conflict | Refused => {
  const former = new Set<string>(formerOperators)
  const revoked = envelope.signatures.find(({ keyid }) => former.has(keyid))
  const isAboutSigners = distrust.code === "unknown_key" || distrust.code === "threshold_not_met"
  return isAboutSigners && revoked !== undefined
    ? new Conflict({
        code: "operator_revoked",
        message: `${revoked.keyid} is no operator any more since the trust root ${root.version}`
      })
    : new Refused({ message: distrust.message })
}
