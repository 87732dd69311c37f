/** What the long-running programs have in common: how they start, which thread they are, how they end. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Effect, Exit, Layer, Schema } from "effect"
import type { Command } from "effect/cli"
import { isDatabaseWorker, serveDatabase } from "../adapters/sqlite/DatabaseWorker.ts"
import type { ActorSystem } from "../kernel/index.ts"
import { version } from "../schemas/Version.ts"
import { explain } from "./cli/Failure.ts"
import { runProgram } from "./cli/Program.ts"
import { ProcessScreen, type Screen } from "./cli/Screen.ts"

/** The tree gave up; the process must end, and be started again by whoever supervises it. */
export class GaveUp extends Schema.TaggedError<GaveUp>()("GaveUp", {
  program: Schema.Literals(["client", "server"]),
  reason: Schema.String
}) {
  override get message(): string {
    return `the ${this.program} gave up: ${this.reason}`
  }
}

/**
 * Fails where a promise fails that nobody waits for, as within a library: what was to follow it never will, so the program
 * cannot go on as it is. Node would end it at once; so it ends in order, and what fails like that meanwhile is logged as well.
 */
const untilUnheard = (program: GaveUp["program"]): Effect.Effect<never, GaveUp> =>
  Effect.flatMap(Effect.context<never>(), (context) =>
    Effect.callback<never, GaveUp>((resume) => {
      const note = (error: unknown): void => {
        Effect.runForkWith(context)(
          Effect.logError("a failure reached nobody: the program ends", Cause.fail(error))
        )
        resume(Effect.fail(new GaveUp({ program, reason: `a failure reached nobody: ${explain(error)}` })))
      }
      process.on("unhandledRejection", note)
      return Effect.sync(() => void process.off("unhandledRejection", note))
    })
  )

/** Waits for the end of a tree; one that nobody asked for is a failure. */
export const untilTerminated = (
  program: GaveUp["program"],
  system: ActorSystem
): Effect.Effect<void, GaveUp> =>
  Effect.flatMap(system.terminated, (end) => {
    if (end._tag === "GaveUp") return Effect.fail(new GaveUp({ program, reason: end.reason }))
    if (end._tag === "TooManyFencedLives") {
      return Effect.fail(new GaveUp({ program, reason: `${end.count} lives hang and cannot be stopped` }))
    }
    return Effect.void
  }).pipe(Effect.raceFirst(untilUnheard(program)))

/**
 * Runs a program's file. The same file is the entry of its database threads; the main thread takes the command line. A
 * signal ends the program in order, which is no failure.
 */
export const runService = <Name extends string, Input, ContextInput, E>(
  command: Command.Command<Name, Input, ContextInput, E, Screen | NodeServices.NodeServices>,
  databases: Parameters<typeof serveDatabase>[0]
): void => {
  if (isDatabaseWorker()) {
    serveDatabase(databases)
    return
  }
  // Nothing these programs write is anybody else's business.
  process.umask(0o077)
  // A second signal, as from a terminal and from whoever started this program, must not cut off the orderly end that the
  // first began: the runtime stops listening after that one.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => undefined)
  runProgram(command, version, process.argv.slice(2)).pipe(
    Effect.provide(Layer.mergeAll(ProcessScreen, NodeServices.layer)),
    NodeRuntime.runMain({
      disableErrorReporting: true,
      teardown: (exit) =>
        process.exit(Exit.isSuccess(exit) ? Number(exit.value) : Cause.hasInterruptsOnly(exit.cause) ? 0 : 1)
    })
  )
}
