/**
 * A request and its answer as plain data: what a gateway hands to an API, what a simulated network carries between
 * client and server. No sockets here.
 */
import type { Effect, Stream } from "effect"

export interface ApiRequest {
  /** In upper case. */
  readonly method: string
  /** The Host header: lower-case host, and port where one was given. */
  readonly authority: string
  /** As sent, without query. */
  readonly path: string
  /** As sent with its question mark; empty where there is none. */
  readonly query: string
  /** By lower-case name; one sent twice is joined by a comma. */
  readonly headers: Readonly<Record<string, string | undefined>>
  readonly body: Uint8Array
  /** Set by a gateway that did not read the body, since it is larger than the path takes. */
  readonly oversize?: boolean
}

/** A body that is not held in memory: exactly `lengthBytes` come. A failure cuts the connection. */
export interface StreamedBody {
  readonly lengthBytes: number
  readonly bytes: Stream.Stream<Uint8Array, unknown>
}

export interface ApiResponse {
  readonly status: number
  /** By lower-case name. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: Uint8Array | StreamedBody
}

/** An API: never fails, every refusal is an answer. Interrupting it withdraws what waits. */
export type ApiHandler = (request: ApiRequest) => Effect.Effect<ApiResponse>
