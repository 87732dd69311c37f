/**
 * Questions to the person at the terminal, and secrets from files. Questions go to stderr, so that stdout stays what was
 * asked for. Secrets are never echoed and never taken from arguments.
 *
 * @module
 */
import { readFileSync } from "node:fs"
import { createInterface } from "node:readline"
import { Effect, Redacted } from "effect"
import { type CliFailure, failure, usage } from "./Failure.ts"
import { Screen, say } from "./Screen.ts"

/** The largest secret taken from a file or stdin. */
const secretBytes = 4 * 1024

const requireTerminal = (what: string): Effect.Effect<void, CliFailure, Screen> =>
  Effect.flatMap(Screen, (screen) => (screen.canAsk ? Effect.void : Effect.fail(usage(what))))

/** A line typed with echo; empty at end of input. */
const readLine: Effect.Effect<string> = Effect.callback<string>((resume) => {
  const reader = createInterface({ input: process.stdin, output: process.stderr, terminal: true })
  let isAnswered = false
  reader.once("line", (line) => {
    isAnswered = true
    reader.close()
    resume(Effect.succeed(line))
  })
  reader.once("SIGINT", () => {
    isAnswered = true
    reader.close()
    resume(Effect.interrupt)
  })
  reader.once("close", () => {
    if (!isAnswered) resume(Effect.succeed(""))
  })
  return Effect.sync(() => reader.close())
})

/**
 * One line typed without echo: backspace and Ctrl-U work, Ctrl-C ends the program. The echo is off before the question
 * is there, so that not even a hasty answer is shown.
 */
const readHidden = (question: string): Effect.Effect<string> =>
  Effect.callback<string>((resume) => {
    const { stderr, stdin } = process
    let typed: Array<string> = []
    const stop = (): void => {
      stdin.off("data", onData)
      stdin.setRawMode(false)
      stdin.pause()
      stderr.write("\n")
    }
    const finish = (result: Effect.Effect<string>): void => {
      stop()
      resume(result)
    }
    const onData = (chunk: Buffer): void => {
      for (const character of chunk.toString("utf8")) {
        if (character === "\r" || character === "\n") return finish(Effect.succeed(typed.join("")))
        if (character === "\u0003") return finish(Effect.interrupt)
        if (character === "\u0004" && typed.length === 0) return finish(Effect.succeed(""))
        if (character === "\u0015") typed = []
        else if (character === "\u007f" || character === "\b") typed.pop()
        else if (character >= " ") typed.push(character)
      }
    }
    stdin.setRawMode(true)
    stdin.resume()
    stdin.on("data", onData)
    stderr.write(question)
    return Effect.sync(stop)
  })

/** Asks for a line. `otherwise` says which flag to use where nobody can be asked. */
export const askLine = (question: string, otherwise: string): Effect.Effect<string, CliFailure, Screen> =>
  Effect.gen(function* () {
    yield* requireTerminal(otherwise)
    yield* Effect.flatMap(Screen, (screen) => screen.write("err", question))
    return (yield* readLine).trim()
  })

/** Asks yes or no; anything but yes is no. */
export const confirm = (question: string, otherwise: string): Effect.Effect<boolean, CliFailure, Screen> =>
  Effect.map(askLine(`${question} [y/N] `, otherwise), (answer) => /^y(es)?$/i.test(answer))

/** Asks for a secret, without echo. */
export const askSecret = (
  question: string,
  otherwise: string
): Effect.Effect<Redacted.Redacted, CliFailure, Screen> =>
  Effect.gen(function* () {
    yield* requireTerminal(otherwise)
    return Redacted.make(yield* readHidden(question))
  })

/** Asks for a new passphrase twice, until both are the same. */
export const askNewPassphrase = (otherwise: string): Effect.Effect<Redacted.Redacted, CliFailure, Screen> =>
  Effect.gen(function* () {
    for (let attempt = 0; attempt < 3; attempt++) {
      const first = yield* askSecret("Passphrase for the private keys: ", otherwise)
      if (Redacted.value(first) === "") {
        yield* say("An empty passphrase protects nothing. Use --no-passphrase if you want none.")
        continue
      }
      const second = yield* askSecret("The same again: ", otherwise)
      if (Redacted.value(first) === Redacted.value(second)) return first
      yield* say("They differ.")
    }
    return yield* failure("No passphrase was set, and nothing was written.")
  })

/** A secret from a file (`-`: stdin), without the newline at its end. Its path may be named, its content never. */
export const secretFromFile = (path: string, what: string): Effect.Effect<Redacted.Redacted, CliFailure> =>
  Effect.try({
    try: () => readFileSync(path === "-" ? 0 : path),
    catch: (error) =>
      failure(`Could not read the ${what} from ${path}: ${error instanceof Error ? error.message : error}`)
  }).pipe(
    Effect.flatMap((bytes) => {
      const text = bytes.length > secretBytes ? "" : bytes.toString("utf8").replace(/\r?\n$/, "")
      return text === "" || text.includes("\n")
        ? Effect.fail(failure(`The ${what} in ${path} must be one line of at most ${secretBytes} bytes`))
        : Effect.succeed(Redacted.make(text))
    })
  )
