/** What a jail says of itself and of a run: the report of its check, how a run ended, what it used and left behind. */
import { Schema } from "effect"
import { Count, labelUpTo } from "./Ids.ts"
import { PackagePath } from "./Manifest.ts"
import { Isolation, ResourceUse } from "./Receipt.ts"

/**
 * What holds a limit: `cgroup` counts the job as a whole; `rlimit` counts each process (memory, processor time) or each
 * uid (processes); `none` is not held at all.
 */
export const LimitMechanism = Schema.Literals(["cgroup", "rlimit", "none"])
export type LimitMechanism = typeof LimitMechanism.Type

/** What the check of a jail found, from a run of the real engine. */
export const JailReport = Schema.Struct({
  /** e.g. `bubblewrap`. */
  engine: labelUpTo(32),
  version: labelUpTo(32),
  isolation: Isolation,
  /** Always true where a report exists: the probe saw its own filter, no capability and no way to new privileges. */
  seccomp: Schema.Boolean,
  limits: Schema.Struct({
    memory: LimitMechanism,
    processes: LimitMechanism,
    cpu: LimitMechanism,
    /** Bytes and number of files in /work and /tmp, by a tmpfs of its own. */
    disk: Schema.Literals(["tmpfs"])
  }),
  /** What is weaker than it could be, for people: one sentence each. */
  notes: Schema.Array(labelUpTo(200)).check(Schema.isMaxLength(16))
})
export type JailReport = typeof JailReport.Type

/** Why there is no safe jail on this machine. */
export const JailUnavailableReason = Schema.Literals([
  "no_engine",
  "missing_tool",
  "unsupported_architecture",
  "no_user_namespaces",
  "no_mount_privilege",
  "unsafe_uid",
  "not_contained",
  "probe_failed",
  "timed_out"
])
export type JailUnavailableReason = typeof JailUnavailableReason.Type

/** There is no safe jail here, so no job may run. `detail` says what was seen, `remedy` what to do. */
export class JailUnavailable extends Schema.TaggedError<JailUnavailable>()("JailUnavailable", {
  reason: JailUnavailableReason,
  detail: Schema.String,
  remedy: Schema.String
}) {
  override get message(): string {
    return `${this.detail} ${this.remedy}`
  }
}

export const JailErrorReason = Schema.Literals([
  "bad_request",
  "grant_refused",
  "no_free_slot",
  "not_enough_memory",
  "package_unusable",
  "start_failed",
  "start_timed_out"
])
export type JailErrorReason = typeof JailErrorReason.Type

/** A run did not begin; the command was not executed. */
export class JailError extends Schema.TaggedError<JailError>()("JailError", {
  reason: JailErrorReason,
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

const signalName = Schema.String.check(Schema.isPattern(/^SIG[A-Z0-9]{1,12}$/))
const exitCode = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))

/**
 * How a run ended. `Exited` and `Signaled` mean that the main process ended by itself, proved by the engine's own status.
 * The engine tells death by signal n as code 128 + n, as shells do, so a program that exits with such a code reads as
 * `Signaled`. In `TimedOut` and `Canceled`, `killed` is false when the main process ended within the grace after SIGTERM.
 */
export const JailOutcome = Schema.TaggedUnion({
  Exited: { code: exitCode },
  Signaled: { signal: signalName, code: exitCode },
  TimedOut: { killed: Schema.Boolean },
  Canceled: { killed: Schema.Boolean },
  EngineFailed: {
    reason: Schema.Literals(["command_not_started", "engine_killed", "setup_failed", "will_not_die"]),
    detail: labelUpTo(300)
  }
})
export type JailOutcome = typeof JailOutcome.Type

const StreamCount = Schema.Struct({ seen_bytes: Count, kept_bytes: Count })

/** A regular file the job left below /work/out. */
export const JailArtifact = Schema.Struct({
  /** Relative to /work/out, checked: safe as a file name anywhere. */
  path: PackagePath,
  size_bytes: Count,
  executable: Schema.Boolean,
  /** Where to read it on this host, from this very process, until the run's scope closes. */
  host_path: Schema.String
})
export type JailArtifact = typeof JailArtifact.Type

/** Something below /work/out that is not returned. */
export const RefusedArtifact = Schema.Struct({
  /** As printable text: control and format characters are escaped; cut when long. */
  name: labelUpTo(300),
  reason: Schema.Literals(["bad_name", "too_deep", "not_a_file", "too_large", "too_many", "unreadable"])
})
export type RefusedArtifact = typeof RefusedArtifact.Type

export const JailResult = Schema.Struct({
  outcome: JailOutcome,
  usage: ResourceUse,
  output: Schema.Struct({
    stdout: StreamCount,
    stderr: StreamCount,
    /** Whether bytes were thrown away because `output_bytes` was reached. */
    truncated: Schema.Boolean
  }),
  artifacts: Schema.Array(JailArtifact),
  /** At most a hundred of them; `refused_artifact_count` has them all. */
  refused_artifacts: Schema.Array(RefusedArtifact),
  refused_artifact_count: Count
})
export type JailResult = typeof JailResult.Type
