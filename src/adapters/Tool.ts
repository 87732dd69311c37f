/**
 * Programs of the system that are run once for what they say: `tor --version`, `timedatectl`.
 *
 * @module
 */
import { type ChildProcess, type ExecFileException, execFile } from "node:child_process"
import { Effect, Schema } from "effect"

/** A tool could not be started, ended with an error, or did not end in time. The message names it. */
export class ToolFailed extends Schema.TaggedError<ToolFailed>()("ToolFailed", { message: Schema.String }) {}

export interface ToolRun {
  /** Name or path of the program, then its arguments. */
  readonly command: readonly [file: string, ...args: ReadonlyArray<string>]
  /** After so long it is killed. */
  readonly timeoutMs: number
  /** The whole environment. Default: this program's. */
  readonly environment?: NodeJS.ProcessEnv
  /** Working directory. Default: this program's. */
  readonly folder?: string
  /** What it reads at its standard input. Default nothing. */
  readonly input?: string
}

const mostWords = 65_536

const reasonOf = (error: ExecFileException, stderr: string, run: ToolRun): string => {
  const words = stderr.trim()
  if (words !== "") return words
  if (error.code === "ENOENT") return "there is no such program"
  return error.killed === true ? `it did not end within ${run.timeoutMs} ms` : error.message
}

/** Kills it; done when it is gone. */
const end = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null)
      return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
    child.kill("SIGKILL")
  })

/** Runs it to its end, and gives what it wrote to its standard output, 64 KiB at most. Interrupted, it leaves no process. */
export const runTool = (run: ToolRun): Effect.Effect<string, ToolFailed> =>
  Effect.callback((resume) => {
    const [file, ...args] = run.command
    const child = execFile(
      file,
      args,
      {
        timeout: run.timeoutMs,
        killSignal: "SIGKILL",
        maxBuffer: mostWords,
        ...(run.environment === undefined ? {} : { env: run.environment }),
        ...(run.folder === undefined ? {} : { cwd: run.folder })
      },
      (error, stdout, stderr) =>
        resume(
          error === null
            ? Effect.succeed(stdout)
            : Effect.fail(new ToolFailed({ message: `${file}: ${reasonOf(error, stderr, run)}` }))
        )
    )
    // It need not read what it is given.
    child.stdin?.on("error", () => undefined)
    child.stdin?.end(run.input ?? "")
    return end(child)
  })
