/**
 * The keys of a private network's directory authority, made by tor's own tools before it starts, because every other tor
 * must know their fingerprints.
 *
 * @module
 */
import { execFile } from "node:child_process"
import { generateKeyPair } from "node:crypto"
import { mkdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { Effect } from "effect"
import { labFailure, type TorLabError } from "./LabFailure.ts"
import { labEnvironment } from "./LabNode.ts"
import type { Authority, RelayPlace } from "./LabTorrc.ts"

const passphrase = "lab"
const toolMs = 60_000

const run = (command: ReadonlyArray<string>, cwd: string, input = ""): Promise<string> =>
  new Promise((resolve, reject) => {
    const [file, ...args] = command as [string, ...Array<string>]
    const child = execFile(
      file,
      args,
      { cwd, env: labEnvironment(), timeout: toolMs },
      (error, stdout, stderr) =>
        error === null ? resolve(stdout) : reject(new Error(`${file}: ${stderr.trim() || error.message}`))
    )
    child.stdin?.on("error", () => undefined)
    child.stdin?.end(input)
  })

/**
 * tor-gencert would take seconds to find an identity key of its own size; the network lives for minutes, so that a small
 * one is enough.
 */
const makeCertificate = async (keys: string, dirAddress: string): Promise<string> => {
  const { privateKey } = await promisify(generateKeyPair)("rsa", {
    modulusLength: 1024,
    publicKeyEncoding: { type: "spki", format: "pem" },
    privateKeyEncoding: { type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase }
  })
  await writeFile(join(keys, "authority_identity_key"), privateKey, { mode: 0o600 })
  await run(["tor-gencert", "-m", "12", "-a", dirAddress, "--passphrase-fd", "0"], keys, `${passphrase}\n`)
  const certificate = await readFile(join(keys, "authority_certificate"), "utf8")
  const fingerprint = /^fingerprint ([0-9A-F]{40})$/m.exec(certificate)?.[1]
  if (fingerprint === undefined) throw new Error("tor-gencert wrote a certificate without a fingerprint")
  return fingerprint
}

const makeFingerprint = async (folder: string, tor: string, data: string, place: RelayPlace) => {
  const nobody = `x 127.0.0.1:1 ${"0".repeat(40)}`
  const empty = join(folder, "empty")
  const words = await run(
    [
      ...[tor, "--defaults-torrc", empty, "-f", empty, "--quiet", "--DataDirectory", data],
      ...["--ORPort", `${place.address}:${place.orPort}`, "--Nickname", place.nickname],
      ...["--DirAuthority", nobody, "--list-fingerprint"]
    ],
    folder
  )
  const fingerprint = /((?:[0-9A-F]{4} ?){10})/.exec(words)?.[1]?.replaceAll(" ", "")
  if (fingerprint === undefined) throw new Error(`tor --list-fingerprint said: ${words.trim()}`)
  return fingerprint
}

/** Makes the authority's keys in its folder, and tells what the others must know. */
export const makeAuthority = (
  folder: string,
  tor: string,
  place: RelayPlace,
  dirPort: number
): Effect.Effect<Authority, TorLabError> =>
  Effect.tryPromise({
    try: async () => {
      const data = join(folder, place.nickname)
      await mkdir(join(data, "keys"), { recursive: true, mode: 0o700 })
      const [fingerprint, authorityFingerprint] = await Promise.all([
        makeFingerprint(folder, tor, data, place),
        makeCertificate(join(data, "keys"), `${place.address}:${dirPort}`)
      ])
      return { ...place, dirPort, fingerprint, authorityFingerprint }
    },
    catch: (error) => labFailure("The authority's keys could not be made", error)
  })
