/**
 * A server's public identity from a file.
 *
 * @module
 */
import { readFileSync } from "node:fs"
import { Effect, Result, Schema } from "effect"
import { errorText } from "../../adapters/files/AtomicFile.ts"
import { ServerIdentity } from "../../schemas/Enrolment.ts"
import { failure } from "./Failure.ts"

const decodeIdentity = Schema.decodeUnknownResult(Schema.fromJsonString(ServerIdentity))

/** What `server.js identity` wrote. That it holds together is checked by whoever uses it. */
export const identityFromFile = (path: string) =>
  Effect.gen(function* () {
    const text = yield* Effect.try({
      try: () => readFileSync(path, "utf8"),
      catch: (error) => failure(`Could not read the server's identity from ${path}: ${errorText(error)}`)
    })
    const decoded = decodeIdentity(text)
    if (Result.isSuccess(decoded)) return decoded.success
    return yield* failure(
      `${path} holds no server identity. Take it from the server: node server.js identity > FILE`
    )
  })
