/**
 * Carries one request to an origin and its answer back. Production puts `node:http` under it, a simulation the server's
 * own handler.
 *
 * @module
 */
import { Effect, Schema, type Scope, Stream } from "effect"
import { RouteFailure } from "../../schemas/RouteFailure.ts"
import type { ApiHandler, ApiRequest, ApiResponse } from "./Exchange.ts"

/** No answer, or only a part of one: not reached, refused, too slow, cut off, or not HTTP. */
export class TransportError extends Schema.TaggedError<TransportError>()("TransportError", {
  reason: Schema.String,
  /** Whether a kept connection turned out to be closed: worth one more try at once. */
  stale: Schema.Boolean,
  /** What failed on the way there, where Tor or a proxy tells. */
  code: Schema.optionalKey(RouteFailure)
}) {}

export interface TransportRequest extends ApiRequest {
  /** Scheme, host and port, as in {@link ApiRequest.authority}; no path. */
  readonly origin: string
  /** How long the answer's head may take to come. */
  readonly responseTimeoutMs: number
  /** How long the connection may take to stand, where that is less than the transport's own limit. */
  readonly connectTimeoutMs?: number
  /** Isolation tag: through Tor, requests with the same tag share a circuit, and a new tag takes a fresh one. */
  readonly circuit?: string
}

export interface TransportResponse {
  readonly status: number
  /** By lower-case name. */
  readonly headers: Readonly<Record<string, string>>
  /** To be read once, within the scope of the request. */
  readonly body: Stream.Stream<Uint8Array, TransportError>
}

export interface Transport {
  /** Closing the scope gives the connection back, or cuts it when the body was not read to its end. Follows no redirect. */
  readonly send: (request: TransportRequest) => Effect.Effect<TransportResponse, TransportError, Scope.Scope>
}

const bodyStream = (body: ApiResponse["body"]): TransportResponse["body"] =>
  body instanceof Uint8Array
    ? Stream.make(body)
    : Stream.mapError(
        body.bytes,
        () => new TransportError({ reason: "the connection was cut", stale: false })
      )

/**
 * A transport that hands requests to handlers in the same process; `reach` gives the one behind an origin, undefined
 * where nobody listens. For simulation and tests.
 */
export const handlerTransport = (reach: (origin: string) => ApiHandler | undefined): Transport => ({
  send: (request) =>
    Effect.suspend(() => {
      const { origin, responseTimeoutMs, ...rest } = request
      const handler = reach(origin)
      if (handler === undefined) {
        return Effect.fail(new TransportError({ reason: "nobody listens there", stale: false }))
      }
      return handler(rest).pipe(
        Effect.timeoutOrElse({
          duration: responseTimeoutMs,
          orElse: () =>
            Effect.fail(
              new TransportError({ reason: `no answer within ${responseTimeoutMs} ms`, stale: false })
            )
        }),
        Effect.map(({ body, headers, status }) => ({ status, headers, body: bodyStream(body) }))
      )
    })
})
