/**
 * The jail: runs a stranger's command so that it can reach nothing it was not given, cannot outlive its run, and is
 * bounded in time, memory, processes, disk and output.
 *
 * Inside, the job sees /package (the unpacked package, read-only), /work (empty but for /work/out; its working folder),
 * /tmp and /dev/shm (empty), the host's /usr, /bin, /lib… and /etc/alternatives read-only, its own processes, no network,
 * no devices but /dev/null and the like.
 */
import type { Effect, Scope } from "effect"
import { Context } from "effect"
import type { JailError, JailReport, JailResult, JailUnavailable } from "../schemas/JailProfile.ts"
import type { Grants, JobLimits } from "../schemas/Manifest.ts"

/** What is to run, and within which bounds. */
export interface JailRequest {
  /** Program and arguments. The program is looked up in the jail's PATH (/usr/bin:/bin) unless it holds a slash. */
  readonly command: ReadonlyArray<string>
  /** Added to PATH, HOME, POSTERN_PACKAGE and LANG, which the jail sets; may override all but POSTERN_PACKAGE. */
  readonly environment: Readonly<Record<string, string>>
  /**
   * Absolute path of the unpacked package: plain files and folders only. It is lent to the jail for the run: where jobs
   * have a uid of their own, others may read the tree from then on (the folders above it keep everybody else out).
   */
  readonly packageFolder: string
  readonly limits: JobLimits
  /** Devices by the owner's names, and read-only paths. What the owner's configuration does not list is refused. */
  readonly grants: Grants
  /**
   * Takes the output as it comes, one call at a time, in order within a stream; at most `limits.output_bytes` in all.
   * The next piece is read when the call has returned, so a slow taker slows the job's writing, never its time-out.
   */
  readonly onOutput: (stream: "stdout" | "stderr", bytes: Uint8Array) => Effect.Effect<void>
}

/** A job under way. */
export interface JailRun {
  /** Waits for the end of the whole tree and the last output; may be awaited often. Never fails: see `EngineFailed`. */
  readonly result: Effect.Effect<JailResult>
  /** SIGTERM now, SIGKILL after `limits.grace_ms`. Returns at once; without effect on a run that has ended. */
  readonly cancel: Effect.Effect<void>
  /** SIGKILL to the whole tree now; the result is `Canceled`. Returns at once. */
  readonly kill: Effect.Effect<void>
}

export class Jail extends Context.Service<
  Jail,
  {
    /**
     * Runs the real engine once and reports what holds. Fails closed: where it fails, `run` must not be tried.
     * Takes some ten milliseconds; ends within ten seconds.
     */
    readonly check: Effect.Effect<JailReport, JailUnavailable>
    /**
     * Starts a job; returns once its command is about to be executed. Closing the scope (or interruption) kills the whole
     * tree and gives everything back; the artifacts' host paths live as long as the scope. Needs no check before it, and
     * repeats what of it can go wrong.
     */
    readonly run: (request: JailRequest) => Effect.Effect<JailRun, JailError | JailUnavailable, Scope.Scope>
  }
>()("postern/ports/Jail") {}
