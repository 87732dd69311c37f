/**
 * Signing a draft of a trust root: with the operator's own key, or with key files that come from a safe.
 *
 * @module
 */
import { readFileSync } from "node:fs"
import { Effect, Result } from "effect"
import { Flag } from "effect/cli"
import { errorText } from "../../adapters/files/AtomicFile.ts"
import { OperatorHome } from "../../adapters/operator/OperatorHome.ts"
import { isProtected, signerFromFile } from "../../adapters/operator/OperatorKeys.ts"
import { operatorKeyFile } from "../../adapters/operator/Records.ts"
import type { RootDraft } from "../../adapters/operator/RootFiles.ts"
import { decodeBase64 } from "../../crypto/Base64.ts"
import { signEnvelope } from "../../crypto/Dsse.ts"
import { isProtectedKeyFile } from "../../crypto/KeyVault.ts"
import { type JudgedDraft, joinSignatures, judgeDraft, type RootNeed } from "../../crypto/RootDrafts.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import type { KeyId } from "../../schemas/Ids.ts"
import type { TrustRoot } from "../../schemas/TrustRoot.ts"
import { failure } from "./Failure.ts"
import { counted, visible } from "./Text.ts"
import { passphraseFor } from "./Unlock.ts"

/** More keys than one person carries. */
const keysAtOnce = 8

/** `--key FILE`, once or more. */
export const keyFilesFlag = Flag.String("key").pipe(
  Flag.withMetavar("FILE"),
  Flag.withDescription(
    "Sign with the key in this file (a recovery key, an offline root key); default the operator's own"
  ),
  Flag.atMost(keysAtOnce)
)

/** Opens a key file; it is named in the question for its passphrase. */
export const signerAt = (path: string) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const bytes = yield* Effect.try({
      try: () => readFileSync(path),
      catch: (error) => failure(`Could not read the key file ${path}: ${errorText(error)}`)
    })
    const passphrase = isProtectedKeyFile(bytes) ? yield* passphraseFor(path) : null
    const opened = signerFromFile(engine, bytes, passphrase)
    if (Result.isSuccess(opened)) return opened.success
    return yield* failure(`${path}: ${opened.failure.message}`)
  })

/** A draft, looked into. */
export const judged = (
  draft: RootDraft
): Effect.Effect<JudgedDraft, ReturnType<typeof failure>, CryptoEngine> =>
  Effect.flatMap(CryptoEngine, (engine) => {
    const found = judgeDraft(engine, draft.current, draft.next)
    return Result.isSuccess(found)
      ? Effect.succeed(found.success)
      : Effect.fail(failure(`The draft does not hold: ${visible(found.failure.message)}`))
  })

const keyPaths = (given: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    if (given.length > 0) return given
    const home = yield* OperatorHome
    if ((yield* isProtected) !== undefined) return [`${home.folder}/${operatorKeyFile}`]
    return yield* failure(`There is no key in ${home.folder} to sign with. Say which: --key FILE`)
  })

/** Adds signatures by the keys given, or by the operator's own. Each must be a root key of one of the two versions. */
export const signDraft = (draft: RootDraft, given: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const { needs } = yield* judged(draft)
    const payload = decodeBase64(draft.next.payload) ?? new Uint8Array(0)
    let { next } = draft
    for (const path of yield* keyPaths(given)) {
      const signer = yield* signerAt(path)
      const counts = needs.some(({ open, signed }) => [...open, ...signed].includes(signer.keyId))
      if (!counts) {
        return yield* failure(
          `${path} holds ${signer.keyId} (${visible(signer.label)}), which is a root key neither of version ${needs[0].version} nor of version ${needs[1].version}: its signature would count for nothing. Nothing was signed`
        )
      }
      const signed = signEnvelope(engine, next.payloadType, payload, [signer])
      next = joinSignatures(next, signed) ?? next
    }
    return { ...draft, next } satisfies RootDraft as RootDraft
  })

const named = (root: TrustRoot, keys: ReadonlyArray<KeyId>): string =>
  keys.map((key) => `${root.keys[key]?.label ?? "?"} (${key})`).join(", ")

/** Whose signatures are missing, in a sentence; undefined where there are enough. */
export const missingText = (need: RootNeed, root: TrustRoot): string | undefined => {
  const missing = need.threshold - need.signed.length
  if (missing <= 0) return undefined
  return `${counted(missing, "more signature", "more signatures")} by root keys of version ${need.version}, of: ${named(root, need.open) || "nobody"}`
}

/** What a draft says and who signed it, as lines for people. */
export const draftLines = ({ changes, current, digest, needs, next }: JudgedDraft): string => {
  const roots = [current, next] as const
  const signatures = needs.map((need, index) => {
    const root = roots[index] as TrustRoot
    const by = need.signed.length === 0 ? "" : `: ${named(root, need.signed)}`
    return `signed by ${need.signed.length} of the ${need.threshold} root keys that version ${need.version} asks for${by}`
  })
  return [
    `Version ${next.version} of the trust root, after version ${current.version}:`,
    ...changes.map((line) => `  - it ${line}`),
    `  digest ${digest}`,
    ...signatures.map((line) => `  ${line}`),
    ""
  ].join("\n")
}

/** The same for programs. */
export const draftJson = ({ changes, complete, digest, needs, next }: JudgedDraft) => ({
  root_version: next.version,
  digest,
  expires_at_ms: next.expires_at_ms,
  changes,
  needs,
  complete
})
