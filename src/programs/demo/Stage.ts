/**
 * Where the demo plays, and how it shows what it does.
 *
 * @module
 */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, type Scope } from "effect"
import { Screen } from "../cli/Screen.ts"
import type { DemoTor } from "./TorWay.ts"

/** Where things are: the built programs, this demo's own folder, and the Tor network, if it is played there. */
export interface Stage {
  readonly programs: string
  readonly folder: string
  readonly tor: DemoTor | null
  /** Numbers the steps as they come: with Tor there are two more. */
  readonly nextStep: () => number
}

/** Writes to the person. */
export const write = (text: string) => Effect.flatMap(Screen, (screen) => screen.write("out", text))

/** Begins a step: its heading, and what it is about. */
export const step = (stage: Stage, title: string, text: string) =>
  Effect.gen(function* () {
    const { color } = yield* Screen
    const heading = `${stage.nextStep()}. ${title}`
    yield* write(`\n${color ? `\u001b[1m${heading}\u001b[0m` : heading}\n${text.trim()}\n\n`)
  })

/** Started as root, the client becomes another user, who must pass through the folder; what is secret in it stays closed. */
export const temporaryFolder: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => {
    process.umask(0o077)
    const folder = mkdtempSync(join(tmpdir(), "postern-demo-"))
    chmodSync(folder, 0o711)
    return folder
  }),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true, maxRetries: 3 }))
)

/** The command line of one of the built programs. */
export const program = (stage: Stage, name: string): ReadonlyArray<string> => [
  process.execPath,
  join(stage.programs, `${name}.js`)
]

/** A place in the demo's folder. */
export const folderOf = (stage: Stage, name: string): string => join(stage.folder, name)

/** Flags for a program that is to find the Tor network; none where there is none. The client must be able to read it. */
export const writeSettings = (
  stage: Stage,
  name: string,
  settings: (tor: DemoTor) => string
): Effect.Effect<ReadonlyArray<string>> =>
  Effect.sync(() => {
    if (stage.tor === null) return []
    const file = folderOf(stage, name)
    writeFileSync(file, settings(stage.tor))
    chmodSync(file, 0o644)
    return ["--config", file]
  })
