/**
 * The keys of a private network's directory authority, made by tor's own tools before it starts, because every other tor
 * must know their fingerprints.
 *
 * @module
 */
import { generateKeyPair } from "node:crypto"
import { mkdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { Effect } from "effect"
import { runTool, type ToolRun } from "../../Tool.ts"
import { labFailure, labFiles, TorLabError } from "./LabFailure.ts"
import { labEnvironment } from "./LabNode.ts"
import type { Authority, RelayPlace } from "./LabTorrc.ts"

const passphrase = "lab"
const toolMs = 60_000

const tool = (command: ToolRun["command"], folder: string, input = ""): Effect.Effect<string, TorLabError> =>
  runTool({ command, folder, input, timeoutMs: toolMs, environment: labEnvironment() }).pipe(
    Effect.mapError((error) => labFailure("The authority's keys could not be made", error))
  )

/**
 * tor-gencert would take seconds to find an identity key of its own size; the network lives for minutes, so that a small
 * one is enough.
 */
const makeCertificate = Effect.fnUntraced(function* (keys: string, dirAddress: string) {
  yield* labFiles("The authority's identity key could not be made", async () => {
    const { privateKey } = await promisify(generateKeyPair)("rsa", {
      modulusLength: 1024,
      publicKeyEncoding: { type: "spki", format: "pem" },
      privateKeyEncoding: { type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase }
    })
    await writeFile(join(keys, "authority_identity_key"), privateKey, { mode: 0o600 })
  })
  yield* tool(["tor-gencert", "-m", "12", "-a", dirAddress, "--passphrase-fd", "0"], keys, `${passphrase}\n`)
  const certificate = yield* labFiles("The authority's certificate could not be read", () =>
    readFile(join(keys, "authority_certificate"), "utf8")
  )
  const fingerprint = /^fingerprint ([0-9A-F]{40})$/m.exec(certificate)?.[1]
  if (fingerprint === undefined)
    return yield* new TorLabError({ message: "tor-gencert wrote a certificate without a fingerprint" })
  return fingerprint
})

const makeFingerprint = Effect.fnUntraced(function* (
  folder: string,
  tor: string,
  data: string,
  place: RelayPlace
) {
  const nobody = `x 127.0.0.1:1 ${"0".repeat(40)}`
  const empty = join(folder, "empty")
  const words = yield* tool(
    [
      ...([tor, "--defaults-torrc", empty, "-f", empty, "--quiet", "--DataDirectory", data] as const),
      ...["--ORPort", `${place.address}:${place.orPort}`, "--Nickname", place.nickname],
      ...["--DirAuthority", nobody, "--list-fingerprint"]
    ],
    folder
  )
  const fingerprint = /((?:[0-9A-F]{4} ?){10})/.exec(words)?.[1]?.replaceAll(" ", "")
  if (fingerprint === undefined)
    return yield* new TorLabError({ message: `tor --list-fingerprint said: ${words.trim()}` })
  return fingerprint
})

/** Makes the authority's keys in its folder, and tells what the others must know. */
export const makeAuthority = Effect.fnUntraced(function* (
  folder: string,
  tor: string,
  place: RelayPlace,
  dirPort: number
): Effect.fn.Return<Authority, TorLabError> {
  const data = join(folder, place.nickname)
  const keys = join(data, "keys")
  yield* labFiles("The authority's folder could not be made", () =>
    mkdir(keys, { recursive: true, mode: 0o700 })
  )
  const [fingerprint, authorityFingerprint] = yield* Effect.all(
    [makeFingerprint(folder, tor, data, place), makeCertificate(keys, `${place.address}:${dirPort}`)],
    { concurrency: 2 }
  )
  return { ...place, dirPort, fingerprint, authorityFingerprint }
})
