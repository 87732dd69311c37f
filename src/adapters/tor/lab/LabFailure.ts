import { Schema } from "effect"

/** A private Tor network could not be started, or a part of it ended. */
export class TorLabError extends Schema.TaggedError<TorLabError>()("TorLabError", {
  message: Schema.String
}) {}

/** Does not fail but with a `TorLabError` that says what was being done. */
export const labFailure = (what: string, error: unknown): TorLabError =>
  new TorLabError({ message: `${what}: ${error instanceof Error ? error.message : String(error)}` })
