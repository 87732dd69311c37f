/**
 * What a package is to do, from a folder's `postern.json` and the command line; and what a finished one says it does.
 *
 * @module
 */
import { createReadStream, readFileSync } from "node:fs"
import { basename, join } from "node:path"
import { Effect, Option, Result, Schema } from "effect"
import { Flag } from "effect/cli"
import { abortable } from "../../adapters/files/Abortable.ts"
import { errorCode, errorText } from "../../adapters/files/AtomicFile.ts"
import type { OperatorKeys } from "../../adapters/operator/OperatorKeys.ts"
import type { ManifestDraft } from "../../adapters/packages/BuildPackage.ts"
import { openPackage } from "../../adapters/packages/OpenPackage.ts"
import { encodeHex } from "../../crypto/Hex.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { Digest } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import {
  defaultJobLimits,
  Grants,
  type JobLimits,
  JobLimits as JobLimitsSchema,
  Manifest
} from "../../schemas/Manifest.ts"
import type { PayloadReference } from "../../schemas/WorkOrder.ts"
import { failure, usage } from "./Failure.ts"
import { optionalDurationFlag, optionalSizeFlag } from "./Flags.ts"
import { oneLine, showCommand, showDuration, showSize, visible } from "./Text.ts"

/** The name of a package's description, which stays outside the package. */
export const descriptionName = "postern.json"

const limitFields = JobLimitsSchema.fields

/** `postern.json`: the manifest's members as they stand in docs/work-packages.md, each but the command with a default. */
export const PackageDescription = Schema.Struct({
  name: Schema.optionalKey(Manifest.fields.name),
  command: Schema.optionalKey(Manifest.fields.command),
  environment: Schema.optionalKey(Manifest.fields.environment),
  idempotent: Schema.optionalKey(Schema.Boolean),
  limits: Schema.optionalKey(
    Schema.Struct({
      timeout_ms: Schema.optionalKey(limitFields.timeout_ms),
      grace_ms: Schema.optionalKey(limitFields.grace_ms),
      memory_bytes: Schema.optionalKey(limitFields.memory_bytes),
      cpu_percent: Schema.optionalKey(limitFields.cpu_percent),
      processes: Schema.optionalKey(limitFields.processes),
      disk_bytes: Schema.optionalKey(limitFields.disk_bytes),
      output_bytes: Schema.optionalKey(limitFields.output_bytes),
      artifact_bytes: Schema.optionalKey(limitFields.artifact_bytes),
      artifact_entries: Schema.optionalKey(limitFields.artifact_entries)
    })
  ),
  grants: Schema.optionalKey(
    Schema.Struct({
      devices: Schema.optionalKey(Grants.fields.devices),
      read_only: Schema.optionalKey(Grants.fields.read_only)
    })
  ),
  artifacts: Schema.optionalKey(Manifest.fields.artifacts)
})
export type PackageDescription = typeof PackageDescription.Type

const many = (name: string, metavar: string, description: string, maximum: number) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.atMost(maximum))

const optionalNumber = (name: string, description: string) =>
  Flag.Int(name).pipe(Flag.withDescription(description), Flag.optional)

/** Flags that go before what `postern.json` says. */
export const planFlags = {
  name: Flag.String("name").pipe(
    Flag.withMetavar("TEXT"),
    Flag.withDescription("What people call the package"),
    Flag.optional
  ),
  timeout: optionalDurationFlag("timeout", "Ended after this time; default 10m"),
  memory: optionalSizeFlag("memory", "Memory; default 256M"),
  disk: optionalSizeFlag("disk", "Room in /work; default 256M"),
  output: optionalSizeFlag("output-limit", "Output kept, the rest is cut; default 4M"),
  cpu: optionalNumber("cpu", "Share of one processor in percent; default 100"),
  processes: optionalNumber("processes", "Processes at once; default 64"),
  environment: many("env", "NAME=VALUE", "Set a variable of the environment", Limits.environmentVariables),
  artifact: many(
    "artifact",
    "PATH",
    "A file that must stand in /work/out at the end",
    Limits.expectedArtifacts
  ),
  useDevice: many(
    "use-device",
    "NAME",
    "Ask for a device (serial, camera …) by the name its owner gave it",
    16
  ),
  readOnly: many("read-only", "PATH", "Ask to see a path of the host, read-only", 16),
  idempotent: Flag.Boolean("idempotent").pipe(
    Flag.withDescription("It may run again after a crash in mid-run"),
    Flag.optional,
    Flag.withoutNegation
  )
}

/** The values of {@link planFlags}. */
export type PlanValues = {
  readonly [Key in keyof typeof planFlags]: (typeof planFlags)[Key] extends Flag.Flag<infer A> ? A : never
}

const environmentOf = (pairs: ReadonlyArray<string>) =>
  Effect.forEach(pairs, (pair) => {
    const at = pair.indexOf("=")
    return at > 0
      ? Effect.succeed([pair.slice(0, at), pair.slice(at + 1)] as const)
      : Effect.fail(usage(`--env wants NAME=VALUE, not ${pair}`))
  })

const limitsOf = (description: PackageDescription, flags: PlanValues): JobLimits => {
  const given = {
    timeout_ms: flags.timeout,
    memory_bytes: flags.memory,
    disk_bytes: flags.disk,
    output_bytes: flags.output,
    cpu_percent: flags.cpu,
    processes: flags.processes
  }
  const named = Object.entries(given).flatMap(([name, value]) =>
    Option.isSome(value) ? [[name, value.value]] : []
  )
  return { ...defaultJobLimits, ...description.limits, ...Object.fromEntries(named) }
}

const decodeDraft = Schema.decodeUnknownResult(Manifest, { onExcessProperty: "error" })

/** A manifest without its files: flags before the description, the description before defaults. */
export const planPackage = (
  description: PackageDescription,
  flags: PlanValues,
  command: ReadonlyArray<string>,
  fallbackName: string
) =>
  Effect.gen(function* () {
    const environment = yield* environmentOf(flags.environment)
    const draft: ManifestDraft = {
      name: Option.getOrElse(flags.name, () => description.name ?? fallbackName.slice(0, Limits.labelLength)),
      command: command.length > 0 ? command : (description.command ?? []),
      environment: { ...description.environment, ...Object.fromEntries(environment) },
      idempotent: Option.getOrElse(flags.idempotent, () => description.idempotent ?? false),
      limits: limitsOf(description, flags),
      grants: {
        devices: [...(description.grants?.devices ?? []), ...flags.useDevice],
        read_only: [...(description.grants?.read_only ?? []), ...flags.readOnly]
      },
      artifacts: [...(description.artifacts ?? []), ...flags.artifact]
    }
    if (draft.command.length === 0) {
      return yield* usage(
        `Nothing says what to run. Put "command" into ${descriptionName}, or give it behind --`
      )
    }
    const checked = decodeDraft({ type: "postern/manifest/v1", files: {}, ...draft })
    if (Result.isFailure(checked))
      return yield* usage(`The package cannot be so: ${oneLine(checked.failure.message)}`)
    return draft
  })

const decodeDescription = Schema.decodeUnknownResult(Schema.fromJsonString(PackageDescription), {
  onExcessProperty: "error"
})

const readIfThere = (path: string): string | undefined => {
  try {
    return readFileSync(path, "utf8")
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined
    throw error
  }
}

/** A folder's `postern.json`; an empty description where there is none. */
export const readDescription = (folder: string) =>
  Effect.gen(function* () {
    const path = join(folder, descriptionName)
    const text = yield* Effect.try({
      try: () => readIfThere(path) ?? "{}",
      catch: (error) => failure(`Could not read ${path}: ${errorText(error)}`)
    })
    const decoded = decodeDescription(text)
    if (Result.isFailure(decoded))
      return yield* failure(`${path} is not a package description: ${oneLine(decoded.failure.message)}`)
    return decoded.success
  })

/** A package file's size and digest. */
export const fileDigest = (path: string) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    return yield* abortable(async (signal) => {
      const hasher = engine.hasher()
      let sizeBytes = 0
      for await (const block of createReadStream(path, { signal })) {
        hasher.update(block)
        sizeBytes += block.length
      }
      return { digest: Digest.make(`sha256:${encodeHex(hasher.digest())}`), size_bytes: sizeBytes }
    }).pipe(Effect.mapError((error) => failure(`Could not read the package ${path}: ${errorText(error)}`)))
  })

/** A package that was decrypted with the operator's key and proved to the last byte. */
export interface ProvedPackage {
  readonly path: string
  readonly payload: typeof PayloadReference.Type
  readonly manifest: Manifest
}

/** Decrypts and proves a package file without writing anything of it down. */
export const provePackage = (path: string, keys: OperatorKeys) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const file = yield* fileDigest(path)
    if (file.size_bytes === 0 || file.size_bytes > Limits.payloadBytes) {
      return yield* failure(`${path} has ${file.size_bytes} bytes; a package has 1 to ${Limits.payloadBytes}`)
    }
    const bounds = { ...file, unpacked_bytes: Limits.unpackedBytes, entries: Limits.packageEntries }
    const opened = yield* openPackage({
      engine,
      identities: keys.ageIdentities,
      ciphertext: path,
      payload: bounds,
      folder: null
    })
    const payload = { ...file, unpacked_bytes: opened.unpackedBytes, entries: opened.entries }
    return { path, payload, manifest: opened.manifest } satisfies ProvedPackage
  })

/** A package as lines: what it runs, within which limits, with which grants. */
export const packageLines = ({
  manifest,
  payload
}: Pick<ProvedPackage, "manifest" | "payload">): ReadonlyArray<readonly [string, string]> => {
  const { grants, limits } = manifest
  const files = Object.entries(manifest.files)
  const asked = [
    ...grants.devices.map((name) => `device ${name}`),
    ...grants.read_only.map((path) => `read-only ${path}`)
  ]
  return [
    ["package", visible(manifest.name)],
    ["command", showCommand(manifest.command)],
    ...Object.entries(manifest.environment).map(
      ([name, value]) => ["variable", visible(`${name}=${value}`)] as const
    ),
    ["grants", asked.length === 0 ? "none" : visible(asked.join(", "))],
    [
      "limits",
      `${showDuration(limits.timeout_ms)}, memory ${showSize(limits.memory_bytes)}, processor ${limits.cpu_percent} %, ${limits.processes} processes, disk ${showSize(limits.disk_bytes)}, output ${showSize(limits.output_bytes)}`
    ],
    ["run again", manifest.idempotent ? "yes, after a crash" : "never"],
    [
      "artifacts",
      manifest.artifacts.length === 0 ? "whatever is in /work/out" : visible(manifest.artifacts.join(", "))
    ],
    [
      "files",
      `${files.length}, ${showSize(payload.unpacked_bytes)} unpacked, ${showSize(payload.size_bytes)} encrypted`
    ],
    ["digest", payload.digest]
  ]
}

/** The files of a package as table rows. */
export const fileRows = (manifest: Manifest): ReadonlyArray<ReadonlyArray<string>> =>
  Object.entries(manifest.files)
    .sort(([left], [right]) => (left < right ? -1 : 1))
    .map(([path, file]) => [
      visible(path),
      showSize(file.size_bytes),
      file.executable ? "yes" : "no",
      file.digest.slice(0, 19)
    ])

/** A name for a package that has none: its folder's. */
export const folderName = (folder: string): string => basename(folder)
