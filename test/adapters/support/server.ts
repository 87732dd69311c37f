import { Effect, Layer, Redacted } from "effect"
import type { ApiHandler, ApiRequest, ApiResponse } from "../../../src/adapters/http/Exchange.ts"
import { encodeJson } from "../../../src/adapters/http/Json.ts"
import { handlerTransport, type Transport } from "../../../src/adapters/http/Transport.ts"
import { NativeCrypto, NativeCryptoEngine } from "../../../src/adapters/NativeCrypto.ts"
import { type NodeKeyRing, NodeKeys, nodeKeyRingFrom } from "../../../src/adapters/NodeKeys.ts"
import { SignedLink } from "../../../src/adapters/SignedLink.ts"
import { SystemEntropy } from "../../../src/adapters/SystemEntropy.ts"
import { encodeBase64 } from "../../../src/crypto/Base64.ts"
import { digestOf, signDocument } from "../../../src/crypto/Documents.ts"
import { verifyRequest } from "../../../src/crypto/RequestSignature.ts"
import { keyIdOf, signingKeyBytes } from "../../../src/crypto/Trust.ts"
import { DeviceClock } from "../../../src/ports/DeviceClock.ts"
import { ServerLink } from "../../../src/ports/ServerLink.ts"
import type { DeviceId, Digest, Nonce, ServerId } from "../../../src/schemas/Ids.ts"
import { type Statement, statementHeader } from "../../../src/schemas/Statement.ts"
import type { TrustRoot } from "../../../src/schemas/TrustRoot.ts"
import { orderId } from "./ledger.ts"

export const engine = NativeCrypto
const ringOf = (kind: "device" | "server", fill: number): NodeKeyRing =>
  nodeKeyRingFrom(engine, kind, new Uint8Array(64).fill(fill, 0, 32).fill(fill + 1, 32))

export const device = ringOf("device", 1)
export const server = ringOf("server", 3)
export const otherServer = ringOf("server", 5)
export const addresses = ["http://one.test", "http://two.test:8470"]

const publicKey = (ring: NodeKeyRing): Uint8Array => {
  const bytes = signingKeyBytes(ring.signingKey)
  if (bytes === undefined) throw new Error("the ring's own key is not acceptable")
  return bytes
}

/** A root, not signed (nobody here asks), whose servers role holds both servers' keys. */
export const rootOf = (version: number): TrustRoot => {
  const entries = [server, otherServer].map((ring) => ({ ring, key: keyIdOf(engine, publicKey(ring)) }))
  const role = { keys: entries.map(({ key }) => key), threshold: 1 }
  const none = { keys: [], threshold: 1 }
  return {
    type: "postern/root/v1",
    version,
    issued_at_ms: 0,
    expires_at_ms: 1,
    keys: Object.fromEntries(
      entries.map(({ key, ring }) => [
        key,
        { algorithm: "ed25519" as const, public_key: ring.signingKey, label: "s", recipient: null }
      ])
    ),
    roles: { root: role, operators: none, servers: role, broker_services: none },
    servers: entries.map(({ key, ring }) => ({
      id: ring.id as ServerId,
      key,
      recipient: ring.recipient,
      addresses
    }))
  }
}

/** What a fake server does other than it should. */
export interface Bend {
  readonly statement?: (statement: Statement) => Statement
  readonly signer?: NodeKeyRing
  readonly keyId?: string
  readonly response?: (response: ApiResponse) => ApiResponse
}

/** The answer of `ring` to a request, signed as the protocol asks, bent at will. */
export const signAnswer = (
  request: ApiRequest,
  answer: {
    readonly status: number
    readonly value: unknown
    readonly atMs: number
    readonly rootVersion: number | null
  },
  bend: Bend = {}
): ApiResponse => {
  const verified = verifyRequest(engine, request, request.headers, request.body, publicKey(device))
  if (verified._tag === "Failure")
    throw new Error(`the request's signature is wrong: ${verified.failure.message}`)
  const body = answer.value instanceof Uint8Array ? answer.value : encodeJson(answer.value)
  const statement: Statement = {
    type: "postern/statement/v1",
    server: server.id as ServerId,
    device: device.id as DeviceId,
    nonce: verified.success.nonce as Nonce,
    at_ms: answer.atMs,
    status: answer.status,
    body_digest: digestOf(engine, body),
    root_version: answer.rootVersion
  }
  const signer = bend.signer ?? server
  const { envelope } = signDocument(engine, "statement", bend.statement?.(statement) ?? statement, [
    { keyId: bend.keyId ?? signer.id, seed: Redacted.value(signer.signingSeed) }
  ])
  const response: ApiResponse = {
    status: answer.status,
    headers: { "content-type": "application/json", [statementHeader]: encodeBase64(encodeJson(envelope)) },
    body
  }
  return bend.response?.(response) ?? response
}

export const digestOfBytes = (bytes: Uint8Array): Digest => digestOf(engine, bytes)

/** A link over the transport, trusting the server by root version 3; the clock starts at `nowMs` and only leaps ahead. */
export const linkOver = Effect.fnUntraced(function* (
  transport: Transport,
  options: {
    readonly nowMs?: number
    readonly trusting?: boolean
    readonly addresses?: ReadonlyArray<string>
    readonly enrolAddresses?: ReadonlyArray<string>
    readonly callTimeoutMs?: number
    readonly responseTimeoutMs?: number
  } = {}
) {
  const time = { nowMs: options.nowMs ?? 1_000_000, accepted: [] as Array<number> }
  const clock = Layer.succeed(DeviceClock, {
    nowMs: Effect.sync(() => time.nowMs),
    proven: Effect.succeed(true),
    accept: (atMs) =>
      Effect.sync(() => {
        time.accepted.push(atMs)
        time.nowMs = Math.max(time.nowMs, atMs)
        return 0
      })
  })
  const layer = SignedLink({ transport, addresses, ...options }).pipe(
    Layer.provide(Layer.mergeAll(Layer.succeed(NodeKeys, device), NativeCryptoEngine, SystemEntropy, clock))
  )
  const link = yield* Effect.provideContext(ServerLink, yield* Layer.build(layer))
  if (options.trusting !== false) yield* link.trust({ root: rootOf(3), server: server.id as ServerId })
  return { link, time }
})

/** A server on both addresses that answers what `answer` gives. */
export const serving =
  (answer: (request: ApiRequest, origin: string) => ApiResponse) =>
  (origin: string): ApiHandler | undefined =>
    addresses.includes(origin) ? (request) => Effect.sync(() => answer(request, origin)) : undefined

/** An answer to a report of progress. */
export const ok = { status: 200, value: { ok: true }, atMs: 1_234_567, rootVersion: 3 }
/** Some report of progress. */
export const report = {
  events: [
    {
      order: orderId(1),
      state: "running" as const,
      version: 1,
      at_ms: 1,
      done_bytes: null,
      total_bytes: null
    }
  ]
}

/** A link to a server that answers so. */
export const answering = (answer: (request: ApiRequest, origin: string) => ApiResponse) =>
  linkOver(handlerTransport(serving(answer)))
