/** The device's configuration. Every key has a default that works; times in milliseconds, sizes in bytes. */
import { Effect, Schema } from "effect"
import { Count, intBetween, Name } from "./Ids.ts"
import { Limits } from "./Limits.ts"
import { Grants } from "./Manifest.ts"
import { ServerAddress } from "./TrustRoot.ts"

const withDefault = <A>(schema: Schema.Codec<A, A>, value: A) =>
  schema.pipe(Schema.withDecodingDefault(Effect.succeed(value)))

const Bound = Schema.optionalKey(Count)

/** What one job may use at the most on this device; the names are those of a manifest's limits. */
const DeviceLimits = Schema.Struct({
  timeout_ms: Bound,
  grace_ms: Bound,
  memory_bytes: Bound,
  cpu_percent: Bound,
  processes: Bound,
  disk_bytes: Bound,
  output_bytes: Bound,
  artifact_bytes: Bound,
  artifact_entries: Bound
})

export const ClientConfig = Schema.Struct({
  /** Where the device keeps keys, ledger, packages. 0700. */
  state_folder: Schema.String,
  /** Server to ask when no root is known yet (an invitation brings its own). */
  server: Schema.NullOr(ServerAddress).pipe(Schema.withDecodingDefault(Effect.succeed(null))),
  /** Name to ask for at enrolment; default the host's name where it is a good one. */
  name: Schema.NullOr(Name).pipe(Schema.withDecodingDefault(Effect.succeed(null))),
  /** Hold polls open, so that orders come at once. 0 turns it off. */
  long_poll_ms: withDefault(intBetween(0, Limits.longPollMs), 25_000),
  /** Bounds on the sleep the server may ask for. */
  sleep_minimum_ms: withDefault(intBetween(Limits.pollSleepMinimumMs, Limits.pollSleepMaximumMs), 1_000),
  sleep_maximum_ms: withDefault(intBetween(Limits.pollSleepMinimumMs, Limits.pollSleepMaximumMs), 300_000),
  health_interval_ms: withDefault(intBetween(1_000, 24 * 3_600_000), 60_000),
  /** Below this no payload is downloaded; the poll goes on and says so. */
  disk_reserve_bytes: withDefault(intBetween(0, Number.MAX_SAFE_INTEGER), 64 * 1024 * 1024),
  /** A download must be done within this and come at least at that rate (bytes per second, over 30 s). */
  download_timeout_ms: withDefault(intBetween(1_000, 7 * 86_400_000), 6 * 3_600_000),
  download_minimum_rate: withDefault(intBetween(1, 1_000_000_000), 100),
  /** What packages may be granted beyond the bare jail: nothing, unless it is named here. */
  grants: withDefault(Grants, { devices: [], read_only: [] }),
  /** Upper bounds of this device on what a package may ask for; those left out are the general ones. */
  job_limits: withDefault(DeviceLimits, {}),
  /** First host uid for jobs when the client runs as root. */
  jail_uid_base: withDefault(intBetween(1_000, 2_000_000_000), 64_000),
  /** Path of bubblewrap. */
  bwrap: withDefault(Schema.String, "bwrap")
})
export type ClientConfig = typeof ClientConfig.Type
