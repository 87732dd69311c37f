/**
 * Programs of the system that are run once for what they say: `tor --version`, `timedatectl`.
 *
 * @module
 */
import { type ChildProcess, type ExecFileException, execFile } from "node:child_process"
import { Effect, Schema } from "effect"
import { errorText } from "./files/AtomicFile.ts"

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
/** One that the system keeps from ending (it reads from a disk that does not answer) is waited for no longer. */
const endMs = 5_000

const reasonOf = (error: ExecFileException, stderr: string, run: ToolRun): string => {
  const words = stderr.trim()
  if (error.code === "ENOENT") return "there is no such program"
  if (error.killed === true && error.code === null)
    return `it did not end within ${run.timeoutMs} ms${words === "" ? "" : `; it said: ${words}`}`
  return words === "" ? error.message : words
}

/** Kills it; done when it is gone. */
const end = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null)
      return resume(Effect.void)
    const done = (): void => {
      clearTimeout(timer)
      resume(Effect.void)
    }
    const timer = setTimeout(done, endMs)
    child.once("exit", done)
    child.kill("SIGKILL")
  })

const start = (run: ToolRun, ended: (result: Effect.Effect<string, ToolFailed>) => void): ChildProcess => {
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
      ended(
        error === null
          ? Effect.succeed(stdout)
          : Effect.fail(new ToolFailed({ message: `${file}: ${reasonOf(error, stderr, run)}` }))
      )
  )
  // It need not read what it is given.
  child.stdin?.on("error", () => undefined)
  child.stdin?.end(run.input ?? "")
  return child
}

/** Runs it to its end, and gives what it wrote to its standard output, 64 KiB at most. Interrupted, it leaves no process. */
export const runTool = (run: ToolRun): Effect.Effect<string, ToolFailed> =>
  Effect.callback((resume) => {
    try {
      return end(start(run, resume))
    } catch (error) {
      // There is no memory for it, or its arguments are none.
      return resume(
        Effect.fail(new ToolFailed({ message: `${run.command[0]} cannot be started: ${errorText(error)}` }))
      )
    }
  })
