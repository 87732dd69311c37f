/**
 * Runs one staged package in the jail and gives what its receipt will say: output goes to the outbox while it runs,
 * artifacts into the spool at the end. The jail's folder, its processes and the scratch go with the Scope, whatever
 * happens.
 */
import { Deferred, Effect } from "effect"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { Jail } from "../ports/Jail.ts"
import { PackageStore, type StagedPackage } from "../ports/PackageStore.ts"
import type { JailResult } from "../schemas/JailProfile.ts"
import type { StopReason } from "../schemas/protocols/Lane.ts"
import type { ArtifactSummary, OutputSummary, ResourceUse } from "../schemas/Receipt.ts"
import type { WorkOrder } from "../schemas/WorkOrder.ts"
import { type KeptOutput, makeOutputWriter } from "./OutputWriter.ts"
import { judgeRun, type Verdict } from "./RunVerdict.ts"

/** Everything a receipt says of a run. */
export interface RunReport extends Verdict {
  readonly endedAtMs: number
  readonly usage: ResourceUse
  readonly output: OutputSummary
  readonly artifacts: { readonly path: string; readonly summary: ArtifactSummary } | null
}

/** Packs what the job left; a verdict of success does not survive artifacts that cannot be kept. */
const collect = Effect.fnUntraced(function* (
  order: WorkOrder,
  staged: StagedPackage,
  result: JailResult,
  verdict: Verdict
) {
  const store = yield* PackageStore
  const { limits } = staged.manifest
  const spoiled = (reason: "artifact_refused" | "output_not_stored", detail: string) => ({
    packed: null,
    verdict:
      verdict.state === "succeeded" ? { ...verdict, state: "failed" as const, reason, detail } : verdict
  })
  return yield* store
    .packArtifacts(order.id, result.artifacts, order.results_to, {
      bytes: limits.artifact_bytes,
      entries: limits.artifact_entries
    })
    .pipe(
      Effect.map((packed) => ({ packed, verdict })),
      Effect.catchTags({
        PackageRefused: (error) => Effect.succeed(spoiled("artifact_refused", error.detail)),
        StorageError: (error) =>
          Effect.as(
            Effect.logError(`the artifacts could not be kept: ${error.reason}`),
            spoiled("output_not_stored", `${error.operation}: ${error.reason}`)
          )
      })
    )
})

const summary = (result: JailResult, kept: KeptOutput): OutputSummary => ({
  chunks: kept.chunks,
  digest: kept.digest,
  stdout_bytes: result.output.stdout.seen_bytes,
  stderr_bytes: result.output.stderr.seen_bytes,
  kept_bytes: kept.keptBytes,
  truncated: result.output.truncated || kept.cut
})

/**
 * Runs a package to its end; `onOutputStored` is run whenever output waits to be sent. `stop` may be completed at any time: the device's own stopping kills the job at once, the
 * others give it its grace. Fails only where the command was not started.
 */
export const execute = (
  order: WorkOrder,
  staged: StagedPackage,
  attempt: number,
  stop: Deferred.Deferred<StopReason>,
  onOutputStored: Effect.Effect<void>
) =>
  Effect.scoped(
    Effect.gen(function* () {
      const jail = yield* Jail
      const clock = yield* DeviceClock
      const writer = yield* makeOutputWriter(order, attempt, onOutputStored)
      let asked: StopReason | null = null
      const run = yield* jail.run({
        command: staged.manifest.command,
        environment: staged.manifest.environment,
        packageFolder: staged.folder,
        limits: staged.manifest.limits,
        grants: staged.manifest.grants,
        onOutput: writer.write
      })
      yield* Effect.forkScoped(
        Effect.flatMap(Deferred.await(stop), (reason) => {
          asked = reason
          return reason === "device_stopped" ? run.kill : run.cancel
        })
      )
      const result = yield* run.result
      const endedAtMs = yield* clock.nowMs
      const kept = yield* writer.finish
      const verdict = judgeRun(staged.manifest, result, asked)
      // A program that is stopping has seconds left: what an interrupted job left behind is not worth them.
      const collected =
        verdict.reason === "device_stopped"
          ? { packed: null, verdict }
          : yield* collect(order, staged, result, verdict)
      const report: RunReport = {
        ...collected.verdict,
        endedAtMs,
        usage: result.usage,
        output: summary(result, kept),
        artifacts: collected.packed
      }
      return report
    })
  )
