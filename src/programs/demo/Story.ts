/**
 * The demo as a story in steps: a server, an operator and a device on this machine do the main job with the programs as
 * they are shipped. Everything happens in one temporary folder and is gone at the end.
 *
 * @module
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Option, type Scope } from "effect"
import { Jail } from "../../ports/Jail.ts"
import { Screen } from "../cli/Screen.ts"
import { showCommand } from "../cli/Text.ts"
import { DemoFailure, runCommand, type Service, startService, waitFor } from "./Processes.ts"
import { BadRow, checkSeries, generatedSeries, packageDescription, seriesBytes, statisticsScript } from "./Series.ts"

/** How long a program may take to come up, or a device to report. */
const startMs = 30_000

/** Where things are: the built programs, and this demo's own folder. */
interface Stage {
  readonly programs: string
  readonly folder: string
}

const write = (text: string) => Effect.flatMap(Screen, (screen) => screen.write("out", text))

const step = (number: number, title: string, text: string) =>
  Effect.gen(function* () {
    const { color } = yield* Screen
    const heading = `${number}. ${title}`
    yield* write(`\n${color ? `\u001b[1m${heading}\u001b[0m` : heading}\n${text.trim()}\n\n`)
  })

const temporaryFolder: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "postern-demo-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true, maxRetries: 3 }))
)

const program = (stage: Stage, name: string): ReadonlyArray<string> => [process.execPath, join(stage.programs, `${name}.js`)]

/** Runs `postern` as the operator of this demo. */
const postern = (stage: Stage, args: ReadonlyArray<string>, show: boolean) =>
  runCommand({
    command: [...program(stage, "cli"), ...args],
    environment: { POSTERN_HOME: join(stage.folder, "operator") },
    show
  })

/** Shows a command as a person would type it, and what it says. */
const type = (stage: Stage, args: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const shown = args.map((argument) => argument.replaceAll(`${stage.folder}/`, ""))
    yield* write(`$ postern ${showCommand(shown)}\n`)
    yield* postern(stage, args, true)
  })

/** Asks `postern` for a JSON document. */
const ask = (stage: Stage, args: ReadonlyArray<string>) =>
  Effect.map(postern(stage, [...args, "--json"], false), ({ stdout }) => JSON.parse(stdout) as Record<string, unknown>)

/** The series to compute with: the person's file, checked row by row, or a generated one. */
export const loadSeries = (file: Option.Option<string>) =>
  Effect.gen(function* () {
    if (Option.isNone(file)) return generatedSeries()
    const path = file.value
    const text = yield* Effect.try({
      try: () => {
        const { size } = statSync(path)
        if (size > seriesBytes) throw new Error(`it has ${size} bytes, more than ${seriesBytes}`)
        return readFileSync(path, "utf8")
      },
      catch: (error) => new DemoFailure({ message: `Could not read ${path}: ${error instanceof Error ? error.message : error}` })
    })
    const checked = checkSeries(text)
    if (checked instanceof BadRow) return yield* new DemoFailure({ message: `${path}: ${checked.message}` })
    return text
  })

const readJsonIfThere = (path: string): Record<string, unknown> | undefined => {
  try {
    return JSON.parse(readFileSync(path, "utf8"))
  } catch {
    return undefined
  }
}
