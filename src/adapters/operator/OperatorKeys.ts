/**
 * The operator's own keys: made once, kept in the home under a passphrase, opened when something is to be signed or
 * read. The recovery key signs roots only and is meant to be kept elsewhere.
 *
 * @module
 */
import { Effect, Redacted, Result, Schema } from "effect"
import { type AgeIdentity, formatRecipient, x25519Identity } from "../../crypto/AgeKeys.ts"
import { encodeBase64 } from "../../crypto/Base64.ts"
import { signDocument } from "../../crypto/Documents.ts"
import type { EnvelopeSigner as Signer } from "../../crypto/Dsse.ts"
import type { Engine } from "../../crypto/Engine.ts"
import { makeSecretKeys, publicKeysOf, secretKeysEntropyBytes } from "../../crypto/IdentityKeys.ts"
import { writeKeyCard } from "../../crypto/KeyCards.ts"
import {
  isProtectedKeyFile,
  type KeyVaultError,
  openKeyFile,
  passphraseEntropyBytes,
  protectedKeyFile,
  type StoredKeys,
  unprotectedKeyFile
} from "../../crypto/KeyVault.ts"
import { setServerBrokerServices } from "../../crypto/RootEdits.ts"
import { brokerServicesOf, keyIdOf, signingKeyBytes } from "../../crypto/Trust.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { Entropy } from "../../ports/Entropy.ts"
import type { DsseEnvelope, SignedKind } from "../../schemas/Dsse.ts"
import type { ServerIdentity } from "../../schemas/Enrolment.ts"
import { type Digest, type KeyId, Recipient, SigningKey } from "../../schemas/Ids.ts"
import { TrustRoot } from "../../schemas/TrustRoot.ts"
import { HomeError, OperatorHome, readJson } from "./OperatorHome.ts"
import { OperatorProfile, operatorFile, operatorKeyFile } from "./Records.ts"

/** There are no operator keys in this home. */
export class NoOperatorKeys extends Schema.TaggedError<NoOperatorKeys>()("NoOperatorKeys", {
  folder: Schema.String
}) {
  override get message(): string {
    return `There are no operator keys in ${this.folder}. Make them first: postern keys init --server URL`
  }
}

/** Opened keys: what an operator's command signs and reads with. */
export interface OperatorKeys {
  readonly profile: OperatorProfile
  readonly ageIdentities: ReadonlyArray<AgeIdentity>
  readonly sign: (
    kind: SignedKind,
    document: unknown
  ) => { readonly envelope: DsseEnvelope; readonly digest: Digest }
}

/** Keys just made, not yet written anywhere. */
export interface NewKeys {
  readonly stored: StoredKeys
  readonly keyId: KeyId
  readonly signingKey: SigningKey
  readonly recipient: Recipient
}

/** Makes the keys of an operator, or a recovery key (which has no use for its recipient). */
export const makeKeys = (
  kind: "operator" | "recovery",
  label: string,
  nowMs: number
): Effect.Effect<NewKeys, never, CryptoEngine | Entropy> =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const entropy = yield* Entropy
    const secrets = makeSecretKeys(yield* entropy.bytes(secretKeysEntropyBytes))
    const { encryptionKey, signingKey } = publicKeysOf(engine, secrets)
    return {
      stored: {
        kind,
        label,
        createdAtMs: nowMs,
        signingSeed: secrets.signingSeed,
        encryptionSecrets: kind === "operator" ? [secrets.encryptionSecret] : []
      },
      keyId: keyIdOf(engine, signingKey),
      signingKey: SigningKey.make(encodeBase64(signingKey)),
      recipient: Recipient.make(formatRecipient(encryptionKey))
    }
  })

/** A person's public profile of keys just made. */
export const profileOf = (keys: NewKeys): OperatorProfile => ({
  type: "postern/operator/v1",
  label: keys.stored.label,
  key_id: keys.keyId,
  signing_key: keys.signingKey,
  recipient: keys.recipient,
  created_at_ms: keys.stored.createdAtMs
})

/** The card by which somebody else puts these keys into a root. */
export const cardOf = (keys: NewKeys): Effect.Effect<string, never, CryptoEngine> =>
  Effect.map(CryptoEngine, (engine) => {
    const recipient = keys.stored.kind === "operator" ? keys.recipient : null
    const { label } = keys.stored
    return writeKeyCard(
      engine,
      { type: "postern/key/v1", label, public_key: keys.signingKey, recipient },
      signerOf(keys)
    )
  })

/** The bytes of a key file: under the passphrase, or open where it is null. */
export const keyFileBytes = (
  keys: StoredKeys,
  passphrase: Redacted.Redacted | null
): Effect.Effect<Uint8Array, never, CryptoEngine | Entropy> =>
  Effect.gen(function* () {
    if (passphrase === null) return unprotectedKeyFile(keys)
    const engine = yield* CryptoEngine
    const entropy = yield* Entropy
    return protectedKeyFile(engine, keys, {
      passphrase,
      entropyBytes: yield* entropy.bytes(passphraseEntropyBytes)
    })
  })

export const signerOf = (keys: NewKeys): Signer => ({
  keyId: keys.keyId,
  seed: Redacted.value(keys.stored.signingSeed)
})

/**
 * The first trust root: this operator signs work, operator or recovery key sign roots, the server signs its answers, and its
 * broker services what they pass on, where the server has any. The identity must have been verified.
 */
export const firstRoot = (
  engine: Engine,
  parts: {
    readonly operator: NewKeys
    readonly recovery: NewKeys
    readonly server: ServerIdentity
    readonly addresses: ReadonlyArray<string>
    readonly nowMs: number
    readonly lifetimeMs: number
  }
): { readonly envelope: DsseEnvelope; readonly digest: Digest; readonly root: TrustRoot } => {
  const { operator, recovery, server } = parts
  const serverKey = signingKeyBytes(server.signing_key)
  const services = brokerServicesOf(engine, server)
  if (serverKey === undefined || Result.isFailure(services))
    throw new RangeError("The server's identity must have been verified before")
  const serverKeyId = keyIdOf(engine, serverKey)
  const key = (public_key: SigningKey, label: string, recipient: Recipient | null) =>
    ({ algorithm: "ed25519", public_key, label, recipient }) as const
  const bare: TrustRoot = {
    type: "postern/root/v1",
    version: 1,
    issued_at_ms: parts.nowMs,
    expires_at_ms: parts.nowMs + parts.lifetimeMs,
    keys: {
      [operator.keyId]: key(operator.signingKey, operator.stored.label, operator.recipient),
      [recovery.keyId]: key(recovery.signingKey, recovery.stored.label, null),
      [serverKeyId]: key(server.signing_key, "server", null)
    },
    roles: {
      root: { keys: [operator.keyId, recovery.keyId], threshold: 1 },
      operators: { keys: [operator.keyId], threshold: 1 },
      servers: { keys: [serverKeyId], threshold: 1 },
      broker_services: { keys: [], threshold: 1 }
    },
    servers: [
      { id: server.server, key: serverKeyId, recipient: server.recipient, addresses: parts.addresses }
    ]
  }
  const root =
    services.success === null ? bare : Result.getOrThrow(setServerBrokerServices(engine, server)(bare))
  const encoded = Schema.encodeSync(TrustRoot)(root)
  return { ...signDocument(engine, "root", encoded, [signerOf(operator), signerOf(recovery)]), root }
}

/** Who the operator is, or undefined before `keys init`. */
export const operatorProfile: Effect.Effect<OperatorProfile | undefined, HomeError, OperatorHome> = readJson(
  operatorFile,
  OperatorProfile
)

/** Whether the private keys ask for a passphrase; undefined where there are none. */
export const isProtected: Effect.Effect<boolean | undefined, HomeError, OperatorHome> = Effect.gen(
  function* () {
    const home = yield* OperatorHome
    const file = yield* home.readBytes(operatorKeyFile)
    return file === undefined ? undefined : isProtectedKeyFile(file)
  }
)

/** The signing half of a key file of any kind: for a root, which offline keys sign. */
export const signerFromFile = (
  engine: Engine,
  file: Uint8Array,
  passphrase: Redacted.Redacted | null
): Result.Result<Signer & { readonly keyId: KeyId; readonly label: string }, KeyVaultError> =>
  Result.map(openKeyFile(engine, file, passphrase), ({ label, signingSeed }) => {
    const seed = Redacted.value(signingSeed)
    return { keyId: keyIdOf(engine, engine.ed25519.publicKey(seed)), seed, label }
  })

/** Opens the operator's keys. `passphrase` is asked only where the file is protected. */
export const unlockKeys = <E, R>(
  passphrase: Effect.Effect<Redacted.Redacted, E, R>
): Effect.Effect<
  OperatorKeys,
  E | HomeError | NoOperatorKeys | KeyVaultError,
  R | OperatorHome | CryptoEngine
> =>
  Effect.gen(function* () {
    const home = yield* OperatorHome
    const engine = yield* CryptoEngine
    const profile = yield* operatorProfile
    const file = yield* home.readBytes(operatorKeyFile)
    if (profile === undefined || file === undefined) return yield* new NoOperatorKeys({ folder: home.folder })
    const secret = isProtectedKeyFile(file) ? yield* passphrase : null
    const opened = openKeyFile(engine, file, secret)
    if (Result.isFailure(opened)) return yield* opened.failure
    const keys = opened.success
    const seed = Redacted.value(keys.signingSeed)
    if (keys.kind !== "operator" || keyIdOf(engine, engine.ed25519.publicKey(seed)) !== profile.key_id) {
      return yield* new HomeError({
        path: `${home.folder}/${operatorKeyFile}`,
        reason: `these are not the keys that ${operatorFile} names. Restore both from one backup`
      })
    }
    const signer: Signer = { keyId: profile.key_id, seed }
    return {
      profile,
      ageIdentities: keys.encryptionSecrets.map(x25519Identity).reverse(),
      sign: (kind, document) => signDocument(engine, kind, document, [signer])
    }
  })
