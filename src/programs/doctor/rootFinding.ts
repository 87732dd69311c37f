/** What is to be said of a trust root that a device or a server holds. */
import { Result } from "effect"
import { requirement } from "../../adapters/doctor/Findings.ts"
import type { Finding } from "../../schemas/Finding.ts"
import { expiryWarning } from "../../schemas/RootExpiry.ts"
import type { TrustRoot } from "../../schemas/TrustRoot.ts"

const dayMs = 86_400_000

/** `absent` says how one comes to be, where there is none yet. */
export const rootFinding = (
  held: Result.Result<{ readonly root: TrustRoot }, string> | null,
  nowMs: number,
  absent: string
): Finding => {
  const is = requirement("trust.root", "the trust root, which says whom to believe")
  if (held === null) return is.degraded("there is none yet", absent)
  if (Result.isFailure(held))
    return is.failed(held.failure, "restore the state folder's database from a backup")
  const { root } = held.success
  const warning = expiryWarning(root, nowMs)
  if (warning !== undefined) return is.degraded(warning.text, "on the operator's machine: postern keys renew")
  return is.ok(`version ${root.version}, good for ${Math.floor((root.expires_at_ms - nowMs) / dayMs)} days`)
}
