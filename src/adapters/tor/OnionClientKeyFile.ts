/**
 * This device's key to onion services: an x25519 secret, made on first need.
 *
 *     <state folder>/keys/onion.json    0600  { type, secret }
 *
 * It stands beside the device's other keys and not with tor's files, which may be removed at any time.
 *
 * @module
 */
import { dirname, join } from "node:path"
import { Effect, Redacted, Result, Schema } from "effect"
import { decodeBase64, encodeBase64 } from "../../crypto/Base64.ts"
import { fromUtf8, utf8 } from "../../crypto/Bytes.ts"
import { x25519KeyBytes } from "../../crypto/Engine.ts"
import type { Entropy } from "../../ports/Entropy.ts"
import { TorError } from "../../schemas/TorError.ts"
import {
  createPrivateFile,
  errorCode,
  errorText,
  readPrivateFile,
  requirePrivateFolder
} from "../files/AtomicFile.ts"

const fileBytes = 1_024

const KeyFile = Schema.fromJsonString(
  Schema.Struct({ type: Schema.Literal("postern/onion-client-key/v1"), secret: Schema.String })
)
const decodeKeyFile = Schema.decodeUnknownResult(KeyFile, { onExcessProperty: "error" })

export const onionKeyPath = (stateFolder: string): string => join(stateFolder, "keys", "onion.json")

const secretIn = (bytes: Uint8Array): Uint8Array | undefined => {
  const file = decodeKeyFile(fromUtf8(bytes) ?? "")
  const secret = Result.isSuccess(file) ? decodeBase64(file.success.secret) : undefined
  return secret?.length === x25519KeyBytes ? secret : undefined
}

/** Reads the key, or makes it where there is none yet. A damaged one is never replaced: it may be known to servers. */
export const loadOnionKey = Effect.fnUntraced(function* (
  stateFolder: string,
  entropy: Entropy["Service"]
): Effect.fn.Return<Redacted.Redacted<Uint8Array>, TorError> {
  const path = onionKeyPath(stateFolder)
  const unusable = (reason: string, mend = "") =>
    new TorError({ code: "failed", reason: `the key file ${path} cannot be used: ${reason}`, mend })
  const attempt = <A>(work: () => A) =>
    Effect.try({ try: work, catch: (error) => unusable(errorText(error)) })
  const read = attempt(() => {
    requirePrivateFolder(dirname(path))
    return readPrivateFile(path, fileBytes)
  })
  if ((yield* read) === undefined) {
    const fresh = yield* entropy.bytes(x25519KeyBytes)
    const text = JSON.stringify({ type: "postern/onion-client-key/v1", secret: encodeBase64(fresh) })
    yield* attempt(() => {
      try {
        createPrivateFile(path, utf8(`${text}\n`))
      } catch (error) {
        // Another program on the same folder was faster: its key is the device's.
        if (errorCode(error) !== "EEXIST") throw error
      }
    })
  }
  // What is used is what stands there, and will be read at the next start.
  const bytes = yield* read
  const secret = bytes === undefined ? undefined : secretIn(bytes)
  return secret === undefined
    ? yield* unusable("it is damaged", "remove it, and have the device accepted anew")
    : Redacted.make(secret)
})
