/**
 * Where a followed job's output goes: the job's stdout to ours, its stderr to ours. Byte for byte into files and pipes,
 * made safe for terminals (see {@link outputText}); as lines of JSON where that is asked for.
 *
 * @module
 */
import { Effect } from "effect"
import { encodeBase64 } from "../../crypto/Base64.ts"
import type { OutputStream } from "../../schemas/OutputFrames.ts"
import type { FollowSink } from "./Following.ts"
import { outputText } from "./OutputText.ts"
import { progressText, statusLine } from "./Progress.ts"
import { outJson, Screen, say } from "./Screen.ts"

/** A sink, and what is to be called when nothing more comes. */
export interface JobOutput extends FollowSink {
  readonly close: Effect.Effect<void>
}

/** Output for people and pipes. `isQuiet`: no word of ours on stderr but problems. */
export const plainOutput = (isQuiet: boolean) =>
  Effect.gen(function* () {
    const screen = yield* Screen
    const status = yield* statusLine
    const target = (stream: OutputStream) => (stream === "stdout" ? ("out" as const) : ("err" as const))
    const texts = {
      stdout: screen.outIsTerminal ? outputText() : undefined,
      stderr: screen.errIsTerminal ? outputText() : undefined
    }
    const line = (text: string) =>
      Effect.andThen(status(""), say(text)).pipe(Effect.provideService(Screen, screen))
    let isWaiting = false
    return {
      output: (_, { bytes, stream }) =>
        Effect.andThen(status(""), screen.write(target(stream), texts[stream]?.push(bytes) ?? bytes)),
      state: (page) => {
        isWaiting = false
        return isQuiet ? Effect.void : status(`${progressText(page)}…`)
      },
      attempt: (attempt) => line(`postern: the run was interrupted; attempt ${attempt} begins`),
      waiting: (problem) => {
        if (isWaiting) return Effect.void
        isWaiting = true
        return line(
          `postern: ${problem.address} is not reached at the moment; the job goes on, and so does this`
        )
      },
      close: Effect.gen(function* () {
        yield* status("")
        for (const stream of ["stdout", "stderr"] as const) {
          const rest = texts[stream]?.end() ?? ""
          if (rest !== "") yield* screen.write(target(stream), rest)
        }
      })
    } satisfies JobOutput
  })

/** One line of JSON per event. Output bytes are base64: they need not be text. */
export const jsonOutput = Effect.gen(function* () {
  const screen = yield* Screen
  const event = (value: Readonly<Record<string, unknown>>) =>
    Effect.provideService(outJson(value), Screen, screen)
  return {
    output: (sequence, { bytes, stream }) =>
      event({ event: "output", sequence, stream, data: encodeBase64(bytes) }),
    state: ({ bytes_per_second, done_bytes, state, total_bytes, version }) =>
      event({
        event: "state",
        state,
        version,
        ...(done_bytes === null ? {} : { done_bytes, total_bytes, bytes_per_second })
      }),
    attempt: (attempt) => event({ event: "attempt", attempt }),
    waiting: (problem) => event({ event: "waiting", message: problem.message }),
    close: Effect.void
  } satisfies JobOutput
})
