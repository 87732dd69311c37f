/**
 * The manifest: the first entry (`manifest.json`) of a payload's tar. It says what to run, within which limits, with
 * which grants, and the digest of every file. It is signed through the order, which binds the whole ciphertext.
 */
import { Schema } from "effect"
import { Count, Digest, intBetween, labelUpTo } from "./Ids.ts"
import { Limits } from "./Limits.ts"

/** Path of a file inside the package: relative, `/` between parts, no empty, `.` or `..` part, no control character, no backslash. */
export const PackagePath = Schema.String.check(
  Schema.isBetweenLength(1, Limits.packagePathLength),
  Schema.isPattern(/^[^\p{Cc}\p{Cf}\p{Cs}\\]+$/u),
  Schema.makeFilter((path) => {
    const parts = path.split("/")
    if (parts.length > Limits.packageDepth) return `deeper than ${Limits.packageDepth} folders`
    return !parts.some((part) => part === "" || part === "." || part === "..") || "not a plain relative path"
  })
)

const text = (maximum: number) =>
  Schema.String.check(Schema.isMaxLength(maximum), Schema.isPattern(/^[^\0]*$/))

export const JobLimits = Schema.Struct({
  /** Wall clock; then SIGTERM, after the grace SIGKILL. */
  timeout_ms: intBetween(100, Limits.jobTimeoutMs),
  grace_ms: intBetween(0, Limits.jobGraceMs),
  memory_bytes: intBetween(16 * 1024 * 1024, Limits.jobMemoryBytes),
  /** Share of one processor in percent: 150 is one and a half. */
  cpu_percent: intBetween(1, Limits.jobCpuPercent),
  processes: intBetween(1, Limits.jobProcesses),
  /** Room in /work, /tmp and /dev/shm together, artifacts included. */
  disk_bytes: intBetween(64 * 1024, Limits.jobDiskBytes),
  /** stdout and stderr together; what comes after is counted, cut and marked. */
  output_bytes: intBetween(0, Limits.jobOutputBytes),
  artifact_bytes: intBetween(0, Limits.artifactBytes),
  artifact_entries: intBetween(0, Limits.artifactEntries)
})
export type JobLimits = typeof JobLimits.Type

/** What a package asks of the device beyond the bare jail. The device grants only what its own allow-list names too. */
export const Grants = Schema.Struct({
  devices: Schema.Array(Schema.String.check(Schema.isPattern(/^[a-z0-9][a-z0-9-]{0,62}$/))).check(
    Schema.isMaxLength(16),
    Schema.isUnique()
  ),
  read_only: Schema.Array(text(Limits.packagePathLength).check(Schema.isPattern(/^\//))).check(
    Schema.isMaxLength(16),
    Schema.isUnique()
  )
})
export type Grants = typeof Grants.Type

export const ManifestFile = Schema.Struct({
  digest: Digest,
  size_bytes: Count,
  executable: Schema.Boolean
})

export const Manifest = Schema.Struct({
  type: Schema.Literal("postern/manifest/v1"),
  /** For people: what this package is called. */
  name: labelUpTo(Limits.labelLength),
  /** Program and arguments. Run in /work with the package's files below /package (read-only; $POSTERN_PACKAGE). */
  command: Schema.Array(text(Limits.commandArgumentLength)).check(
    Schema.isMinLength(1),
    Schema.isMaxLength(Limits.commandArguments)
  ),
  /** Added to what the jail sets: PATH, HOME and LANG, which it may replace, PWD and POSTERN_PACKAGE, which it may not. */
  environment: Schema.Record(
    Schema.String.check(Schema.isPattern(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/)),
    text(Limits.environmentValueLength)
  ).check(Schema.isMaxProperties(Limits.environmentVariables)),
  /** Whether it may be run again after a crash in mid-run (at most three attempts). */
  idempotent: Schema.Boolean,
  limits: JobLimits,
  grants: Grants,
  /** Files that must stand in /work/out at the end. All files there are returned; one of these missing fails the job. */
  artifacts: Schema.Array(PackagePath).check(Schema.isMaxLength(Limits.expectedArtifacts), Schema.isUnique()),
  /** Every file of the package by path, this manifest apart. A path not listed here, or listed and missing, is refused. */
  files: Schema.Record(PackagePath, ManifestFile).check(Schema.isMaxProperties(Limits.packageEntries))
})
export type Manifest = typeof Manifest.Type

/** The name of the manifest's tar entry. */
export const manifestPath = "manifest.json"

/** Limits that a package gets when its builder names none: 10 minutes, 256 MiB, one processor. */
export const defaultJobLimits: JobLimits = {
  timeout_ms: 600_000,
  grace_ms: 5_000,
  memory_bytes: 256 * 1024 * 1024,
  cpu_percent: 100,
  processes: 64,
  disk_bytes: 256 * 1024 * 1024,
  output_bytes: 4 * 1024 * 1024,
  artifact_bytes: 64 * 1024 * 1024,
  artifact_entries: 100
}
