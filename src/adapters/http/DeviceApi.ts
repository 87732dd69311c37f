/**
 * The device API as an effect over bytes: proves who asks, lets the endpoint answer, and signs every answer to a signed
 * request, refusals included. No sockets: a gateway puts it on a port, a simulation on a virtual network.
 */
import { Clock, Effect, Option, Result } from "effect"
import { digestOf } from "../../crypto/Documents.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { FleetStore } from "../../ports/FleetStore.ts"
import { FleetTrust } from "../../ports/FleetTrust.ts"
import { Identity } from "../../ports/Identity.ts"
import type { DeviceApiErrorBody } from "../../schemas/DeviceApi.ts"
import { DsseEnvelope } from "../../schemas/Dsse.ts"
import type { ServerIdentity } from "../../schemas/Enrolment.ts"
import type { DeviceId, Digest, Nonce, ServerId } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import { type Statement, statementHeader } from "../../schemas/Statement.ts"
import { conditional } from "./Conditional.ts"
import { type Claim, claimOf, type DoorHosts, makeAuthentication } from "./DeviceAuthentication.ts"
import {
  type Answer,
  type DeviceEndpoints,
  type MessagingOfferOf,
  makeEndpoints,
  type Proven
} from "./DeviceEndpoints.ts"
import { type DeviceRefusal, refuse, refusing, retryAfterSeconds, statusOf } from "./DeviceRefusal.ts"
import { type DeviceRoute, maximumBodyBytes, routeOf } from "./DeviceRoutes.ts"
import type { ApiHandler, ApiRequest, ApiResponse } from "./Exchange.ts"
import { decodeJson, encodeJson, jsonType, octetsType } from "./Json.ts"
import type { ServerActors } from "./ServerActors.ts"
import type { UpgradeOptions } from "./Upgrades.ts"

export interface DeviceApiOptions {
  readonly actors: ServerActors
  /** Origins for the identity that operators take into the root; asked at each request, since port 0 is known late. */
  readonly addresses: () => ReadonlyArray<string>
  /** Those for enrolment alone; none by default. */
  readonly enrolAddresses?: ReadonlyArray<string>
  /** What the server says of messages between devices; null where it carries none. */
  readonly messaging?: ServerMessaging | null
  /** Where the API is served; by default whole, at the addresses that the root names. */
  readonly door?: {
    readonly hosts: DoorHosts
    /** What is served; the whole by default. */
    readonly routes?: ReadonlySet<DeviceRoute["name"]>
  }
  /** Resolves when the API is about to stop: held polls are then answered with what there is. */
  readonly stopping: Effect.Effect<void>
}

/** Messages between devices, as the API tells of them. */
export interface ServerMessaging {
  /** The server's word for the key of its broker services. */
  readonly services: DsseEnvelope
  /** How a device reaches the broker. */
  readonly offer: MessagingOfferOf
  /** Where a door hands MQTT over WebSocket over; null where the broker is another program. */
  readonly upgrade: UpgradeOptions | null
}

/** What says only who the server is. */
export const openRoutes: ReadonlySet<DeviceRoute["name"]> = new Set(["identity", "roots"])

/** What a device asks before it is accepted. */
export const newcomersRoutes: ReadonlySet<DeviceRoute["name"]> = new Set([...openRoutes, "enrolment"])

/** Requests of one device in work at once. */
const requestsPerDevice = 16

const jsonResponse = (status: number, value: unknown): ApiResponse => ({
  status,
  headers: { "content-type": jsonType },
  body: encodeJson(value)
})

const refusalResponse = (refusal: DeviceRefusal): ApiResponse => {
  const body: DeviceApiErrorBody = {
    error: refusal.code,
    message: refusal.message.replace(/\p{C}/gu, " ").slice(0, 500)
  }
  const response = jsonResponse(statusOf[refusal.code], body)
  return refusal.code === "overloaded"
    ? { ...response, headers: { ...response.headers, "retry-after": String(retryAfterSeconds) } }
    : response
}

const answerResponse = (answer: Answer): ApiResponse => {
  if (answer.kind === "json") return jsonResponse(200, answer.value)
  const { body, offset, sizeBytes } = answer
  const headers = { "content-type": octetsType, "accept-ranges": "bytes" }
  const last = offset + body.lengthBytes - 1
  return body.lengthBytes === sizeBytes
    ? { status: 200, headers, body }
    : {
        status: 206,
        headers: { ...headers, "content-range": `bytes ${offset}-${last}/${sizeBytes}` },
        body
      }
}

/** Signs answers. */
const makeSigning = Effect.gen(function* () {
  const engine = yield* CryptoEngine
  const identity = yield* Identity
  const trust = yield* FleetTrust
  return Effect.fnUntraced(function* (claim: Claim, response: ApiResponse, bodyDigest: Digest | null) {
    const statement: Statement = {
      type: "postern/statement/v1",
      server: identity.id as ServerId,
      device: claim.device,
      nonce: claim.request.nonce as Nonce,
      at_ms: yield* Clock.currentTimeMillis,
      status: response.status,
      body_digest: bodyDigest ?? digestOf(engine, response.body as Uint8Array),
      root_version: trust.current()?.root.version ?? null
    }
    const { envelope } = yield* identity.sign("statement", statement)
    return {
      ...response,
      headers: {
        ...response.headers,
        [statementHeader]: Buffer.from(encodeJson(envelope)).toString("base64")
      }
    }
  })
})

/** The request for a WebSocket came here as a plain one. */
const plainMqtt: DeviceApiErrorBody = {
  error: "bad_request",
  message:
    "MQTT is spoken here over WebSocket, and this request asked for none: what stands between must hand on Upgrade and Connection"
}
const noUpgrade: ApiResponse = {
  status: 426,
  headers: { "content-type": jsonType, upgrade: "websocket" },
  body: encodeJson(plainMqtt)
}

/** What anyone may ask, unsigned. */
const makeOpenRoutes = (options: DeviceApiOptions) =>
  Effect.gen(function* () {
    const identity = yield* Identity
    const store = yield* FleetStore
    const enrolAddresses = options.enrolAddresses ?? []
    const { services, upgrade = null } = options.messaging ?? {}
    return (route: DeviceRoute): Effect.Effect<ApiResponse, DeviceRefusal> | undefined => {
      if (route.name === "identity") {
        const body: ServerIdentity = {
          type: "postern/server-identity/v1",
          server: identity.id as ServerId,
          signing_key: identity.signingKey,
          recipient: identity.recipient,
          addresses: options.addresses(),
          ...(enrolAddresses.length > 0 ? { enrol_addresses: enrolAddresses } : {}),
          ...(services === undefined ? {} : { broker_services: services })
        }
        return Effect.succeed(jsonResponse(200, body))
      }
      if (route.name === "mqtt")
        return upgrade === null
          ? Effect.fail(refuse("no_messaging", "MQTT is not spoken here"))
          : Effect.succeed(noUpgrade)
      return route.name === "roots"
        ? refusing(Effect.map(store.roots(route.from, 16), (roots) => jsonResponse(200, { roots })))
        : undefined
    }
  })

const run = (
  endpoints: DeviceEndpoints,
  route: DeviceRoute,
  proven: Proven
): Effect.Effect<Answer, DeviceRefusal> => {
  switch (route.name) {
    case "payload":
      return endpoints.payload(proven.device, route.digest, route.offset, route.until)
    case "output":
      return endpoints.output(proven, route.order, route.sequence)
    case "artifacts":
      return endpoints.artifacts(proven, route.order, route.offset, route.totalBytes)
    case "identity":
    case "roots":
    case "mqtt":
      return Effect.fail(refuse("bad_request", "this is asked without a signature"))
    default:
      return endpoints[route.name](proven)
  }
}

/** Counts what each device has in work. */
const makeInFlight = () => {
  const counts = new Map<DeviceId, number>()
  return <A>(device: DeviceId, effect: Effect.Effect<A, DeviceRefusal>): Effect.Effect<A, DeviceRefusal> =>
    Effect.suspend(() => {
      const count = counts.get(device) ?? 0
      if (count >= requestsPerDevice) {
        return Effect.fail(refuse("overloaded", `the device has ${count} requests in work already`))
      }
      counts.set(device, count + 1)
      return Effect.ensuring(
        effect,
        Effect.sync(() => {
          const left = (counts.get(device) ?? 1) - 1
          if (left === 0) counts.delete(device)
          else counts.set(device, left)
        })
      )
    })
}

/** The enrolment document in a body, whose key is what the request is checked with. */
const enrolmentIn = (route: DeviceRoute, request: ApiRequest): Option.Option<unknown> => {
  if (route.name !== "enrolment") return Option.none()
  const decoded = decodeJson(DsseEnvelope, request.body, Limits.requestBodyBytes)
  return Option.some(Result.isSuccess(decoded) ? decoded.success : null)
}

export const makeDeviceApi = (options: DeviceApiOptions) =>
  Effect.gen(function* () {
    const identity = yield* Identity
    const trust = yield* FleetTrust
    const { hosts = { but: new Set<string>() }, routes } = options.door ?? {}
    const authenticate = yield* makeAuthentication(hosts)
    const endpoints = yield* makeEndpoints(options.actors, options.stopping, options.messaging?.offer ?? null)
    const open = yield* makeOpenRoutes(options)
    const sign = yield* makeSigning
    const counted = makeInFlight()

    const proceed = Effect.fnUntraced(function* (request: ApiRequest, route: DeviceRoute, claim: Claim) {
      if (request.oversize === true || request.body.length > maximumBodyBytes(route)) {
        return yield* refuse("too_large", `the body has more than ${maximumBodyBytes(route)} bytes`)
      }
      const root = trust.current()?.root ?? null
      yield* authenticate(request, claim, root, identity.id, enrolmentIn(route, request))
      if (root === null)
        return yield* refuse("no_root", "the server has no trust root yet: an operator must publish one")
      const proven = {
        device: claim.device,
        createdMs: claim.request.createdSeconds * 1_000,
        body: request.body
      }
      // Counted only now: a stranger must not use up a device's share.
      return yield* counted(claim.device, run(endpoints, route, proven))
    })

    const handle: ApiHandler = Effect.fnUntraced(function* (request: ApiRequest) {
      const asked = routeOf(request)
      const route = asked === undefined || routes?.has(asked.name) === false ? undefined : asked
      if (route === undefined) return refusalResponse(refuse("not_found", "the device API has no such path"))
      const unsigned = open(route)
      if (unsigned !== undefined)
        return yield* Effect.match(unsigned, {
          onFailure: refusalResponse,
          // The same for everybody, so that mirrors and proxies need not fetch it again.
          onSuccess: (response) => conditional(request, response)
        })
      const claim = claimOf(request)
      if (Result.isFailure(claim)) return refusalResponse(claim.failure)
      const result = yield* Effect.result(proceed(request, route, claim.success))
      if (Result.isFailure(result)) return yield* sign(claim.success, refusalResponse(result.failure), null)
      const answer = result.success
      return yield* sign(
        claim.success,
        answerResponse(answer),
        answer.kind === "payload" ? answer.digest : null
      )
    })
    return handle
  })
