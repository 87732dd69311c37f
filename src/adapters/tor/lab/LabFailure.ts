import { Effect, Schema } from "effect"

/** A private Tor network could not be started, or a part of it ended. */
export class TorLabError extends Schema.TaggedError<TorLabError>()("TorLabError", {
  message: Schema.String
}) {}

/** What was thrown, as a failure that says what was being done. */
export const labFailure = (what: string, error: unknown): TorLabError =>
  new TorLabError({ message: `${what}: ${error instanceof Error ? error.message : String(error)}` })

/** Work on the network's files. Interrupted, it is finished first: else it would go on in a folder that is being removed. */
export const labFiles = <A>(what: string, work: () => Promise<A>): Effect.Effect<A, TorLabError> =>
  Effect.uninterruptible(Effect.tryPromise({ try: work, catch: (error) => labFailure(what, error) }))
