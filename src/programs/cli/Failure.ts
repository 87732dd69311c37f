/**
 * How a command fails: one line of what happened, to what, and what to do. Adapters' errors bring such a message of
 * their own; everything else is turned into one here.
 *
 * @module
 */
import { Schema } from "effect"
import { PackageRefused, StorageError } from "../../ports/PackageStore.ts"
import { refusalTexts } from "../../schemas/Refusals.ts"

/** A command could not do what it was asked. `message` is for people and already free of unsafe characters. */
export class CliFailure extends Schema.TaggedError<CliFailure>()("CliFailure", {
  message: Schema.String,
  /** 1: it failed; 2: it was asked for something impossible; a job's own exit code for `postern run`. */
  exitCode: Schema.Finite
}) {}

/** A failure of the work itself: exit code 1. */
export const failure = (message: string): CliFailure => new CliFailure({ message, exitCode: 1 })

/** The command line asks for what cannot be: exit code 2. */
export const usage = (message: string): CliFailure => new CliFailure({ message, exitCode: 2 })

/** Ends with this exit code and no message: everything has been said. */
export const silentExit = (exitCode: number): CliFailure => new CliFailure({ message: "", exitCode })

const isPackageRefused = Schema.is(PackageRefused)
const isStorageError = Schema.is(StorageError)

/** What an error says to a person. Errors of shared code, which carry no sentence of their own, get one here. */
export const explain = (error: unknown): string => {
  if (isPackageRefused(error)) return `${refusalTexts[error.code]} (${error.code}: ${error.detail})`
  if (isStorageError(error)) return `Could not ${error.operation} ${error.path}: ${error.reason}`
  const message = error instanceof Error ? error.message : String(error)
  return message === "" && error instanceof Error ? error.name : message
}
