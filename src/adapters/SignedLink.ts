/**
 * The port `ServerLink` over a transport: every request signed, every answer verified, the server's addresses tried in
 * turn, a clock that is wrong put right once by the server's signed time.
 *
 * @module
 */
import { Duration, Effect, Layer, type Schema, type Scope, Stream } from "effect"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { Entropy } from "../ports/Entropy.ts"
import {
  type Answer,
  type LinkError,
  type PayloadWay,
  ServerLink,
  ServerRefused,
  type ServerTrust,
  ServerUnreachable,
  ServerUntrusted
} from "../ports/ServerLink.ts"
import {
  Acknowledged,
  BlockAnswer,
  DeviceApiErrorBody,
  deviceApiPath,
  EnrolmentAnswer,
  PollAnswer,
  ReceiptAcknowledgement,
  RootChain
} from "../schemas/DeviceApi.ts"
import { ServerIdentity } from "../schemas/Enrolment.ts"
import type { Digest } from "../schemas/Ids.ts"
import { MessagingOffer, mqttPath } from "../schemas/MessagingOffer.ts"
import { isOnionOrigin } from "../schemas/Onion.ts"
import { firstBytes } from "./http/FirstBytes.ts"
import { encodeJson, jsonType, octetsType } from "./http/Json.ts"
import {
  inTurn,
  makeServerAddresses,
  type Progress,
  type Purpose,
  type ServerAddresses
} from "./http/ServerAddresses.ts"
import {
  type Ask,
  decodeAnswer,
  type ExchangeTools,
  plainExchange,
  retryAfterMs,
  type SignedAnswer,
  signedExchange
} from "./http/SignedExchange.ts"
import type { Transport } from "./http/Transport.ts"
import { NodeKeys } from "./NodeKeys.ts"

export interface SignedLinkOptions {
  readonly transport: Transport
  /** Origins from the invitation or the configuration: asked while no root names others, and after those. At least one. */
  readonly addresses: ReadonlyArray<string>
  /** Origins for newcomers: asked first for identity, roots and enrolment until there is an acceptance; never for more. */
  readonly enrolAddresses?: ReadonlyArray<string>
  /** Whether an origin is reached through Tor. Default: onion addresses are. */
  readonly isTunnelled?: (origin: string) => boolean
  /** How long the head of an ordinary answer may take. Default 30 s; a held poll gets what it waits on top. */
  readonly responseTimeoutMs?: number
  /** How long a whole call may take, all addresses and bodies included. Default 2 min (downloads have their own bounds). */
  readonly callTimeoutMs?: number
}

const defaultResponseTimeoutMs = 30_000
const defaultCallTimeoutMs = 120_000
/** An upload may take a second for so many bytes before the server's answer counts as late. */
const slowestUploadBytes = 8_000
/** A signed request for patience is honoured up to this. */
const longestRetryAfterMs = 3_600_000
const noBody = new Uint8Array(0)

/** Signs with a time the server accepts, and verifies what the statement alone cannot show. */
const makeSigned = (tools: ExchangeTools, way: ServerAddresses, clock: DeviceClock["Service"]) => {
  let skewMs = 0

  const once = Effect.fnUntraced(function* (
    trust: ServerTrust,
    origin: string,
    ask: Ask,
    createdSeconds: number
  ) {
    const answer = yield* signedExchange(tools, trust, origin, ask, createdSeconds)
    const fallen = way.fallenRoot(answer.statement.root_version)
    return fallen === null ? answer : yield* new ServerUntrusted({ address: origin, reason: fallen })
  })

  const refusalIn = Effect.fnUntraced(function* (origin: string, answer: SignedAnswer) {
    if (answer.statement.status >= 200 && answer.statement.status < 300) return null
    const { error, message } = yield* decodeAnswer(origin, DeviceApiErrorBody, answer.body)
    return new ServerRefused({
      code: error,
      message,
      retryAfterMs: retryAfterMs(answer.headers["retry-after"], longestRetryAfterMs)
    })
  })

  const exchange = Effect.fnUntraced(function* (trust: ServerTrust, origin: string, ask: Ask) {
    const nowMs = yield* clock.nowMs
    const first = yield* once(trust, origin, ask, Math.floor((nowMs + skewMs) / 1000))
    const refusal = yield* refusalIn(origin, first)
    if (refusal === null) return first
    if (refusal.code !== "clock_skew") return yield* refusal
    const serverMs = first.statement.at_ms
    yield* clock.accept(serverMs)
    // The clock never goes back; where it is ahead of the server's, requests must be dated earlier than it says.
    skewMs = serverMs - (yield* clock.nowMs)
    const second = yield* once(trust, origin, ask, Math.ceil(serverMs / 1000))
    const again = yield* refusalIn(origin, second)
    return again === null ? second : yield* again
  })

  return (
    ask: Ask,
    purpose: Purpose,
    progress?: Progress
  ): Effect.Effect<SignedAnswer & { readonly origin: string }, LinkError, Scope.Scope> =>
    Effect.suspend(() => {
      const trust = way.trust()
      return trust === null
        ? Effect.fail(new ServerUntrusted({ address: "(none)", reason: "no trust root is known yet" }))
        : inTurn(
            way,
            purpose,
            (origin, connectTimeoutMs) =>
              Effect.map(exchange(trust, origin, { ...ask, connectTimeoutMs }), (answer) => ({
                ...answer,
                origin
              })),
            progress
          )
    })
}

/** Ends a call in time. The address it had come to counts as one that failed, so that the next call comes further. */
const within = <A>(
  way: ServerAddresses,
  timeoutMs: number,
  call: (progress: Progress) => Effect.Effect<A, LinkError, Scope.Scope>
): Effect.Effect<A, LinkError> =>
  Effect.suspend(() => {
    const progress: Progress = { origin: undefined }
    return call(progress).pipe(
      Effect.scoped,
      Effect.timeoutOrElse({
        duration: Duration.millis(timeoutMs),
        orElse: () => {
          if (progress.origin !== undefined) way.failed(progress.origin)
          const reason = `the call was not done within ${timeoutMs} ms`
          return Effect.fail(new ServerUnreachable({ address: progress.origin ?? "(none)", reason }))
        }
      })
    )
  })

/** What all asks have in common. */
const baseAsk = (responseTimeoutMs: number): Omit<Ask, "method" | "path"> => ({
  query: "",
  contentType: octetsType,
  body: noBody,
  rangeStart: 0,
  responseTimeoutMs,
  streamed: null
})

/** A call with a whole answer; an upload may take as long as its size needs on top. */
const makeCall =
  (
    signed: ReturnType<typeof makeSigned>,
    way: ServerAddresses,
    base: Omit<Ask, "method" | "path">,
    callTimeoutMs: number
  ) =>
  <A>(
    ask: Partial<Ask> & Pick<Ask, "method" | "path">,
    schema: Schema.Codec<A, unknown>,
    purpose: Purpose = "work"
  ): Effect.Effect<Answer<A> & { readonly origin: string }, LinkError> => {
    const allowed = { ...base, ...ask }
    const uploadMs = Math.floor(allowed.body.length / slowestUploadBytes) * 1_000
    const responseTimeoutMs = allowed.responseTimeoutMs + uploadMs
    const whole = { ...allowed, path: `${deviceApiPath}${ask.path}`, responseTimeoutMs }
    return within(way, callTimeoutMs + responseTimeoutMs - base.responseTimeoutMs, (progress) =>
      Effect.gen(function* () {
        const { body, origin, statement } = yield* signed(whole, purpose, progress)
        const decoded = yield* decodeAnswer(origin, schema, body)
        const { at_ms: serverTimeMs, root_version: rootVersion } = statement
        return { body: decoded, serverTimeMs, rootVersion, origin }
      })
    )
  }

/** The kinds of call the endpoints are made of. */
const makeCalls = (
  tools: ExchangeTools,
  way: ServerAddresses,
  clock: DeviceClock["Service"],
  options: SignedLinkOptions
) => {
  const signed = makeSigned(tools, way, clock)
  const responseTimeoutMs = options.responseTimeoutMs ?? defaultResponseTimeoutMs
  const callTimeoutMs = options.callTimeoutMs ?? defaultCallTimeoutMs
  const base = baseAsk(responseTimeoutMs)
  const callAt = makeCall(signed, way, base, callTimeoutMs)
  const call = <A>(...of: Parameters<typeof callAt<A>>): Effect.Effect<Answer<A>, LinkError> =>
    Effect.map(callAt<A>(...of), ({ origin: _, ...answer }) => answer)

  return {
    /** With the address that answered. */
    get: <A>(path: string, schema: Schema.Codec<A, unknown>) => callAt({ method: "GET", path }, schema),
    put: <A>(path: string, query: string, body: Uint8Array, schema: Schema.Codec<A, unknown>) =>
      call({ method: "PUT", path, query, body }, schema),
    /** `waitMs`: how long the server may hold the request before it answers. */
    post: <A>(
      path: string,
      value: unknown,
      schema: Schema.Codec<A, unknown>,
      { purpose = "work" as Purpose, waitMs = 0 } = {}
    ) => {
      const body = encodeJson(value)
      const patience = responseTimeoutMs + waitMs
      const ask = { method: "POST", path, contentType: jsonType, body, responseTimeoutMs: patience } as const
      return call(ask, schema, purpose)
    },
    plain: <A>(path: string, query: string, schema: Schema.Codec<A, unknown>, purpose: Purpose) =>
      within(way, callTimeoutMs, (progress) => {
        const ask = { path: `${deviceApiPath}${path}`, query, responseTimeoutMs }
        return inTurn(
          way,
          purpose,
          (origin, connectTimeoutMs) => plainExchange(tools, origin, { ...ask, connectTimeoutMs }, schema),
          progress
        )
      }),
    download: (path: string, rangeStart: number, streamed: Digest, { until, circuit }: PayloadWay) => {
      const ask: Ask = {
        ...base,
        method: "GET",
        path: `${deviceApiPath}${path}`,
        rangeStart,
        streamed,
        circuit
      }
      return Stream.unwrap(
        Effect.map(signed(ask, "work"), ({ stream }) => {
          if (stream === null) return Stream.empty
          return until === undefined ? stream : firstBytes(stream, until - rangeStart)
        })
      )
    }
  }
}

/** The offer as it reads to whoever asked at `origin`. */
const offerFrom = (origin: string, offer: MessagingOffer): MessagingOffer => ({
  ...offer,
  brokers: offer.brokers.map((broker) =>
    broker.url === mqttPath ? { ...broker, url: `${origin.replace(/^http/, "ws")}${mqttPath}` } : broker
  )
})

const makeLink = (
  tools: ExchangeTools,
  clock: DeviceClock["Service"],
  options: SignedLinkOptions
): ServerLink["Service"] => {
  const way = makeServerAddresses(options.addresses, options.enrolAddresses ?? [])
  const { download, get, plain, post, put } = makeCalls(tools, way, clock, options)
  return {
    identity: Effect.sync(way.turn).pipe(
      Effect.andThen(plain("/identity", "", ServerIdentity, "enrolment")),
      Effect.tap((identity) => Effect.sync(() => way.narrow(identity.enrol_addresses ?? [])))
    ),
    roots: (from) => plain("/roots", `?from=${from}`, RootChain, "roots"),
    trust: (trust) => Effect.sync(() => way.setTrust(trust)),
    enrol: (request) =>
      Effect.tap(post("/enrolment", request, EnrolmentAnswer, { purpose: "enrolment" }), ({ body }) =>
        Effect.sync(() => way.setAccepted(body.status === "accepted"))
      ),
    poll: (request) =>
      Effect.tap(post("/poll", request, PollAnswer, { waitMs: request.wait_ms }), () =>
        Effect.sync(() => way.setAccepted(true))
      ),
    payload: (digest, offset, way = {}) => download(`/payloads/${digest}`, offset, digest, way),
    hasCircuits: Effect.sync(() => {
      const [first] = way.addresses("work")
      return first !== undefined && (options.isTunnelled ?? isOnionOrigin)(first)
    }),
    progress: (report) => post("/progress", report, Acknowledged),
    output: (order, sequence, chunk) => put(`/orders/${order}/output/${sequence}`, "", chunk, Acknowledged),
    artifacts: (order, offset, totalBytes, block) =>
      put(`/orders/${order}/artifacts`, `?offset=${offset}&total=${totalBytes}`, block, BlockAnswer),
    receipts: (delivery) => post("/receipts", delivery, ReceiptAcknowledgement),
    health: (report) => post("/health", report, Acknowledged),
    messaging: Effect.map(get("/messaging", MessagingOffer), ({ origin, ...answer }) => ({
      ...answer,
      body: offerFrom(origin, answer.body)
    }))
  }
}

/** The link. Its trust is what it is told in this life; actors set it anew after a restart. */
export const SignedLink = (
  options: SignedLinkOptions
): Layer.Layer<ServerLink, never, NodeKeys | CryptoEngine | Entropy | DeviceClock> =>
  Layer.effect(
    ServerLink,
    Effect.gen(function* () {
      const tools = {
        engine: yield* CryptoEngine,
        entropy: yield* Entropy,
        keys: yield* NodeKeys,
        transport: options.transport
      }
      return makeLink(tools, yield* DeviceClock, options)
    })
  )
