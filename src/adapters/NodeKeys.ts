/**
 * The keys of this node on disk: an Ed25519 seed to sign with and X25519 (age) keys to decrypt with, made on the first
 * start. The file never leaves its machine; losing it means a new identity and a new enrolment.
 *
 *     <state folder>/keys/             0700
 *     <state folder>/keys/node.json    0600  { type, kind, id, signing_seed, decryption_keys, … }
 *     <state folder>/keys/broker-services.json    likewise, beside a server's
 *
 * A decryption key can be followed by a new one. The old one is kept for {@link Limits.retiredKeyMs}, in which everything
 * sealed to it expires; the node's id, made of the first one's public half, stays.
 *
 * @module
 */
import { dirname, join } from "node:path"
import { Context, Effect, Layer, Redacted, Result, Schema } from "effect"
import {
  type AgeIdentity,
  formatIdentity,
  formatRecipient,
  parseIdentity,
  parseRecipient,
  x25519Identity
} from "../crypto/AgeKeys.ts"
import { decodeBase64, encodeBase64 } from "../crypto/Base64.ts"
import { fromUtf8, utf8 } from "../crypto/Bytes.ts"
import { type Engine, ed25519KeyBytes, x25519KeyBytes } from "../crypto/Engine.ts"
import type { HpkeKeyPair } from "../crypto/Hpke.ts"
import { deriveId, makeSecretKeys, secretKeysEntropyBytes } from "../crypto/IdentityKeys.ts"
import { parseX25519PublicKey, type X25519PublicKey } from "../crypto/Keys.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { Entropy } from "../ports/Entropy.ts"
import type { EncryptionKey } from "../ports/Identity.ts"
import { Count, DeviceId, Recipient, ServerId, ServicesId, SigningKey, TimestampMs } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import {
  createPrivateFile,
  errorCode,
  errorText,
  readPrivateFile,
  replacePrivateFile,
  requirePrivateFolder
} from "./files/AtomicFile.ts"

/** Broker services stand beside a server, in its folder, with keys of their own. */
export type NodeKind = "device" | "server" | "broker-services"

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
  /** `dev_…`, `srv_…` or `svc_…`, derived from the signing key and the first decryption key. */
  readonly id: DeviceId | ServerId | ServicesId
  readonly signingKey: SigningKey
  /** The age recipient of the first decryption key, which the id is made of. */
  readonly recipient: Recipient
  /** The one others are to encrypt to: the newest. The first has version 1. */
  readonly encryption: EncryptionKey
  /** 32 bytes, Ed25519. */
  readonly signingSeed: Redacted.Redacted<Uint8Array>
  /** What opens files encrypted to this node, newest first. */
  readonly ageIdentities: ReadonlyArray<AgeIdentity>
  /** The same keys for messages: raw pairs by their public half in base64. */
  readonly agreements: ReadonlyMap<string, HpkeKeyPair>
  /** The raw public half of the newest, base64. */
  readonly agreementKey: string
}

/** The keys of this node, for other adapters (decryption of packages, signing of requests). */
export class NodeKeys extends Context.Service<NodeKeys, NodeKeyRing>()("postern/adapters/NodeKeys") {}

/** Changes the key that others encrypt to. */
export class KeyRotation extends Context.Service<
  KeyRotation,
  {
    /** Makes the next key and forgets those retired long enough at `nowMs`; durable when it succeeds. */
    readonly rotate: (nowMs: number) => Effect.Effect<EncryptionKey, KeyFileError>
  }
>()("postern/adapters/NodeKeys/KeyRotation") {}

const keyFileBytes = 16 * 1024
const maximumDecryptionKeys = 16

const KeyFile = Schema.Struct({
  type: Schema.Literal("postern/node-keys/v1"),
  kind: Schema.Literals(["device", "server", "broker-services"]),
  id: Schema.Union([DeviceId, ServerId, ServicesId]),
  signing_seed: Schema.String,
  /** Oldest first; new ones are added behind. */
  decryption_keys: Schema.Array(Schema.String).check(
    Schema.isMinLength(1),
    Schema.isMaxLength(maximumDecryptionKeys)
  ),
  /** Once there was a second key: what the id is made of, how many there were, and when each but the newest was retired. */
  rotation: Schema.optionalKey(
    Schema.Struct({
      first_recipient: Recipient,
      version: Count,
      retired_at_ms: Schema.Array(TimestampMs)
    })
  )
})
type KeyFile = typeof KeyFile.Type

const recipientBytes = (engine: Engine, secret: Redacted.Redacted<Uint8Array>) => {
  const parsed = parseX25519PublicKey(engine.x25519.publicKey(Redacted.value(secret)))
  if (Result.isFailure(parsed)) throw new RangeError(parsed.failure.message)
  return parsed.success
}

type Secrets = readonly [Redacted.Redacted<Uint8Array>, ...Array<Redacted.Redacted<Uint8Array>>]

/** A key ring from a 32-byte seed and the X25519 secrets still kept, oldest first. */
const nodeKeyRing = (
  engine: Engine,
  kind: NodeKind,
  seed: Redacted.Redacted<Uint8Array>,
  secrets: Secrets,
  rotation: { readonly first: X25519PublicKey; readonly version: number } | null
): NodeKeyRing => {
  const publicKey = engine.ed25519.publicKey(Redacted.value(seed))
  const first = rotation?.first ?? recipientBytes(engine, secrets[0])
  const newest = recipientBytes(engine, secrets.at(-1) ?? secrets[0])
  const pairs = secrets.map((secret): readonly [string, HpkeKeyPair] => {
    const pair = { secret: Redacted.value(secret), public: recipientBytes(engine, secret) }
    return [encodeBase64(pair.public), pair]
  })
  return {
    kind,
    id: deriveId(engine, kind, publicKey, first),
    signingKey: SigningKey.make(encodeBase64(publicKey)),
    recipient: Recipient.make(formatRecipient(first)),
    encryption: { version: rotation?.version ?? 1, recipient: Recipient.make(formatRecipient(newest)) },
    signingSeed: seed,
    ageIdentities: secrets.map(x25519Identity).reverse(),
    agreements: new Map(pairs),
    agreementKey: encodeBase64(newest)
  }
}

/** A key ring from `secretKeysEntropyBytes` fresh bytes, which must not serve for anything else. */
export const nodeKeyRingFrom = (engine: Engine, kind: NodeKind, entropyBytes: Uint8Array): NodeKeyRing => {
  const { encryptionSecret, signingSeed } = makeSecretKeys(entropyBytes)
  return nodeKeyRing(engine, kind, signingSeed, [encryptionSecret], null)
}

const decodeKeyFile = Schema.decodeUnknownResult(Schema.fromJsonString(KeyFile), {
  onExcessProperty: "error"
})

const damaged =
  "it is damaged. Restore it from a backup, or remove it and enrol this node anew under a new id"

/** What a key file says of keys there were before, or undefined where it contradicts itself. */
const rotationOf = ({ decryption_keys, rotation }: KeyFile) => {
  if (rotation === undefined) return decryption_keys.length === 1 ? null : undefined
  const first = parseRecipient(rotation.first_recipient)
  const isWhole =
    rotation.retired_at_ms.length === decryption_keys.length - 1 && rotation.version >= decryption_keys.length
  return isWhole && Result.isSuccess(first) ? { first: first.success, version: rotation.version } : undefined
}

interface Read {
  readonly file: KeyFile
  readonly ring: NodeKeyRing
}

/** Reads a key file's bytes. Messages never quote its content. */
const parseKeyFile = (engine: Engine, kind: NodeKind, bytes: Uint8Array): Read | string => {
  const decoded = decodeKeyFile(fromUtf8(bytes) ?? "")
  if (Result.isFailure(decoded)) return damaged
  const file = decoded.success
  if (file.kind !== kind)
    return `it holds the keys of a ${file.kind}, not of a ${kind}: use another state folder`
  const seed = decodeBase64(file.signing_seed)
  const rotation = rotationOf(file)
  const [first, ...others] = file.decryption_keys.map(parseIdentity)
  if (seed?.length !== ed25519KeyBytes || first === undefined || rotation === undefined) return damaged
  const rest = others.filter((secret) => secret !== undefined)
  if (rest.length !== others.length) return damaged
  const ring = nodeKeyRing(engine, kind, Redacted.make(seed), [first, ...rest], rotation)
  return ring.id === file.id ? { file, ring } : damaged
}

const fileBytesOf = (file: KeyFile): Uint8Array => utf8(`${JSON.stringify(file, null, 2)}\n`)

/** The key file after a rotation, or why there can be none now. */
const rotated = (
  { file, ring }: Read,
  secret: Redacted.Redacted<Uint8Array>,
  nowMs: number
): KeyFile | string => {
  const retired = [...(file.rotation?.retired_at_ms ?? []), nowMs]
  const keptFrom = retired.findIndex((atMs) => nowMs - atMs < Limits.retiredKeyMs)
  const keys = file.decryption_keys.slice(keptFrom)
  if (keys.length >= maximumDecryptionKeys)
    return `it holds ${keys.length} keys to which something may still be sealed: rotate again later`
  return {
    ...file,
    decryption_keys: [...keys, Redacted.value(formatIdentity(secret))],
    rotation: {
      first_recipient: ring.recipient,
      version: ring.encryption.version + 1,
      retired_at_ms: retired.slice(keptFrom)
    }
  }
}

const writeKeyFile = (path: string, engine: Engine, kind: NodeKind, entropyBytes: Uint8Array): Read => {
  const { encryptionSecret, signingSeed } = makeSecretKeys(entropyBytes)
  const ring = nodeKeyRing(engine, kind, signingSeed, [encryptionSecret], null)
  const file: KeyFile = {
    type: "postern/node-keys/v1",
    kind,
    id: ring.id,
    signing_seed: encodeBase64(Redacted.value(signingSeed)),
    decryption_keys: [Redacted.value(formatIdentity(encryptionSecret))]
  }
  createPrivateFile(path, fileBytesOf(file))
  return { file, ring }
}

interface KeyFolder {
  readonly stateFolder: string
  readonly kind: NodeKind
}

const keyPath = ({ kind, stateFolder }: KeyFolder): string =>
  join(stateFolder, "keys", kind === "broker-services" ? "broker-services.json" : "node.json")

const attemptOn =
  (path: string) =>
  <A>(work: () => A) =>
    Effect.try({ try: work, catch: (error) => new KeyFileError({ path, reason: errorText(error) }) })

/** Reads the key file, or makes it where there is none yet. */
const loadKeyFile = Effect.fnUntraced(function* (
  folder: KeyFolder
): Effect.fn.Return<Read, KeyFileError, Entropy | CryptoEngine> {
  const { kind, stateFolder } = folder
  const engine = yield* CryptoEngine
  const entropy = yield* Entropy
  const path = keyPath(folder)
  const attempt = attemptOn(path)

  const read = attempt(() => {
    requirePrivateFolder(stateFolder)
    requirePrivateFolder(dirname(path))
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
  const found = yield* attempt(() =>
    bytes === undefined ? "it vanished while it was read" : parseKeyFile(engine, kind, bytes)
  )
  return typeof found === "string" ? yield* new KeyFileError({ path, reason: found }) : found
})

/**
 * Reads the keys below the state folder, or makes them where there are none yet. Fails, and changes nothing, when
 * folder or file are open to others or the file is damaged.
 */
export const loadNodeKeys = (
  folder: KeyFolder
): Effect.Effect<NodeKeyRing, KeyFileError, Entropy | CryptoEngine> =>
  Effect.map(loadKeyFile(folder), ({ ring }) => ring)

/** A ring that always is the newest. */
const following = (current: () => NodeKeyRing): NodeKeyRing => ({
  kind: current().kind,
  id: current().id,
  signingKey: current().signingKey,
  recipient: current().recipient,
  signingSeed: current().signingSeed,
  get encryption() {
    return current().encryption
  },
  get ageIdentities() {
    return current().ageIdentities
  },
  get agreements() {
    return current().agreements
  },
  get agreementKey() {
    return current().agreementKey
  }
})

/** The keys below a state folder, and the means to change the one that others encrypt to. */
export const openNodeKeys = Effect.fnUntraced(function* (
  folder: KeyFolder
): Effect.fn.Return<
  { readonly keys: NodeKeyRing; readonly rotation: KeyRotation["Service"] },
  KeyFileError,
  Entropy | CryptoEngine
> {
  const engine = yield* CryptoEngine
  const entropy = yield* Entropy
  const path = keyPath(folder)
  let held = yield* loadKeyFile(folder)
  const rotate = Effect.fnUntraced(function* (nowMs: number) {
    const secret = Redacted.make(yield* entropy.bytes(x25519KeyBytes))
    const file = rotated(held, secret, nowMs)
    if (typeof file === "string") return yield* new KeyFileError({ path, reason: file })
    const bytes = fileBytesOf(file)
    // What could not be read at the next start is not written now.
    const next = parseKeyFile(engine, folder.kind, bytes)
    if (typeof next === "string") return yield* new KeyFileError({ path, reason: next })
    yield* attemptOn(path)(() => replacePrivateFile(path, bytes))
    held = next
    return next.ring.encryption
  })
  return { keys: following(() => held.ring), rotation: { rotate } }
})

/** Provides the keys below a state folder, and the means to change the one that others encrypt to. */
export const NodeKeysFile = (
  folder: KeyFolder
): Layer.Layer<NodeKeys | KeyRotation, KeyFileError, Entropy | CryptoEngine> =>
  Layer.effectContext(
    Effect.map(openNodeKeys(folder), ({ keys, rotation }) =>
      Context.make(NodeKeys, keys).pipe(Context.add(KeyRotation, rotation))
    )
  )
