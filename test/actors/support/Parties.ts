/** Who takes part in a test: one operator, one server, one device, and what they sign. All from seeds. */
import { Redacted } from "effect"
import { NativeCrypto } from "../../../src/adapters/NativeCrypto.ts"
import { type NodeKeyRing, nodeKeyRingFrom } from "../../../src/adapters/NodeKeys.ts"
import { formatRecipient } from "../../../src/crypto/AgeKeys.ts"
import { encodeBase64 } from "../../../src/crypto/Base64.ts"
import { utf8 } from "../../../src/crypto/Bytes.ts"
import { digestOf, signDocument } from "../../../src/crypto/Documents.ts"
import type { EnvelopeSigner } from "../../../src/crypto/Dsse.ts"
import { encodeHex } from "../../../src/crypto/Hex.ts"
import { parseX25519PublicKey } from "../../../src/crypto/Keys.ts"
import { keyIdOf } from "../../../src/crypto/Trust.ts"
import { formatUuidV7 } from "../../../src/crypto/Unguessable.ts"
import type { DsseEnvelope } from "../../../src/schemas/Dsse.ts"
import type { Admission } from "../../../src/schemas/Enrolment.ts"
import type {
  DeviceId,
  Digest,
  Incarnation,
  KeyId,
  Name,
  OrderId,
  Recipient,
  ServerId,
  SigningKey
} from "../../../src/schemas/Ids.ts"
import { defaultJobLimits, type Manifest } from "../../../src/schemas/Manifest.ts"
import type { TrustRoot } from "../../../src/schemas/TrustRoot.ts"
import type { CancelOrder, WorkOrder } from "../../../src/schemas/WorkOrder.ts"

export const engine = NativeCrypto

const seedOf = (name: string): Uint8Array => engine.sha256(utf8(name))

/** A key that signs, with what others know of it. */
export const keyOf = (name: string) => {
  const seed = seedOf(`sign ${name}`)
  const publicKey = engine.ed25519.publicKey(seed)
  const keyId = keyIdOf(engine, publicKey)
  const boxed = parseX25519PublicKey(engine.x25519.publicKey(seedOf(`box ${name}`)))
  if (boxed._tag === "Failure") throw boxed.failure
  return {
    name,
    keyId,
    signer: { keyId, seed } satisfies EnvelopeSigner,
    signingKey: encodeBase64(publicKey) as SigningKey,
    recipient: formatRecipient(boxed.success) as Recipient
  }
}

export type Key = ReturnType<typeof keyOf>

const nodeOf = (kind: "device" | "server", name: string): NodeKeyRing =>
  nodeKeyRingFrom(engine, kind, Uint8Array.from([...seedOf(`${name} a`), ...seedOf(`${name} b`)]))

export const operator = keyOf("operator")
export const stranger = keyOf("stranger")
export const recovery = keyOf("recovery")
export const serverKeys = nodeOf("server", "server")
export const deviceKeys = nodeOf("device", "device")
export const otherDeviceKeys = nodeOf("device", "other device")

export const device = deviceKeys.id as DeviceId
export const server = serverKeys.id as ServerId

const serverKeyId = keyIdOf(engine, engine.ed25519.publicKey(Redacted.value(serverKeys.signingSeed)))

const rootKey = (key: Key) => ({
  algorithm: "ed25519" as const,
  public_key: key.signingKey,
  label: key.name,
  recipient: key.recipient
})

const day = 86_400_000

/** A root with the operators named; the recovery key alone is its root role. */
export const rootOf = (
  options: {
    readonly version?: number
    readonly operators?: ReadonlyArray<Key>
    readonly expiresAtMs?: number
    readonly threshold?: number
  } = {}
): TrustRoot => {
  const operators = options.operators ?? [operator]
  return {
    type: "postern/root/v1",
    version: options.version ?? 1,
    issued_at_ms: 0,
    expires_at_ms: options.expiresAtMs ?? 1_000 * day,
    keys: Object.fromEntries([
      ...[recovery, ...operators].map((key) => [key.keyId, rootKey(key)] as const),
      [
        serverKeyId,
        { algorithm: "ed25519" as const, public_key: serverKeys.signingKey, label: "server", recipient: null }
      ]
    ]),
    roles: {
      root: { keys: [recovery.keyId], threshold: 1 },
      operators: { keys: operators.map((key) => key.keyId), threshold: options.threshold ?? 1 },
      servers: { keys: [serverKeyId as KeyId], threshold: 1 },
      broker_services: { keys: [], threshold: 1 }
    },
    servers: [
      {
        id: server,
        key: serverKeyId as KeyId,
        recipient: serverKeys.recipient,
        addresses: ["http://127.0.0.1:8470"]
      }
    ]
  }
}

export const signRoot = (root: TrustRoot) => signDocument(engine, "root", root, [recovery.signer])

export const firstRootEnvelope = signRoot(rootOf())

/** An operator's decision about the device. */
export const admissionOf = (incarnation: Incarnation, changes: Partial<Admission> = {}): Admission => ({
  type: "postern/admission/v1",
  decision: "accept",
  device,
  name: "pi" as Name,
  signing_key: deviceKeys.signingKey,
  recipient: deviceKeys.recipient,
  server,
  incarnation,
  root_version: 1,
  sequence: 1,
  issued_at_ms: 0,
  ...changes
})

export const signAdmission = (admission: Admission, key: Key = operator): DsseEnvelope =>
  signDocument(engine, "admission", admission, [key.signer]).envelope

/** An id for the n-th order of a test. */
export const orderId = (n: number): OrderId => {
  const random = engine.sha256(utf8(`order ${n}`)).slice(0, 10)
  return formatUuidV7(1_000 + n, random) as OrderId
}

/** What a test's package does, in the words of the simulated jail. */
export interface PackagePlan {
  readonly script: ReadonlyArray<string>
  readonly idempotent?: boolean
  readonly limits?: Partial<Manifest["limits"]>
  readonly grants?: Manifest["grants"]
  readonly artifacts?: ReadonlyArray<string>
  /** Refusal that staging comes to. */
  readonly refuse?: string
}

export const manifestOf = (plan: PackagePlan): Manifest => ({
  type: "postern/manifest/v1",
  name: "test",
  command: plan.script.length === 0 ? ["true"] : plan.script,
  environment: {},
  idempotent: plan.idempotent ?? false,
  limits: { ...defaultJobLimits, ...plan.limits },
  grants: plan.grants ?? { devices: [], read_only: [] },
  artifacts: (plan.artifacts ?? []) as Manifest["artifacts"],
  files: {}
})

/** The "ciphertext" of a plan for the simulated package store, padded so that a download takes some blocks. */
export const payloadOf = (
  n: number,
  plan: PackagePlan
): { readonly bytes: Uint8Array; readonly digest: Digest } => {
  const bytes = utf8(
    JSON.stringify({ n, refuse: plan.refuse ?? null, manifest: manifestOf(plan), padding: "x".repeat(4_000) })
  )
  return { bytes, digest: digestOf(engine, bytes) }
}

/** An order for the plan, the n-th of the test: its counter is n. */
export const orderOf = (n: number, plan: PackagePlan, changes: Partial<WorkOrder> = {}): WorkOrder => {
  const payload = payloadOf(n, plan)
  return {
    type: "postern/order/v1",
    id: orderId(n),
    device,
    lane: "job",
    counter: n,
    previous: null,
    root_version: 1,
    issued_at_ms: 0,
    expires_at_ms: 10 * day,
    deadline_at_ms: 10 * day,
    payload: { digest: payload.digest, size_bytes: payload.bytes.length, unpacked_bytes: 10_000, entries: 2 },
    results_to: [operator.recipient],
    ...changes
  }
}

export const signOrder = (order: WorkOrder, key: Key = operator) =>
  signDocument(engine, "order", order, [key.signer])

export const signCancel = (
  order: OrderId,
  changes: Partial<CancelOrder> = {},
  key: Key = operator
): DsseEnvelope =>
  signDocument(
    engine,
    "cancel",
    {
      type: "postern/cancel/v1",
      order,
      device,
      root_version: 1,
      issued_at_ms: 0,
      expires_at_ms: 20 * day,
      ...changes
    } satisfies CancelOrder,
    [key.signer]
  ).envelope

/** SHA-256 of bytes as hexadecimal digits. */
export const hexDigest = (bytes: Uint8Array): string => encodeHex(engine.sha256(bytes))
