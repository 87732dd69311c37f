/**
 * One signed request and its verified answer: the request carries a fresh nonce and the device's signature, the answer
 * a statement by the very server the root names, over that nonce, the status and the body.
 *
 * @module
 */
import { Effect, Redacted, Result, Schema, type Scope, Stream } from "effect"
import { encodeBase32 } from "../../crypto/Base32.ts"
import { decodeBase64 } from "../../crypto/Base64.ts"
import { concatBytes } from "../../crypto/Bytes.ts"
import { parseStrict } from "../../crypto/CanonicalJson.ts"
import { digestOf } from "../../crypto/Documents.ts"
import type { Engine } from "../../crypto/Engine.ts"
import { signRequest } from "../../crypto/RequestSignature.ts"
import { verifyStatement } from "../../crypto/Trust.ts"
import type { Entropy } from "../../ports/Entropy.ts"
import { type ServerTrust, ServerUnreachable, ServerUntrusted } from "../../ports/ServerLink.ts"
import type { DeviceId, Digest } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import { type Statement, statementHeader } from "../../schemas/Statement.ts"
import { software } from "../../schemas/Version.ts"
import type { NodeKeyRing } from "../NodeKeys.ts"
import type { Transport, TransportError, TransportResponse } from "./Transport.ts"

/** What is asked, before it is signed. */
export interface Ask {
  readonly method: "GET" | "POST" | "PUT"
  readonly path: string
  /** With its question mark, or empty. */
  readonly query: string
  readonly contentType: string
  readonly body: Uint8Array
  /** Where a download goes on. */
  readonly rangeStart: number
  /** Before which byte it is to end; its own end where it is absent. */
  readonly until?: number | undefined
  /** How long the answer's head may take. */
  readonly responseTimeoutMs: number
  /**
   * Digest that a successful answer's statement must name instead of the body's own: the body is then streamed, and
   * proved by whoever stores it.
   */
  readonly streamed: Digest | null
  /** How long its connection may take to stand, where that is less than the transport's own limit. */
  readonly connectTimeoutMs?: number
  /** Isolation tag of the circuit to take through Tor; the common one where it is absent. */
  readonly circuit?: string | undefined
}

/** A verified answer. `stream` is there for a streamed body only; `body` is empty then. */
export interface SignedAnswer {
  readonly statement: Statement
  readonly headers: Readonly<Record<string, string>>
  readonly body: Uint8Array
  readonly stream: Stream.Stream<Uint8Array, ServerUnreachable> | null
}

export interface ExchangeTools {
  readonly engine: Engine
  readonly entropy: Entropy["Service"]
  readonly keys: NodeKeyRing
  readonly transport: Transport
}

/** A statement is some 500 bytes; an envelope with all its signatures allowed is below this. */
const statementCharacters = 16 * 1024
const nonceBytes = 16

const unreachable = (origin: string) => (error: TransportError) =>
  new ServerUnreachable({
    address: origin,
    reason: error.reason,
    ...(error.code === undefined ? {} : { code: error.code })
  })

const untrusted = (origin: string, reason: string): ServerUntrusted =>
  new ServerUntrusted({ address: origin, reason })

/** Reads a body whole, up to the bound. */
export const collectBody = (
  origin: string,
  body: TransportResponse["body"]
): Effect.Effect<Uint8Array, ServerUnreachable | ServerUntrusted> => {
  const parts: Array<Uint8Array> = []
  let sizeBytes = 0
  return body.pipe(
    Stream.mapError(unreachable(origin)),
    Stream.runForEach((part) => {
      sizeBytes += part.length
      if (sizeBytes > Limits.responseBodyBytes) {
        return Effect.fail(untrusted(origin, `its answer is longer than ${Limits.responseBodyBytes} bytes`))
      }
      parts.push(part)
      return Effect.void
    }),
    Effect.map(() => concatBytes(...parts))
  )
}

/** Statuses that a proxy or an overloaded gateway answers by itself, without our server's word. */
const gatewayStatuses: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504])

/** An overloaded port answers without a signature; who else may be speaking can put us off no longer than this. */
const unsignedPatienceMs = 60_000

/** What a Retry-After header asks for, within a bound; null where it asks for nothing. */
export const retryAfterMs = (header: string | undefined, maximumMs: number): number | null =>
  header !== undefined && /^[0-9]{1,6}$/.test(header) ? Math.min(Number(header) * 1000, maximumMs) : null

const envelopeIn = (header: string | undefined): Result.Result<unknown, string> => {
  if (header === undefined) return Result.fail("its answer is not signed")
  const bytes = header.length > statementCharacters ? undefined : decodeBase64(header)
  if (bytes === undefined) return Result.fail("its answer's signature is not readable")
  return Result.mapError(
    parseStrict(bytes),
    (error) => `its answer's signature is not readable: ${error.message}`
  )
}

/** The statement over an answer, or why it is not believed. */
const verify = (
  tools: ExchangeTools,
  trust: ServerTrust,
  nonce: string,
  response: TransportResponse,
  bodyDigest: Digest
): Result.Result<Statement, string> => {
  const envelope = envelopeIn(response.headers[statementHeader])
  if (Result.isFailure(envelope)) return Result.fail(envelope.failure)
  const { engine, keys } = tools
  const expected = {
    server: trust.server,
    device: keys.id as DeviceId,
    nonce,
    status: response.status,
    bodyDigest
  }
  return Result.match(verifyStatement(engine, trust.root, envelope.success, expected), {
    onFailure: (error) => Result.fail(error.message),
    onSuccess: (verified) => Result.succeed(verified.document)
  })
}

const isSuccess = (status: number): boolean => status >= 200 && status < 300

/** Whether a streamed answer begins where it was asked to. */
const beginsAt = (response: TransportResponse, offset: number): boolean =>
  response.status === 206
    ? (response.headers["content-range"] ?? "").startsWith(`bytes ${offset}-`)
    : response.status === 200 && offset === 0

/** The Range header of a request; none for a whole body. */
const rangeHeader = ({ rangeStart, until }: Ask): { readonly range?: string } =>
  rangeStart === 0 && until === undefined
    ? {}
    : { range: `bytes=${rangeStart}-${until === undefined ? "" : until - 1}` }

const sign = Effect.fnUntraced(function* (
  tools: ExchangeTools,
  origin: string,
  ask: Ask,
  createdSeconds: number
) {
  const { engine, entropy, keys } = tools
  const nonce = encodeBase32(yield* entropy.bytes(nonceBytes))
  const authority = new URL(origin).host
  const { contentType, method, path, query } = ask
  const seed = Redacted.value(keys.signingSeed)
  const signed = signRequest(engine, { method, authority, path, query, contentType }, ask.body, {
    keyId: keys.id,
    seed,
    createdSeconds,
    nonce
  })
  return { nonce, authority, headers: { ...signed, ...rangeHeader(ask), "user-agent": software } }
})

/** What an ask says of its way, and no more. */
const wayOf = ({ circuit, connectTimeoutMs }: Pick<Ask, "circuit" | "connectTimeoutMs">) => ({
  ...(circuit === undefined ? {} : { circuit }),
  ...(connectTimeoutMs === undefined ? {} : { connectTimeoutMs })
})

/**
 * Signs, sends and verifies. What is not signed by our server is `ServerUntrusted`, unless it is plainly a gateway's own
 * refusal, which is `ServerUnreachable`. A signed refusal is an answer like any other: the caller looks at its status.
 */
export const signedExchange = Effect.fnUntraced(function* (
  tools: ExchangeTools,
  trust: ServerTrust,
  origin: string,
  ask: Ask,
  createdSeconds: number
): Effect.fn.Return<SignedAnswer, ServerUnreachable | ServerUntrusted, Scope.Scope> {
  const send = Effect.gen(function* () {
    const { authority, headers, nonce } = yield* sign(tools, origin, ask, createdSeconds)
    const { body, method, path, query, responseTimeoutMs } = ask
    const request = {
      origin,
      method,
      authority,
      path,
      query,
      headers,
      body,
      responseTimeoutMs,
      ...wayOf(ask)
    }
    return { nonce, response: yield* tools.transport.send(request) }
  })
  // Signed anew: whether the first one arrived is not known, and a nonce serves once.
  const { nonce, response } = yield* send.pipe(
    Effect.catchIf(
      (error) => error.stale,
      () => send
    ),
    Effect.mapError(unreachable(origin))
  )
  if (response.headers[statementHeader] === undefined && gatewayStatuses.has(response.status)) {
    const patienceMs = retryAfterMs(response.headers["retry-after"], unsignedPatienceMs)
    return yield* new ServerUnreachable({
      address: origin,
      reason: `a gateway answered ${response.status} for it`,
      ...(patienceMs === null ? {} : { retryAfterMs: patienceMs })
    })
  }
  const isStreamed = ask.streamed !== null && isSuccess(response.status)
  const received = isStreamed ? new Uint8Array(0) : yield* collectBody(origin, response.body)
  const bodyDigest = isStreamed ? ask.streamed : digestOf(tools.engine, received)
  const verified = verify(tools, trust, nonce, response, bodyDigest)
  if (Result.isFailure(verified)) return yield* untrusted(origin, verified.failure)
  if (isStreamed && !beginsAt(response, ask.rangeStart)) {
    return yield* untrusted(origin, `its answer does not begin at byte ${ask.rangeStart}`)
  }
  const stream = isStreamed ? Stream.mapError(response.body, unreachable(origin)) : null
  return { statement: verified.success, headers: response.headers, body: received, stream }
})

/** An unsigned question, whose answer proves itself or is only a claim. */
export const plainExchange = Effect.fnUntraced(function* <A>(
  tools: ExchangeTools,
  origin: string,
  ask: Pick<Ask, "path" | "query" | "responseTimeoutMs" | "connectTimeoutMs">,
  schema: Schema.Codec<A, unknown>
): Effect.fn.Return<A, ServerUnreachable | ServerUntrusted, Scope.Scope> {
  const authority = new URL(origin).host
  const { path, query, responseTimeoutMs } = ask
  const headers = { "user-agent": software }
  const body = new Uint8Array(0)
  const response = yield* tools.transport
    .send({ origin, method: "GET", authority, path, query, headers, body, responseTimeoutMs, ...wayOf(ask) })
    .pipe(Effect.mapError(unreachable(origin)))
  if (gatewayStatuses.has(response.status)) {
    return yield* new ServerUnreachable({ address: origin, reason: `it answered ${response.status}` })
  }
  const received = yield* collectBody(origin, response.body)
  if (response.status !== 200)
    return yield* untrusted(origin, `it answered ${response.status} where 200 was expected`)
  return yield* decodeAnswer(origin, schema, received)
})

/** An answer's JSON, strictly. */
export const decodeAnswer = <A>(
  origin: string,
  schema: Schema.Codec<A, unknown>,
  body: Uint8Array
): Effect.Effect<A, ServerUntrusted> => {
  const json = parseStrict(body, { maximumBytes: Limits.responseBodyBytes })
  if (Result.isFailure(json))
    return Effect.fail(untrusted(origin, `its answer is no JSON: ${json.failure.message}`))
  const decoded = Schema.decodeUnknownResult(schema, { onExcessProperty: "error" })(json.success)
  return Result.isSuccess(decoded)
    ? Effect.succeed(decoded.success)
    : Effect.fail(
        untrusted(origin, `its answer has not the expected shape: ${decoded.failure.message.slice(0, 300)}`)
      )
}
