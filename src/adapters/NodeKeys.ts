/**
 * The keys of this node on disk: an Ed25519 seed to sign with and X25519 (age) keys to decrypt with, made on the first
 * start. The file never leaves its machine; losing it means a new identity and a new enrolment.
 *
 *     <state folder>/keys/             0700
 *     <state folder>/keys/node.json    0600  { type, kind, id, signing_seed, decryption_keys }
 *
 * @module
 */
import { join } from "node:path"
import { Context, Effect, Layer, Redacted, Result, Schema } from "effect"
import {
  type AgeIdentity,
  formatIdentity,
  formatRecipient,
  parseIdentity,
  x25519Identity
} from "../crypto/AgeKeys.ts"
import { decodeBase64, encodeBase64 } from "../crypto/Base64.ts"
import { fromUtf8, utf8 } from "../crypto/Bytes.ts"
import { type Engine, ed25519KeyBytes } from "../crypto/Engine.ts"
import { deriveId, makeSecretKeys, secretKeysEntropyBytes } from "../crypto/IdentityKeys.ts"
import { parseX25519PublicKey } from "../crypto/Keys.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { Entropy } from "../ports/Entropy.ts"
import { DeviceId, Recipient, ServerId, SigningKey } from "../schemas/Ids.ts"
import {
  createPrivateFile,
  errorCode,
  errorText,
  readPrivateFile,
  requirePrivateFolder
} from "./files/AtomicFile.ts"

export type NodeKind = "device" | "server"

/** The key file could not be used: damaged, open to others, or not to be written. It is never replaced by itself. */
export class KeyFileError extends Schema.TaggedError<KeyFileError>()("KeyFileError", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `The key file ${this.path} cannot be used: ${this.reason}`
  }
}

/** A node's keys in memory. For adapters only; actors get the port `Identity`, which gives no private key out. */
export interface NodeKeyRing {
  readonly kind: NodeKind
  /** `dev_…` or `srv_…`, derived from the signing key and the first decryption key. */
  readonly id: DeviceId | ServerId
  readonly signingKey: SigningKey
  /** The age recipient others encrypt to: the newest decryption key's. */
  readonly recipient: Recipient
  /** 32 bytes, Ed25519. */
  readonly signingSeed: Redacted.Redacted<Uint8Array>
  /** What opens files encrypted to this node, newest first. */
  readonly ageIdentities: ReadonlyArray<AgeIdentity>
}

/** The keys of this node, for other adapters (decryption of packages, signing of requests). */
export class NodeKeys extends Context.Service<NodeKeys, NodeKeyRing>()("postern/adapters/NodeKeys") {}

const keyFileBytes = 16 * 1024
const maximumDecryptionKeys = 16

const KeyFile = Schema.Struct({
  type: Schema.Literal("postern/node-keys/v1"),
  kind: Schema.Literals(["device", "server"]),
  id: Schema.Union([DeviceId, ServerId]),
  signing_seed: Schema.String,
  /** Oldest first: the id is derived from the first one, and new ones are added behind. */
  decryption_keys: Schema.Array(Schema.String).check(
    Schema.isMinLength(1),
    Schema.isMaxLength(maximumDecryptionKeys)
  )
})

const recipientBytes = (engine: Engine, secret: Redacted.Redacted<Uint8Array>) => {
  const parsed = parseX25519PublicKey(engine.x25519.publicKey(Redacted.value(secret)))
  if (Result.isFailure(parsed)) throw new RangeError(parsed.failure.message)
  return parsed.success
}

/**
 * A key ring from a 32-byte seed and X25519 secrets (oldest first, at least one). Pure; simulations use it without a
 * file.
 */
export const nodeKeyRing = (
  engine: Engine,
  kind: NodeKind,
  seed: Redacted.Redacted<Uint8Array>,
  secrets: readonly [Redacted.Redacted<Uint8Array>, ...Array<Redacted.Redacted<Uint8Array>>]
): NodeKeyRing => {
  const publicKey = engine.ed25519.publicKey(Redacted.value(seed))
  const newest = secrets.at(-1) ?? secrets[0]
  return {
    kind,
    id: deriveId(engine, kind, publicKey, recipientBytes(engine, secrets[0])),
    signingKey: SigningKey.make(encodeBase64(publicKey)),
    recipient: Recipient.make(formatRecipient(recipientBytes(engine, newest))),
    signingSeed: seed,
    ageIdentities: secrets.map(x25519Identity).reverse()
  }
}

/** A key ring from `secretKeysEntropyBytes` fresh bytes, which must not serve for anything else. */
export const nodeKeyRingFrom = (engine: Engine, kind: NodeKind, entropyBytes: Uint8Array): NodeKeyRing => {
  const { encryptionSecret, signingSeed } = makeSecretKeys(entropyBytes)
  return nodeKeyRing(engine, kind, signingSeed, [encryptionSecret])
}

const decodeKeyFile = Schema.decodeUnknownResult(Schema.fromJsonString(KeyFile), {
  onExcessProperty: "error"
})

const damaged =
  "it is damaged. Restore it from a backup, or remove it and enrol this node anew under a new id"

/** Reads a key file's bytes. Messages never quote its content. */
const parseKeyFile = (engine: Engine, kind: NodeKind, bytes: Uint8Array): NodeKeyRing | string => {
  const decoded = decodeKeyFile(fromUtf8(bytes) ?? "")
  if (Result.isFailure(decoded)) return damaged
  const file = decoded.success
  if (file.kind !== kind)
    return `it holds the keys of a ${file.kind}, not of a ${kind}: use another state folder`
  const seed = decodeBase64(file.signing_seed)
  const [first, ...others] = file.decryption_keys.map(parseIdentity)
  if (seed?.length !== ed25519KeyBytes || first === undefined) return damaged
  const rest = others.filter((secret) => secret !== undefined)
  if (rest.length !== others.length) return damaged
  const ring = nodeKeyRing(engine, kind, Redacted.make(seed), [first, ...rest])
  return ring.id === file.id ? ring : damaged
}

const writeKeyFile = (
  path: string,
  engine: Engine,
  kind: NodeKind,
  entropyBytes: Uint8Array
): NodeKeyRing => {
  const { encryptionSecret, signingSeed } = makeSecretKeys(entropyBytes)
  const ring = nodeKeyRing(engine, kind, signingSeed, [encryptionSecret])
  const file: typeof KeyFile.Type = {
    type: "postern/node-keys/v1",
    kind,
    id: ring.id,
    signing_seed: encodeBase64(Redacted.value(signingSeed)),
    decryption_keys: [Redacted.value(formatIdentity(encryptionSecret))]
  }
  createPrivateFile(path, utf8(`${JSON.stringify(file, null, 2)}\n`))
  return ring
}

/**
 * Reads the keys below the state folder, or makes them where there are none yet. Fails, and changes nothing, when
 * folder or file are open to others or the file is damaged.
 */
export const loadNodeKeys = Effect.fnUntraced(function* (options: {
  readonly stateFolder: string
  readonly kind: NodeKind
}): Effect.fn.Return<NodeKeyRing, KeyFileError, Entropy | CryptoEngine> {
  const { kind, stateFolder } = options
  const engine = yield* CryptoEngine
  const entropy = yield* Entropy
  const folder = join(stateFolder, "keys")
  const path = join(folder, "node.json")
  const attempt = <A>(work: () => A) =>
    Effect.try({ try: work, catch: (error) => new KeyFileError({ path, reason: errorText(error) }) })

  const read = attempt(() => {
    requirePrivateFolder(stateFolder)
    requirePrivateFolder(folder)
    return readPrivateFile(path, keyFileBytes)
  })
  const present = yield* read
  if (present === undefined) {
    const fresh = yield* entropy.bytes(secretKeysEntropyBytes)
    const created = yield* attempt(() => {
      try {
        return writeKeyFile(path, engine, kind, fresh)
      } catch (error) {
        // Another program on the same folder was faster: its keys are the node's.
        if (errorCode(error) === "EEXIST") return undefined
        throw error
      }
    })
    if (created !== undefined) return created
  }
  const bytes = present ?? (yield* read)
  const ring = yield* attempt(() =>
    bytes === undefined ? "it vanished while it was read" : parseKeyFile(engine, kind, bytes)
  )
  return typeof ring === "string" ? yield* new KeyFileError({ path, reason: ring }) : ring
})

/** Provides the keys below a state folder. */
export const NodeKeysFile = (options: {
  readonly stateFolder: string
  readonly kind: NodeKind
}): Layer.Layer<NodeKeys, KeyFileError, Entropy | CryptoEngine> =>
  Layer.effect(NodeKeys, loadNodeKeys(options))
