/** What a device can tell of itself. No method fails for a missing sensor: what cannot be read is null. */
import type { Effect } from "effect"
import { Context, Schema } from "effect"
import type { HealthReport } from "../schemas/Health.ts"

/** The host's part of a {@link HealthReport}: what the machine tells, without what only the program knows. */
export type HostFigures = Omit<
  HealthReport,
  | "version"
  | "at_ms"
  | "work"
  | "blocked"
  | "degraded"
  | "configuration_digest"
  | "settings_digest"
  | "software"
  | "jail"
  | "isolation"
  | "link"
  | "identity"
> & { readonly machine: Omit<HealthReport["identity"], "device" | "incarnation"> }

export class ProbeError extends Schema.TaggedError<ProbeError>()("ProbeError", {
  reason: Schema.String
}) {}

export class HostProbe extends Context.Service<
  HostProbe,
  {
    readonly figures: Effect.Effect<HostFigures>
    /** Free bytes where the state folder lives. */
    readonly freeDiskBytes: Effect.Effect<number, ProbeError>
  }
>()("postern/ports/HostProbe") {}
