/**
 * How a program logs: structured lines (logfmt) on stderr, each with the path of the actor that wrote it. Messages are
 * plain; secrets never get here.
 */
import { Effect, Logger, References } from "effect"
import { CurrentLife } from "../kernel/Fence.ts"

const withActor = Logger.make<unknown, string>((options) => {
  const life = options.fiber.getRef(CurrentLife)
  if (life === undefined) return Logger.formatLogFmt.log(options)
  const annotations = options.fiber.getRef(References.CurrentLogAnnotations)
  const line = Logger.formatLogFmt.log(options)
  return "actor" in annotations ? line : `${line} actor=${life.path}`
})

/** Installs the logger in place of Effect's own. */
export const ProgramLog = Logger.layer([Logger.withConsoleError(withActor)])

/** Logs from a callback that has no fiber. */
export const logFromCallback = (message: string): void => {
  Effect.runFork(Effect.provide(Effect.logError(message), ProgramLog))
}
