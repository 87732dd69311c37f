/** Runs commands in the real jail and gathers all there is to know of the run. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, type Scope } from "effect"
import { BubblewrapJail } from "../../../src/adapters/BubblewrapJail.ts"
import type { JailOptions } from "../../../src/adapters/jail/JailSetting.ts"
import { Jail, type JailRequest } from "../../../src/ports/Jail.ts"
import type { JailResult } from "../../../src/schemas/JailProfile.ts"
import { defaultJobLimits, type JobLimits } from "../../../src/schemas/Manifest.ts"

/** Limits that keep a broken test short. */
export const testLimits: JobLimits = {
  ...defaultJobLimits,
  timeout_ms: 10_000,
  grace_ms: 300,
  disk_bytes: 8 * 1024 * 1024,
  processes: 32
}

export interface JobSpec {
  readonly command: ReadonlyArray<string>
  readonly environment?: Readonly<Record<string, string>>
  readonly limits?: Partial<JobLimits>
  readonly packageFolder?: string
  readonly onOutput?: JailRequest["onOutput"]
}

/** A package folder with one readable file, one script and a sub-folder; removed with the scope. */
export const packageFolder: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => {
    const folder = mkdtempSync(join(tmpdir(), "postern-package-"))
    writeFileSync(join(folder, "greeting.txt"), "good day\n", { mode: 0o600 })
    writeFileSync(join(folder, "run.sh"), "#!/bin/sh\necho from a script\n", { mode: 0o700 })
    return folder
  }),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
)

export const requestOf = (spec: JobSpec, folder: string): JailRequest => ({
  command: spec.command,
  environment: spec.environment ?? {},
  packageFolder: spec.packageFolder ?? folder,
  limits: { ...testLimits, ...spec.limits },
  grants: { devices: [], read_only: [] },
  onOutput: spec.onOutput ?? (() => Effect.void)
})

/** Starts a job in the present scope. */
export const startJob = (spec: JobSpec) =>
  Effect.gen(function* () {
    const jail = yield* Jail
    return yield* jail.run(requestOf(spec, yield* packageFolder))
  })

export interface Finished extends JailResult {
  readonly stdoutText: string
  readonly stderrText: string
}

/** Runs a job to its end, then looks at the result while the artifacts are still there. */
export const runJob = <A>(spec: JobSpec, look: (finished: Finished) => A) =>
  Effect.scoped(
    Effect.gen(function* () {
      const texts = { stdout: "", stderr: "" }
      const onOutput: JailRequest["onOutput"] = (stream, bytes) =>
        Effect.sync(() => {
          texts[stream] += Buffer.from(bytes).toString("latin1")
        })
      const run = yield* startJob({ onOutput, ...spec })
      const result = yield* run.result
      return look({ ...result, stdoutText: texts.stdout, stderrText: texts.stderr })
    })
  )

/** Runs an effect with a jail of its own, in real time. */
export const withJail = <A, E>(effect: Effect.Effect<A, E, Jail | Scope.Scope>, options?: JailOptions) =>
  Effect.scoped(effect).pipe(Effect.provide(BubblewrapJail.layer(options)))

/** Shell text in the jail. */
export const shell = (script: string): ReadonlyArray<string> => ["sh", "-c", script]

/** Perl text in the jail: perl-base belongs to every Debian and can make any system call. */
export const perl = (script: string): ReadonlyArray<string> => ["perl", "-e", script]
