/** What a device can tell of itself. No method fails for a missing sensor: what cannot be read is null. */
import type { Effect } from "effect"
import { Context, Schema } from "effect"
import type { HealthReport } from "../schemas/Health.ts"

/** The host's part of a {@link HealthReport}: all but the work counters and the device's own state. */
export type HostFigures = Omit<
  HealthReport,
  "at_ms" | "work" | "blocked" | "degraded" | "configuration_digest" | "software"
>

export class ProbeError extends Schema.TaggedError<ProbeError>()("ProbeError", {
  reason: Schema.String
}) {}

export class HostProbe extends Context.Service<
  HostProbe,
  {
    readonly figures: Effect.Effect<HostFigures>
    /** Free bytes where the state folder lives. */
    readonly freeDiskBytes: Effect.Effect<number, ProbeError>
    /** Whether any interface but loopback is up and has an address (or loopback alone is what the server is on). */
    readonly hasNetwork: Effect.Effect<boolean>
  }
>()("postern/ports/HostProbe") {}
