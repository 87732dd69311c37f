/**
 * Where a command's words go: results on stdout, everything else (questions, progress, warnings) on stderr.
 *
 * @module
 */
import { Context, Effect, Layer } from "effect"

type Sink = "out" | "err"

export class Screen extends Context.Service<
  Screen,
  {
    /** Whether stdout goes to a person's eyes. */
    readonly outIsTerminal: boolean
    /** Whether stderr goes to a person's eyes: only then are there progress bars. */
    readonly errIsTerminal: boolean
    /** Whether a person can be asked: stdin and stderr are a terminal. */
    readonly canAsk: boolean
    readonly color: boolean
    /** Columns of the terminal behind stderr, 80 where there is none. */
    readonly columns: () => number
    /**
     * Writes and waits until it is taken. What cannot be written ends the program: quietly where the reader went away
     * (`| head`), else with {@link failure}.
     */
    readonly write: (sink: Sink, text: string | Uint8Array) => Effect.Effect<void>
    /** Why something could not be written (a full disk), once that has happened. */
    readonly failure: () => string | undefined
  }
>()("postern/programs/cli/Screen") {}

/** To stdout, as it is. */
export const out = (text: string | Uint8Array): Effect.Effect<void, never, Screen> =>
  Effect.flatMap(Screen, (screen) => screen.write("out", text))

/** A line on stderr. */
export const say = (line: string): Effect.Effect<void, never, Screen> =>
  Effect.flatMap(Screen, (screen) => screen.write("err", `${line}\n`))

/** One JSON document on stdout. */
export const outJson = (value: unknown): Effect.Effect<void, never, Screen> =>
  out(`${JSON.stringify(value)}\n`)

const sgr = (code: number) => (text: string) =>
  Effect.map(Screen, (screen) => (screen.color ? `\u001b[${code}m${text}\u001b[0m` : text))

/** Emphasis where colours are wanted (a terminal, no NO_COLOR). */
export const bold = sgr(1)
export const red = sgr(31)
export const green = sgr(32)

const isBrokenPipe = (error: Error): boolean => "code" in error && error.code === "EPIPE"

const writeTo = (
  stream: NodeJS.WriteStream,
  text: string | Uint8Array,
  onFailure: (error: Error) => void
): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    stream.write(text, (error) => {
      if (error === undefined || error === null) return resume(Effect.void)
      if (!isBrokenPipe(error)) onFailure(error)
      resume(Effect.interrupt)
    })
  })

/** The process's own streams. */
export const ProcessScreen: Layer.Layer<Screen> = Layer.sync(Screen, () => {
  const { env, stderr, stdin, stdout } = process
  // Without a listener a write to a closed pipe is an uncaught exception; the write's own callback tells us.
  for (const stream of [stdout, stderr]) stream.on("error", () => undefined)
  let failure: string | undefined
  const onFailure = (error: Error): void => {
    failure ??= `Could not write the output: ${error.message}`
  }
  const wantsColor = (env["NO_COLOR"] ?? "") === "" && env["TERM"] !== "dumb"
  return {
    outIsTerminal: stdout.isTTY === true,
    errIsTerminal: stderr.isTTY === true,
    canAsk: stdin.isTTY === true && stderr.isTTY === true,
    color: wantsColor && stderr.isTTY === true && stdout.isTTY === true,
    columns: () => stderr.columns || 80,
    write: (sink, text) => writeTo(sink === "out" ? stdout : stderr, text, onFailure),
    failure: () => failure
  }
})
