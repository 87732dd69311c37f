/**
 * `postern`, as the operator of the demo runs it.
 *
 * @module
 */
import { join } from "node:path"
import { Effect } from "effect"
import { showCommand } from "../cli/Text.ts"
import { runCommand } from "./Processes.ts"
import { program, type Stage, write } from "./Stage.ts"

/** The environment of every command. */
export const operatorEnvironment = (stage: Stage) => ({ POSTERN_HOME: join(stage.folder, "operator") })

const postern = (stage: Stage, args: ReadonlyArray<string>, show: boolean) =>
  runCommand({
    command: [...program(stage, "cli"), ...args],
    environment: operatorEnvironment(stage),
    show
  })

/** A command as a person would type it. */
export const typed = (stage: Stage, args: ReadonlyArray<string>): string =>
  `postern ${showCommand(args.map((argument) => argument.replaceAll(`${stage.folder}/`, "")))}`

/** Shows a command, runs it, and shows what it says. */
export const type = (stage: Stage, args: ReadonlyArray<string>) =>
  Effect.andThen(write(`$ ${typed(stage, args)}\n`), postern(stage, args, true))

/** Asks `postern` for a JSON document. */
export const ask = (stage: Stage, args: ReadonlyArray<string>) =>
  Effect.map(
    postern(stage, [...args, "--json"], false),
    ({ stdout }) => JSON.parse(stdout) as Record<string, unknown>
  )
