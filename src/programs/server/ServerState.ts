/** The folders below which a server keeps what is its own. */
import { Effect, Schema } from "effect"
import { errorText, requirePrivateFolder } from "../../adapters/files/AtomicFile.ts"

/** The state folder cannot be used. */
export class StateFolderError extends Schema.TaggedError<StateFolderError>()("StateFolderError", {
  path: Schema.String,
  reason: Schema.String
}) {
  /** What sysexits calls a configuration error: to start again would not help. */
  readonly exitCode = 78

  override get message(): string {
    return `the state folder ${this.path} cannot be used: ${this.reason}`
  }
}

/** Makes the state folder (0700) or checks that it is private. */
export const prepareState = (path: string): Effect.Effect<void, StateFolderError> =>
  Effect.try({
    try: () => requirePrivateFolder(path),
    catch: (error) => new StateFolderError({ path, reason: errorText(error) })
  })
