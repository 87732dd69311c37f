/** A server in the test's own process, on virtual time and databases in memory, and a device that speaks to it. */
import { Clock, Deferred, Effect, Exit, Layer, Redacted, Result, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { DeviceKey, RegistrarKey } from "../../src/actors/ServerKeys.ts"
import { IdentityOfNodeKeys } from "../../src/adapters/FileIdentity.ts"
import { FleetTrustCell } from "../../src/adapters/FleetTrustCell.ts"
import { makeDeviceApi, type ServerMessaging } from "../../src/adapters/http/DeviceApi.ts"
import type { ApiHandler, ApiRequest, ApiResponse } from "../../src/adapters/http/Exchange.ts"
import { makeManagementApi } from "../../src/adapters/http/ManagementService.ts"
import { NativeCryptoEngine } from "../../src/adapters/NativeCrypto.ts"
import { type NodeKeyRing, NodeKeys } from "../../src/adapters/NodeKeys.ts"
import { SystemEntropy } from "../../src/adapters/SystemEntropy.ts"
import { openDatabase } from "../../src/adapters/sqlite/Database.ts"
import { SqliteFleetStoreOver } from "../../src/adapters/sqlite/SqliteFleetStore.ts"
import { decodeBase64 } from "../../src/crypto/Base64.ts"
import { fromUtf8, utf8 } from "../../src/crypto/Bytes.ts"
import { digestOf, signDocument } from "../../src/crypto/Documents.ts"
import { signRequest } from "../../src/crypto/RequestSignature.ts"
import { verifyStatement } from "../../src/crypto/Trust.ts"
import { BlobStore } from "../../src/ports/BlobStore.ts"
import { FleetStore } from "../../src/ports/FleetStore.ts"
import { serverActors, startServer } from "../../src/programs/serverDoors.ts"
import { DeviceApiErrorBody, deviceApiPath, type PollRequest } from "../../src/schemas/DeviceApi.ts"
import type { DeviceStatement } from "../../src/schemas/DeviceStatement.ts"
import type { DsseEnvelope } from "../../src/schemas/Dsse.ts"
import type { Admission, EnrolmentRequest } from "../../src/schemas/Enrolment.ts"
import type { DeviceId, Digest, Incarnation, LifeId, Name, ServerId } from "../../src/schemas/Ids.ts"
import { RetentionConfig } from "../../src/schemas/ServerConfig.ts"
import { statementHeader } from "../../src/schemas/Statement.ts"
import { type BlobMemory, MemoryBlobStore } from "./MemoryBlobStore.ts"
import * as parties from "./operators.ts"

const { engine } = parties

export const config = {
  poll_sleep_ms: 60_000,
  maximum_devices: 1_000,
  retention: Schema.decodeSync(RetentionConfig)({})
}

/** What a crash of the server leaves behind. */
export const makeDisk = Effect.acquireRelease(
  Effect.sync(() => ({
    fleet: openDatabase(":memory:"),
    series: openDatabase(":memory:"),
    blobs: new Map() as BlobMemory
  })),
  ({ fleet, series }) =>
    Effect.sync(() => {
      fleet.close()
      series.close()
    })
)
export type Disk = Effect.Success<typeof makeDisk>

/** The server's services over what a disk holds. */
export const servicesOver = (disk: Disk) =>
  Layer.mergeAll(
    SqliteFleetStoreOver(disk, { maximumDevices: config.maximum_devices }),
    MemoryBlobStore(disk.blobs),
    FleetTrustCell,
    IdentityOfNodeKeys
  ).pipe(
    Layer.provideMerge(
      Layer.mergeAll(NativeCryptoEngine, SystemEntropy, Layer.succeed(NodeKeys, parties.server))
    )
  )

/** Starts a server over a disk; it is stopped with the scope, or killed before. */
export const startFleet = (disk: Disk, messaging: ServerMessaging | null = null) =>
  Effect.gen(function* () {
    const scope = yield* Scope.fork(yield* Effect.scope)
    const services = yield* Layer.buildWithScope(servicesOver(disk), scope)
    const stopping = yield* Deferred.make<void>()
    const built = Effect.gen(function* () {
      const system = yield* startServer(config, () => [])
      const common = { actors: serverActors(system), stopping: Deferred.await(stopping) }
      const device = yield* makeDeviceApi({
        ...common,
        addresses: () => parties.serverIdentity.addresses,
        messaging
      })
      const management = yield* makeManagementApi({
        ...common,
        inspect: system.inspect(),
        startedAtMs: yield* Clock.currentTimeMillis,
        pollSleepMs: config.poll_sleep_ms,
        requestsPerMinute: 6_000,
        metrics: Effect.succeed("")
      })
      return { system, device, management, store: yield* FleetStore, blobs: yield* BlobStore }
    })
    const fleet = yield* built.pipe(Effect.provide(services), Scope.provide(scope))
    return {
      ...fleet,
      disk,
      stopApi: Deferred.succeed(stopping, undefined),
      stop: Scope.close(scope, Exit.void)
    }
  })
export type Fleet = Effect.Success<ReturnType<typeof startFleet>>

const nonceOf = (count: number): string => {
  const digits = "abcdefghijklmnopqrstuvwxyz234567"
  let text = ""
  for (let rest = count; text.length < 26; rest = Math.floor(rest / 32))
    text = (digits[rest % 32] as string) + text
  return text
}

export interface Sending {
  readonly body?: unknown
  readonly octets?: Uint8Array
  readonly query?: string
  readonly by?: NodeKeyRing
  /** Named as the signer in place of `by`. */
  readonly keyId?: string
  readonly authority?: string
  readonly createdSeconds?: number
  readonly nonce?: string
  readonly range?: string
  readonly alter?: (request: ApiRequest) => ApiRequest
}

let nonces = 0

/** The body, with the device's word of now where a poll does not bring one of its own. */
const bodyOf = (body: unknown, atMs: number): unknown =>
  (body as Partial<PollRequest>).statement === madeWhenSent
    ? { ...(body as PollRequest), statement: statementOf({ at_ms: atMs }) }
    : body

/** A request as a device signs it. */
export const signedRequest = (
  nowMs: number,
  method: string,
  path: string,
  sending: Sending = {}
): ApiRequest => {
  const { authority = "127.0.0.1:8470", by = parties.device, query = "", range } = sending
  const createdSeconds = sending.createdSeconds ?? Math.floor(nowMs / 1_000)
  const body =
    sending.octets ??
    (sending.body === undefined
      ? new Uint8Array(0)
      : utf8(JSON.stringify(bodyOf(sending.body, createdSeconds * 1_000))))
  const contentType = sending.octets === undefined ? "application/json" : "application/octet-stream"
  const parts = { method, authority, path: `${deviceApiPath}${path}`, query, contentType }
  const headers = signRequest(engine, parts, body, {
    keyId: sending.keyId ?? by.id,
    seed: Redacted.value(by.signingSeed),
    createdSeconds,
    nonce: sending.nonce ?? nonceOf(nonces++)
  })
  const request: ApiRequest = {
    method,
    authority,
    path: parts.path,
    query,
    headers: { ...headers, ...(range === undefined ? {} : { range }) },
    body
  }
  return sending.alter?.(request) ?? request
}

export interface Reply {
  readonly status: number
  readonly json: unknown
  readonly octets: Uint8Array
  readonly headers: Readonly<Record<string, string>>
  /** `code` of a refusal. */
  readonly code: string | null
  readonly signed: boolean
}

export const octetsOf = (response: ApiResponse): Effect.Effect<Uint8Array, unknown> =>
  response.body instanceof Uint8Array
    ? Effect.succeed(response.body)
    : Effect.map(Stream.runCollect(response.body.bytes), (parts) => {
        const joined: Array<number> = []
        for (const part of parts) joined.push(...part)
        return Uint8Array.from(joined)
      })

const isRefusal = Schema.is(DeviceApiErrorBody)

/** Whether the answer carries the server's statement about this very request. */
const isSigned = (request: ApiRequest, response: ApiResponse, octets: Uint8Array): boolean => {
  const header = response.headers[statementHeader]
  if (header === undefined) return false
  const nonce = /nonce="([a-z2-7]+)"/.exec(request.headers["signature-input"] ?? "")?.[1] ?? ""
  const device = /keyid="([a-z0-9_]+)"/.exec(request.headers["signature-input"] ?? "")?.[1] as DeviceId
  const envelope = JSON.parse(fromUtf8(decodeBase64(header) ?? new Uint8Array(0)) ?? "null")
  const verified = verifyStatement(engine, parties.trust.root, envelope, {
    server: parties.server.id as ServerId,
    device,
    nonce,
    status: response.status,
    bodyDigest: digestOf(engine, octets)
  })
  return Result.isSuccess(verified)
}

export const exchange = Effect.fnUntraced(function* (handler: ApiHandler, request: ApiRequest) {
  const response = yield* handler(request)
  const octets = yield* octetsOf(response)
  const text = fromUtf8(octets) ?? ""
  const json = response.headers["content-type"] === "application/json" ? JSON.parse(text) : null
  const reply: Reply = {
    status: response.status,
    json,
    octets,
    headers: response.headers,
    code: isRefusal(json) ? json.error : null,
    signed: isSigned(request, response, octets)
  }
  return reply
})

/** Signs and sends at the present time. */
export const send = Effect.fnUntraced(function* (
  fleet: Fleet,
  method: string,
  path: string,
  sending: Sending = {}
) {
  const request = signedRequest(yield* Clock.currentTimeMillis, method, path, sending)
  return yield* exchange(fleet.device, request)
})

/** A request of the management API with a token. */
export const manage = (fleet: Fleet, token: string, method: string, path: string, body?: unknown) =>
  exchange(fleet.management, {
    method,
    authority: "127.0.0.1:8470",
    path: path.split("?")[0] as string,
    query: path.includes("?") ? `?${path.split("?")[1]}` : "",
    headers: {
      authorization: `Bearer ${token}`,
      ...(body === undefined
        ? {}
        : { "content-type": body instanceof Uint8Array ? "application/octet-stream" : "application/json" })
    },
    body:
      body === undefined ? new Uint8Array(0) : body instanceof Uint8Array ? body : utf8(JSON.stringify(body))
  })

export const enrolment = (
  nowMs: number,
  by: NodeKeyRing = parties.device,
  changes: Partial<EnrolmentRequest> = {}
) => {
  const request: EnrolmentRequest = {
    type: "postern/enrolment/v1",
    device: by.id as DeviceId,
    name: null,
    signing_key: by.signingKey,
    recipient: by.recipient,
    server: parties.server.id as ServerId,
    root_digest: parties.trust.digest,
    incarnation: parties.incarnation,
    invitation: null,
    software: "postern/0.1.0",
    issued_at_ms: nowMs,
    ...changes
  }
  return { request, ...parties.signAs(by, "enrolment", request) }
}

export const admission = (
  nowMs: number,
  changes: Partial<Admission> = {},
  by: NodeKeyRing = parties.device
) => {
  const decision: Admission = {
    type: "postern/admission/v1",
    decision: "accept",
    device: by.id as DeviceId,
    name: "pi-cellar" as Name,
    signing_key: by.signingKey,
    recipient: by.recipient,
    server: parties.server.id as ServerId,
    incarnation: parties.incarnation,
    root_version: 1,
    sequence: 1,
    issued_at_ms: nowMs,
    ...changes
  }
  return { decision, ...parties.signAsOperator("admission", decision) }
}

/** The device's word of where it stands. */
export const statementOf = (
  changes: Partial<DeviceStatement> = {},
  by: NodeKeyRing = parties.device
): DsseEnvelope =>
  signDocument(
    engine,
    "device_statement",
    {
      type: "postern/device-statement/v1",
      device: by.id as DeviceId,
      incarnation: parties.incarnation,
      high_water: null,
      last_receipt: 0,
      key_version: 1,
      recipient: by.recipient,
      at_ms: parties.nowMs,
      ...changes
    } satisfies DeviceStatement,
    [{ keyId: by.id, seed: Redacted.value(by.signingSeed) }]
  ).envelope

/** Stands for a statement made just before its poll is sent. */
const madeWhenSent = statementOf()

export const pollBody = (changes: Partial<PollRequest> = {}): PollRequest => ({
  incarnation: parties.incarnation as Incarnation,
  life: "l".repeat(26) as LifeId,
  turn: 0,
  statement: madeWhenSent,
  root_version: 1,
  admission_sequence: 1,
  high_water: null,
  last_receipt: 0,
  degraded: [],
  free_lanes: ["job", "service"],
  active: [],
  cancels_seen: [],
  blocked: null,
  wait_ms: 0,
  ...changes
})

/** Sets the clock to the time at which the operators' documents were signed, and a bit. */
export const atWork = TestClock.setTime(parties.nowMs + 10_000)

export const registrarOf = (fleet: Fleet) => fleet.system.ref(RegistrarKey)

/** A fleet with the root published. */
export const rootedFleetWith = Effect.fnUntraced(function* (messaging: ServerMessaging | null) {
  yield* atWork
  const fleet = yield* startFleet(yield* makeDisk, messaging)
  yield* registrarOf(fleet).ask("PublishRoot", { envelope: parties.trust.envelope, actor: "alice" })
  return fleet
})

export const rootedFleet = rootedFleetWith(null)

/** Enrols and accepts a device. */
export const accept = Effect.fnUntraced(function* (
  fleet: Fleet,
  by: NodeKeyRing = parties.device,
  name = "pi-cellar"
) {
  const nowMs = yield* Clock.currentTimeMillis
  yield* send(fleet, "POST", "/enrolment", { body: enrolment(nowMs, by).envelope, by })
  const { envelope } = admission(nowMs, { name: name as Name }, by)
  yield* registrarOf(fleet).ask("Admit", { device: by.id as DeviceId, envelope, actor: "alice" })
})

/** A fleet with one accepted device. */
export const acceptedFleet = Effect.tap(rootedFleet, (fleet) => accept(fleet))

/** A payload of these bytes on the server, as an order refers to it. */
export const putPayload = Effect.fnUntraced(function* (fleet: Fleet, bytes: Uint8Array) {
  const digest: Digest = digestOf(engine, bytes)
  yield* fleet.blobs.write({ kind: "payload", digest }, 0, bytes.length, bytes)
  return { digest, size_bytes: bytes.length, unpacked_bytes: 100, entries: 2 }
})

/** Submits an order with the next counter, and its payload. */
export const submit = Effect.fnUntraced(function* (
  fleet: Fleet,
  counter: number,
  changes: Parameters<typeof parties.signedOrder>[1] = {}
) {
  const payload = yield* putPayload(fleet, utf8(`payload ${counter}`))
  const signed = parties.signedOrder(counter, { payload, ...changes })
  yield* fleet.system
    .refOf(DeviceKey, signed.order.device)
    .ask("Submit", { envelope: signed.envelope, actor: "alice" })
  return signed
})
