/**
 * Alarms: what a server shows that cannot be, given what was signed and verified here. They go to stderr, stand out, and
 * make the command fail.
 *
 * @module
 */
import { Effect } from "effect"
import { type CliFailure, silentExit } from "./Failure.ts"
import { bold, red, type Screen, say } from "./Screen.ts"
import { visible } from "./Text.ts"

/** Shows alarms without failing: the caller goes on and fails later. */
export const showAlarms = (alarms: ReadonlyArray<string>): Effect.Effect<void, never, Screen> =>
  Effect.gen(function* () {
    for (const alarm of alarms) {
      const word = yield* Effect.flatMap(bold("ALARM"), red)
      yield* say(`${word}: ${visible(alarm)}`)
    }
    if (alarms.length > 0) {
      yield* say("Do not trust this server's word until you know why. SECURITY.md says what an alarm means.")
    }
  })

/** Shows alarms and fails with exit code 1 where there are any. */
export const raise = (alarms: ReadonlyArray<string>): Effect.Effect<void, CliFailure, Screen> =>
  Effect.gen(function* () {
    yield* showAlarms(alarms)
    if (alarms.length > 0) return yield* silentExit(1)
  })
