/**
 * Runs the command line: parses it, shows help and errors in one manner, and decides the exit code.
 *
 * Exit codes: 0 it worked; 1 it failed; 2 the command line is wrong; 130 interrupted. `postern run` and
 * `postern jobs logs -f` end with the job's own code.
 *
 * @module
 */
import { Cause, Effect, Exit, Layer, Predicate } from "effect"
import { CliConfig, CliError, CliOutput, Command, GlobalFlag } from "effect/cli"
import { CliFailure, explain } from "./Failure.ts"
import { Screen } from "./Screen.ts"
import { visibleLines } from "./Text.ts"

/** Help and `--completions`, but no wizard and no log level: there are no logs here. */
const builtIns = [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions]

const formatter = (color: boolean): CliOutput.Formatter => ({
  ...CliOutput.defaultFormatter({ colors: color }),
  formatVersion: (name, version) => `${name} ${version}`
})

/** What is wrong with a value, without a word of the schema that found it. */
const plain = (message: string): string => message.replace(/Schema validation failed: (?:Expected )?/, "")

/** Asked-for help and versions go to stdout; what is wrong with a command line goes to stderr, in few lines. */
const presenter = (screen: Screen["Service"]): CliOutput.Presenter => {
  const format = formatter(screen.color)
  return {
    present: (event) => {
      switch (event._tag) {
        case "Version":
          return screen.write("out", `${format.formatVersion(event.name, event.version)}\n`)
        case "Help":
          return screen.write(
            event.reason === "Requested" ? "out" : "err",
            `${format.formatHelpDoc(event.helpDoc).trimEnd()}\n`
          )
        case "InvalidInvocation": {
          const path = event.commandPath.join(" ")
          const lines = event.errors.map((error) => `${path}: ${visibleLines(plain(error.message))}\n`)
          return screen.write("err", `${lines.join("")}See: ${path} --help\n`)
        }
      }
    }
  }
}

/** What a failed command says, and the code it ends with. */
const report = (cause: Cause.Cause<unknown>): { readonly text: string; readonly code: number } => {
  if (Cause.hasInterruptsOnly(cause)) return { text: "", code: 130 }
  const error = Cause.squash(cause)
  if (CliError.isCliError(error) && error._tag === "ShowHelp") return { text: "", code: 2 }
  if (error instanceof CliFailure && error.message === "") return { text: "", code: error.exitCode }
  const message = explain(error)
  const code =
    Predicate.hasProperty(error, "exitCode") && Predicate.isNumber(error.exitCode) ? error.exitCode : 1
  if (Cause.hasDies(cause)) {
    const trace = error instanceof Error ? (error.stack ?? message) : message
    return { text: `this is a fault in postern itself; please report it\n${trace}`, code: 1 }
  }
  return { text: message, code }
}

/** Runs a command over its arguments and gives the exit code. Never fails. */
export const runProgram = <Name extends string, Input, E, R, ContextInput>(
  command: Command.Command<Name, Input, ContextInput, E, R>,
  version: string,
  args: ReadonlyArray<string>
) =>
  Effect.gen(function* () {
    const screen = yield* Screen
    const output = Layer.mergeAll(
      CliConfig.layer({ builtIns }),
      CliOutput.layer(formatter(screen.color)),
      CliOutput.layerPresenter(presenter(screen))
    )
    const exit = yield* Command.runWith(command, { version })(args).pipe(Effect.provide(output), Effect.exit)
    if (Exit.isSuccess(exit)) return 0
    const unwritten = screen.failure()
    const { code, text } = unwritten === undefined ? report(exit.cause) : { code: 1, text: unwritten }
    if (text !== "") yield* screen.write("err", `postern: ${visibleLines(text)}\n`)
    return code
  })
