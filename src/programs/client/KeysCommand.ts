/** `client.js keys`: the device's own keys, on the device itself. */
import { Effect, Result, Schema } from "effect"
import { Command } from "effect/cli"
import { askControl } from "../../adapters/ControlSocket.ts"
import { KeyRotation } from "../../adapters/NodeKeys.ts"
import { DeviceClock } from "../../ports/DeviceClock.ts"
import { Count, Recipient } from "../../schemas/Ids.ts"
import { out } from "../cli/Screen.ts"
import type { Misconfigured } from "./ClientSettings.ts"

/** What a running client answers to {@link rotateRequest}. */
const RotationAnswer = Schema.Union([
  Schema.Struct({ version: Count, recipient: Recipient }),
  Schema.Struct({ refused: Schema.String })
])

export const rotateRequest = "rotate_key"

/** The key was not changed. */
export class NotRotated extends Schema.TaggedError<NotRotated>()("NotRotated", { reason: Schema.String }) {
  override get message(): string {
    return `the encryption key was not changed: ${this.reason}`
  }
}

/** Makes the next encryption key; `told` runs once it is there, so that the next poll names it soon. */
export const rotateKey = (told: Effect.Effect<void>) =>
  Effect.gen(function* () {
    const clock = yield* DeviceClock
    const rotation = yield* KeyRotation
    const refused = (reason: string): typeof RotationAnswer.Type => ({ refused: reason })
    return Effect.gen(function* () {
      // By a wrong clock the old key would be forgotten too early, or never.
      if (!(yield* clock.proven))
        return refused("the server has not told the time yet; try again once it is reached")
      const key = yield* Effect.result(rotation.rotate(yield* clock.nowMs))
      if (Result.isFailure(key)) return refused(key.failure.message)
      yield* Effect.logInfo(`the encryption key has version ${key.success.version} now`)
      yield* told
      return key.success
    })
  })

const decode = Schema.decodeUnknownResult(RotationAnswer)

/** `client.js keys`. `stateFolder` is where the running client has its control socket. */
export const keysCommand = <R>(stateFolder: Effect.Effect<string, Misconfigured, R>) => {
  const rotate = Command.make("rotate", {}, () =>
    Effect.gen(function* () {
      const folder = yield* stateFolder
      const answer = yield* askControl({ stateFolder: folder, request: rotateRequest }).pipe(
        Effect.mapError(
          ({ message }) =>
            new NotRotated({
              reason: `${message}. Start the client first: it changes the key itself, and tells the server`
            })
        )
      )
      const decoded = decode(answer)
      if (Result.isFailure(decoded)) return yield* new NotRotated({ reason: "the answer cannot be read" })
      const outcome = decoded.success
      if ("refused" in outcome) return yield* new NotRotated({ reason: outcome.refused })
      yield* out(
        `The encryption key has version ${outcome.version} now: ${outcome.recipient}\nOperators take it in when they next look. What is sealed to the old one can be opened for 180 days.\n`
      )
    })
  ).pipe(
    Command.withDescription("Make a new encryption key; the running client says so with its next poll"),
    Command.withExamples([
      { command: "client.js keys rotate", description: "On the device, as the client's user" }
    ])
  )
  return Command.make("keys").pipe(
    Command.withDescription("The device's own keys"),
    Command.withSubcommands([rotate])
  )
}
