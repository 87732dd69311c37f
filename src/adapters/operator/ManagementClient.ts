/**
 * The operator's line to a server: a typed client of the management API. Every way in which a call can fail becomes one
 * error that says what happened, at which address, and what to do.
 *
 * @module
 */
import { Context, Duration, Effect, Layer, Redacted, Result, Schema, type Scope } from "effect"
import { FetchHttpClient, HttpClient, HttpClientError, HttpClientRequest } from "effect/http"
import { HttpApiClient, HttpApiMiddleware } from "effect/http-api"
import { deviceApiPath } from "../../schemas/DeviceApi.ts"
import { ServerIdentity } from "../../schemas/Enrolment.ts"
import {
  Authorization,
  Conflict,
  Forbidden,
  ManagementApi,
  NotFound,
  Refused,
  Unauthorized,
  Unavailable
} from "../../schemas/ManagementApi.ts"
import { BadRequest, Gone, StorageFull, TooManyRequests } from "../../schemas/ManagementErrors.ts"
import { isOnionOrigin } from "../../schemas/Onion.ts"
import type { UpstreamProxy } from "../../schemas/TorSettings.ts"
import { httpTransport } from "../HttpTransport.ts"
import { proxyRoutes } from "../net/Routes.ts"
import { fetchOver } from "./RoutedFetch.ts"

/** A call to the server did not do what it should. `code` names the broken rule of a conflict. */
export class ServerProblem extends Schema.TaggedError<ServerProblem>()("ServerProblem", {
  kind: Schema.Literals([
    "unreachable",
    "unauthorized",
    "forbidden",
    "not_found",
    "gone",
    "conflict",
    "refused",
    "unavailable",
    "unexpected"
  ]),
  code: Schema.NullOr(Conflict.fields.code),
  address: Schema.String,
  message: Schema.String
}) {}

type Client = HttpApiClient.ForApi<typeof ManagementApi>

export class ManagementClient extends Context.Service<
  ManagementClient,
  {
    readonly address: string
    /**
     * One call; `what` names it in errors ("list the devices"). Ends within `timeoutMs` (default {@link callTimeoutMs}).
     */
    readonly call: <A, E>(
      what: string,
      use: (client: Client) => Effect.Effect<A, E>,
      timeoutMs?: number
    ) => Effect.Effect<A, ServerProblem>
  }
>()("postern/adapters/operator/ManagementClient") {}

/** How long a call may take that the server does not hold open. */
export const callTimeoutMs = 60_000

/** The largest answer taken: a page of a thousand jobs, each with its signed order and receipt, fits. */
const answerBytes = 64 * 1024 * 1024

/** How often a question is asked again that came at a bad moment, and the longest wait before. */
const patientAttempts = 3
const patientMs = 10_000

/** Asks again where the server asks for patience; only what changes nothing, since the rest has its own ways. */
const patient =
  (ask: typeof fetch): typeof fetch =>
  async (input, init) => {
    for (let attempt = 1; ; attempt++) {
      const response = await ask(input, { ...init, redirect: "error" })
      const seconds = Number(response.headers.get("retry-after") ?? Number.NaN)
      const isPatience = [429, 503].includes(response.status) && (init?.method ?? "GET") === "GET"
      if (!isPatience || !(seconds * 1_000 <= patientMs) || attempt === patientAttempts) return response
      await response.body?.cancel()
      await new Promise((resolve) => setTimeout(resolve, seconds * 1_000))
      init?.signal?.throwIfAborted()
    }
  }

/** `fetch` that reads no more than that, and follows nobody to another address with the token. */
const bounded =
  (ask: typeof fetch): typeof fetch =>
  async (input, init) => {
    const response = await ask(input, init)
    if (response.body === null) return response
    let seenBytes = 0
    const bound = new TransformStream<Uint8Array, Uint8Array>({
      transform: (chunk, controller) => {
        seenBytes += chunk.length
        if (seenBytes <= answerBytes) controller.enqueue(chunk)
        else controller.error(new Error(`the answer is larger than ${answerBytes} bytes`))
      }
    })
    return new Response(response.body.pipeThrough(bound), response)
  }

/** Which server, and by which way. */
export interface ManagementWay {
  readonly address: string
  /** What every request has to go through, such as a Tor on this machine; null: nothing. */
  readonly proxy: UpstreamProxy | null
}

/** Behind a proxy a first connection takes longer, through Tor much longer. */
const proxyPatienceMs = 60_000

const patienceMs = ({ proxy }: ManagementWay, timeoutMs: number): number =>
  proxy === null ? timeoutMs : timeoutMs + proxyPatienceMs

/** Onion addresses go by our own transport in any case: without a proxy it refuses them, and looks nothing up. */
const fetchBy = ({ address, proxy }: ManagementWay): Effect.Effect<typeof fetch, never, Scope.Scope> =>
  proxy === null && !isOnionOrigin(address)
    ? Effect.succeed(fetch)
    : Effect.map(httpTransport({ routes: proxyRoutes(proxy) }), fetchOver)

const httpBy = (way: ManagementWay) =>
  FetchHttpClient.layer.pipe(
    Layer.provide(
      Layer.effect(
        FetchHttpClient.Fetch,
        Effect.map(fetchBy(way), (ask) => bounded(patient(ask)))
      )
    )
  )

const conflictAdvice: Record<typeof Conflict.Type.code, string> = {
  sequence_taken: "Somebody else submitted for this device meanwhile; submit again.",
  id_taken: "Another order has this id; submit again.",
  name_taken: "Choose another name.",
  unknown_device: "The server knows no such accepted device; see `postern devices list`.",
  payload_missing: "The server does not have the whole payload; submit again.",
  payload_conflict: "What the server has is not the beginning of this payload; submit again.",
  stale_admission: "A newer decision about this device is on the server; see `postern devices show`.",
  root_conflict:
    "The server holds another trust root of this version. It belongs to somebody else, or was set up anew.",
  finished: "The job has ended already; see `postern jobs show`.",
  in_rollout: "See `postern rollouts list`; wait for that one, or abort it.",
  rollout_ended: "See `postern rollouts show`.",
  stale_control: "Somebody else steered it meanwhile; see `postern rollouts show`, and decide again.",
  not_paused: "See `postern rollouts show`.",
  too_many_rollouts: "End one first; see `postern rollouts list`.",
  too_many_controls: "Abort it: postern rollouts abort.",
  no_root: "The server has no trust root yet; run `postern keys init`.",
  root_expired: "Make it last longer first: postern keys renew.",
  operator_revoked: "Somebody whose key is in the newest root must do it; see `postern keys root show`."
}

/** The innermost reason of a failed connection, as Node names it (`ECONNREFUSED` …). */
const innermost = (cause: unknown): string => {
  let current = cause
  for (let depth = 0; depth < 8 && current instanceof Error; depth++) {
    if (current instanceof AggregateError && current.errors.length > 0) current = current.errors[0]
    else if (current.cause instanceof Error) current = current.cause
    else return current.message
  }
  return String(current)
}

const isUnauthorized = Schema.is(Unauthorized)
const isForbidden = Schema.is(Forbidden)
const isNotFound = Schema.is(NotFound)
const isConflict = Schema.is(Conflict)
const isRefused = Schema.is(Refused)
const isUnavailable = Schema.is(Unavailable)
const isBadRequest = Schema.is(BadRequest)
const isGone = Schema.is(Gone)
const isStorageFull = Schema.is(StorageFull)
const isTooMany = Schema.is(TooManyRequests)

/** Turns whatever a call failed with into a {@link ServerProblem}. */
export const toProblem = (address: string, what: string, error: unknown): ServerProblem => {
  const make = (kind: ServerProblem["kind"], message: string, code: ServerProblem["code"] = null) =>
    new ServerProblem({ kind, code, address, message: `Could not ${what}: ${message}` })
  if (error instanceof ServerProblem) return error
  if (isUnauthorized(error)) {
    return make(
      "unauthorized",
      `${address} does not accept the token. Log in again: postern login --server ${address} (it says: ${error.message})`
    )
  }
  if (isForbidden(error))
    return make("forbidden", `the token's role does not allow it (${error.message}). Use another token`)
  if (isNotFound(error)) return make("not_found", `${address} knows no such thing (${error.message})`)
  if (isConflict(error))
    return make("conflict", `${error.message}. ${conflictAdvice[error.code]}`, error.code)
  if (isGone(error)) {
    const day = new Date(error.pruned_at_ms).toISOString().slice(0, 10)
    return make("gone", `${error.message} (${address} dropped it on ${day}). ${error.help}`)
  }
  if (isStorageFull(error)) return make("unavailable", `${error.message}. ${error.help}`)
  if (isTooMany(error)) {
    return make(
      "unavailable",
      `${error.message}. Try again in ${error.retry_after_seconds} s, and ask less often`
    )
  }
  if (isBadRequest(error)) return make("unexpected", `${address} does not understand it (${error.message})`)
  if (isRefused(error)) return make("refused", `${address} refused it: ${error.message}`)
  if (isUnavailable(error))
    return make("unavailable", `${address} cannot at the moment (${error.message}). Try again later`)
  if (HttpClientError.isHttpClientError(error)) {
    if (error.reason._tag === "TransportError") {
      const reason = innermost(error.reason.cause)
      return make(
        "unreachable",
        `${address} was not reached (${reason}). Is the server running, and is the address right?`
      )
    }
    const status = "response" in error.reason ? ` (HTTP ${error.reason.response.status})` : ""
    return make(
      "unexpected",
      `${address} answered with something else${status}. Is it a Postern server of this version?`
    )
  }
  if (Schema.isSchemaError(error)) {
    return make(
      "unexpected",
      `the answer of ${address} has another shape. Is it a Postern server of this version?`
    )
  }
  return make("unexpected", innermost(error))
}

const timedOut = (address: string, what: string, timeoutMs: number): ServerProblem =>
  new ServerProblem({
    kind: "unreachable",
    code: null,
    address,
    message: `Could not ${what}: ${address} gave no answer within ${timeoutMs / 1000} s. Try again later`
  })

/** A client for one server, with the API token sent as `Authorization: Bearer`. */
export const managementClient = (
  options: ManagementWay & { readonly token: Redacted.Redacted }
): Layer.Layer<ManagementClient> => {
  const { address, token } = options
  const authorization = HttpApiMiddleware.layerClient(Authorization, ({ next, request }) =>
    next(HttpClientRequest.bearerToken(request, Redacted.value(token)))
  )
  const client = Effect.map(HttpApiClient.make(ManagementApi, { baseUrl: address }), (made) => ({
    address,
    call: <A, E>(what: string, use: (client: Client) => Effect.Effect<A, E>, timeoutMs = callTimeoutMs) =>
      use(made).pipe(
        Effect.mapError((error) => toProblem(address, what, error)),
        Effect.timeoutOrElse({
          duration: Duration.millis(patienceMs(options, timeoutMs)),
          orElse: () => Effect.fail(timedOut(address, what, patienceMs(options, timeoutMs)))
        })
      )
  }))
  return Layer.effect(ManagementClient, client).pipe(Layer.provide([authorization, httpBy(options)]))
}

const decodeIdentity = Schema.decodeUnknownResult(Schema.fromJsonString(ServerIdentity))

/** Whom the address claims to be, unsigned: what `keys init` shows to be compared with what the server printed. */
export const fetchServerIdentity = (way: ManagementWay): Effect.Effect<ServerIdentity, ServerProblem> => {
  const { address } = way
  return Effect.gen(function* () {
    const client = yield* HttpClient.HttpClient
    const response = yield* client.get(`${address}${deviceApiPath}/identity`)
    const text = yield* response.text
    const decoded = decodeIdentity(text)
    if (response.status === 200 && Result.isSuccess(decoded)) return decoded.success
    return yield* new ServerProblem({
      kind: "unexpected",
      code: null,
      address,
      message: `Could not ask for the server's identity: ${address} answered with something else (HTTP ${response.status}). Is it a Postern server?`
    })
  }).pipe(
    Effect.mapError((error) => toProblem(address, "ask for the server's identity", error)),
    Effect.timeoutOrElse({
      duration: Duration.millis(patienceMs(way, callTimeoutMs)),
      orElse: () =>
        Effect.fail(timedOut(address, "ask for the server's identity", patienceMs(way, callTimeoutMs)))
    }),
    Effect.provide(httpBy(way))
  )
}
