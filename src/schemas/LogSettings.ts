/** How both programs log: settings of either configuration. */
import { Schema } from "effect"
import { setting } from "./Setting.ts"

export const LogLevel = Schema.Literals(["error", "warn", "info", "debug"])
export type LogLevel = typeof LogLevel.Type

export const LogFormat = Schema.Literals(["text", "json"])
export type LogFormat = typeof LogFormat.Type

export const logLevel = setting(LogLevel, "info", {
  description: "What is logged: lines of this level and above."
})

export const logFormat = setting(LogFormat, "text", {
  description:
    "How lines of the log look, on stderr: `text` is key=value for people and grep, `json` one object a line for collectors."
})
