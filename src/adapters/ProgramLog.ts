/**
 * How a program logs: structured lines on stderr, key=value or one JSON object each, with the path of the actor that
 * wrote it and, where there is one, the id of the request or trace it was written for. Messages are plain; secrets never
 * get here.
 */
import { Context, Effect, Layer, Logger, Option, References, Tracer } from "effect"
import { CurrentLife } from "../kernel/Fence.ts"
import type { LogFormat, LogLevel } from "../schemas/LogSettings.ts"

interface LogOptions {
  readonly format: LogFormat
  readonly level: LogLevel
}

type Options = Logger.Options<unknown>

/** What a line says besides its message: who wrote it, and what for. */
const contextOf = (options: Options): Readonly<Record<string, string>> => {
  const life = options.fiber.getRef(CurrentLife)
  const annotations = options.fiber.getRef(References.CurrentLogAnnotations)
  const span = Option.getOrUndefined(Context.getOption(options.fiber.context, Tracer.ParentSpan))
  return {
    ...(life === undefined || "actor" in annotations ? {} : { actor: life.path }),
    ...(span === undefined ? {} : { trace: span.traceId, span: span.spanId })
  }
}

const text = Logger.make<unknown, string>((options) => {
  const more = Object.entries(contextOf(options)).map(([key, value]) => ` ${key}=${value}`)
  return `${Logger.formatLogFmt.log(options)}${more.join("")}`
})

const json = Logger.make<unknown, string>((options) => {
  const { annotations, cause, level, message, timestamp } = Logger.formatStructured.log(options)
  const said = Array.isArray(message) ? message : [message]
  return JSON.stringify({
    timestamp,
    level: level.toLowerCase(),
    message: said.map((part) => (typeof part === "string" ? part : JSON.stringify(part))).join(" "),
    ...(cause === undefined ? {} : { cause }),
    ...annotations,
    ...contextOf(options)
  })
})

/** What a program's configuration says of its log. */
export const logOptions = (config: {
  readonly log_format: LogFormat
  readonly log_level: LogLevel
}): LogOptions => ({
  format: config.log_format,
  level: config.log_level
})

const levels = { error: "Error", warn: "Warn", info: "Info", debug: "Debug" } as const

/** Installs the logger in place of Effect's own. */
export const programLog = (options: LogOptions): Layer.Layer<never> =>
  Layer.mergeAll(
    Logger.layer([Logger.withConsoleError(options.format === "json" ? json : text)]),
    Layer.succeed(References.MinimumLogLevel, levels[options.level])
  )

/** Logs from a callback that has no fiber. */
export const logFromCallback =
  (options: LogOptions) =>
  (message: string): void => {
    Effect.runFork(Effect.provide(Effect.logError(message), programLog(options)))
  }
