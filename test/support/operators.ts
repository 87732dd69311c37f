/** An operator, a server and a device with keys made of a seed, for tests of what the operator's side believes. */
import { Effect, Redacted } from "effect"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { type NodeKeyRing, nodeKeyRingFrom } from "../../src/adapters/NodeKeys.ts"
import { firstRoot, makeKeys, signerOf } from "../../src/adapters/operator/OperatorKeys.ts"
import type { DeviceRecord } from "../../src/adapters/operator/Records.ts"
import { signDocument } from "../../src/crypto/Documents.ts"
import { secretKeysEntropyBytes } from "../../src/crypto/IdentityKeys.ts"
import { CryptoEngine } from "../../src/ports/CryptoEngine.ts"
import { Entropy } from "../../src/ports/Entropy.ts"
import type { DsseEnvelope, SignedKind } from "../../src/schemas/Dsse.ts"
import type { ServerIdentity } from "../../src/schemas/Enrolment.ts"
import {
  type DeviceId,
  Digest,
  Incarnation,
  Name,
  OrderId,
  type Recipient,
  type ServerId
} from "../../src/schemas/Ids.ts"
import type { Receipt } from "../../src/schemas/Receipt.ts"
import type { WorkOrder } from "../../src/schemas/WorkOrder.ts"
import { seededBytes } from "../crypto/SeededEntropy.ts"

export const engine = NativeCrypto
export const nowMs = 1_800_000_000_000

const bytes = (path: string, length: number): Uint8Array =>
  Effect.runSync(seededBytes("operators", path).bytes(length))

const nodeOf = (kind: "device" | "server", path: string): NodeKeyRing =>
  nodeKeyRingFrom(engine, kind, bytes(path, secretKeysEntropyBytes))

/** Signs with a node's key, under its id. */
export const signAs = (node: NodeKeyRing, kind: SignedKind, document: unknown) =>
  signDocument(engine, kind, document, [{ keyId: node.id, seed: Redacted.value(node.signingSeed) }])

export const server = nodeOf("server", "server")
export const device = nodeOf("device", "device")
export const otherDevice = nodeOf("device", "other device")

export const serverIdentity: ServerIdentity = {
  type: "postern/server-identity/v1",
  server: server.id as ServerId,
  signing_key: server.signingKey,
  recipient: server.recipient,
  addresses: ["http://127.0.0.1:8470"]
}

const made = (path: string, kind: "operator" | "recovery") =>
  Effect.runSync(
    makeKeys(kind, path, nowMs).pipe(
      Effect.provideService(Entropy, seededBytes("operators", path)),
      Effect.provideService(CryptoEngine, engine)
    )
  )

export const operator = made("operator", "operator")
export const recovery = made("recovery", "recovery")
export const stranger = made("stranger", "operator")

export const trust = firstRoot(engine, {
  operator,
  recovery,
  server: serverIdentity,
  addresses: serverIdentity.addresses,
  nowMs,
  lifetimeMs: 365 * 86_400_000
})

export const signAsOperator = (kind: SignedKind, document: unknown, by = operator) =>
  signDocument(engine, kind, document, [signerOf(by)])

export const incarnation = Incarnation.make("a".repeat(26))

/** The device as the operator accepted it. */
export const deviceRecord: DeviceRecord = {
  type: "postern/device-record/v1",
  device: device.id as DeviceId,
  name: Name.make("pi-cellar"),
  status: "accepted",
  signing_key: device.signingKey,
  recipient: device.recipient,
  server: server.id as ServerId,
  incarnation,
  admission_sequence: 1,
  admitted_at_ms: nowMs,
  last_order: null,
  last_receipt: null
}

export const someDigest = (digit: string): Digest => Digest.make(`sha256:${digit.repeat(64)}`)

export const orderId = (counter: number): OrderId =>
  OrderId.make(`01900000-0000-7000-8000-${counter.toString(16).padStart(12, "0")}`)

/** An order for the device, and its signed form. */
export const signedOrder = (counter: number, changes: Partial<WorkOrder> = {}, by = operator) => {
  const order: WorkOrder = {
    type: "postern/order/v1",
    id: orderId(counter),
    device: device.id as DeviceId,
    lane: "job",
    counter,
    previous: null,
    root_version: 1,
    issued_at_ms: nowMs,
    expires_at_ms: nowMs + 86_400_000,
    deadline_at_ms: nowMs + 3_600_000,
    payload: { digest: someDigest("7"), size_bytes: 300, unpacked_bytes: 100, entries: 2 },
    results_to: [operator.recipient as Recipient],
    ...changes
  }
  return { order, ...signAsOperator("order", order, by) }
}

/** A receipt of the device for an order, and its signed form. */
export const signedReceipt = (
  number: number,
  previous: Digest | null,
  order: { readonly order: WorkOrder; readonly digest: Digest },
  changes: Partial<Receipt> = {},
  by: NodeKeyRing = device
): { readonly receipt: Receipt; readonly envelope: DsseEnvelope; readonly digest: Digest } => {
  const receipt: Receipt = {
    type: "postern/receipt/v1",
    number,
    previous,
    device: device.id as DeviceId,
    incarnation,
    order: order.order.id,
    order_digest: order.digest,
    payload_digest: order.order.payload.digest,
    state: "succeeded",
    reason: null,
    detail: null,
    exit_code: 0,
    signal: null,
    attempts: 1,
    received_at_ms: nowMs,
    started_at_ms: nowMs,
    ended_at_ms: nowMs + 5,
    usage: null,
    output: null,
    artifacts: null,
    isolation: "separate-uid",
    root_version: 1,
    software: "postern/0.1.0",
    ...changes
  }
  return { receipt, ...signAs(by, "receipt", receipt) }
}
