/**
 * From how a run ended to what its receipt says, and from what a package asks to what this device allows. Plain functions.
 *
 * @module
 */
import type { JailResult } from "../schemas/JailProfile.ts"
import type { Grants, JobLimits, Manifest } from "../schemas/Manifest.ts"
import type { StopReason } from "../schemas/protocols/Lane.ts"
import type { OutcomeReason } from "../schemas/Refusals.ts"
import type { FinalState } from "../schemas/WorkOrder.ts"

/** The part of a receipt that says how it went. */
export interface Verdict {
  readonly state: FinalState
  readonly reason: OutcomeReason | null
  readonly detail: string | null
  readonly exitCode: number | null
  readonly signal: string | null
}

/** What this device allows at the most, from its configuration. */
export interface DeviceAllowance {
  readonly grants: Grants
  readonly limits: Partial<JobLimits>
}

const verdict = (state: FinalState, reason: OutcomeReason | null, more: Partial<Verdict> = {}): Verdict => ({
  state,
  reason,
  detail: null,
  exitCode: null,
  signal: null,
  ...more
})

const stopped = (stop: StopReason): Verdict =>
  stop === "device_stopped" ? verdict("interrupted", stop) : verdict("canceled", stop)

/** What a command that ended by itself with code 0 still owes: the artifacts it promised, all of them acceptable. */
const settleArtifacts = (manifest: Manifest, result: JailResult): Verdict => {
  const refused = result.refused_artifacts[0]
  if (refused !== undefined) {
    return verdict("failed", "artifact_refused", {
      exitCode: 0,
      detail: `${refused.name}: ${refused.reason}`
    })
  }
  const left = new Set<string>(result.artifacts.map((artifact) => artifact.path))
  const missing = manifest.artifacts.find((path) => !left.has(path))
  return missing === undefined
    ? verdict("succeeded", null, { exitCode: 0 })
    : verdict("failed", "artifact_missing", { exitCode: 0, detail: missing })
}

/** How the order ends, by how its run ended. `stop` is who asked it to stop, if anybody did before it ended. */
export const judgeRun = (manifest: Manifest, result: JailResult, stop: StopReason | null): Verdict => {
  const { outcome } = result
  switch (outcome._tag) {
    case "Exited":
      return outcome.code === 0
        ? settleArtifacts(manifest, result)
        : verdict("failed", "exit_code", { exitCode: outcome.code })
    case "Signaled":
      return verdict("failed", "signal", { signal: outcome.signal })
    case "TimedOut":
      return verdict("timed_out", "timed_out")
    case "Canceled":
      return stopped(stop ?? "device_stopped")
    case "EngineFailed":
      if (stop !== null) return stopped(stop)
      return outcome.reason === "command_not_started"
        ? verdict("failed", "command_not_started", { detail: outcome.detail })
        : verdict("failed", "jail_failed", { detail: `${outcome.reason}: ${outcome.detail}` })
  }
}

/** Why this device does not run such a package, or null where it does. */
export const refuseByAllowance = (
  manifest: Manifest,
  allowed: DeviceAllowance
): { readonly code: "grant_refused" | "limit_refused"; readonly detail: string } | null => {
  const device = manifest.grants.devices.find((name) => !allowed.grants.devices.includes(name))
  if (device !== undefined) return { code: "grant_refused", detail: `the device ${device}` }
  const path = manifest.grants.read_only.find((name) => !allowed.grants.read_only.includes(name))
  if (path !== undefined) return { code: "grant_refused", detail: `the path ${path}` }
  for (const [name, maximum] of Object.entries(allowed.limits) as Array<
    [keyof JobLimits, number | undefined]
  >) {
    if (maximum !== undefined && manifest.limits[name] > maximum) {
      return {
        code: "limit_refused",
        detail: `${name} is ${manifest.limits[name]}, the device allows ${maximum}`
      }
    }
  }
  return null
}
