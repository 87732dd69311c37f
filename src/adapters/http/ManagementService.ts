/** The management API as an effect over bytes, with its OpenAPI description at /openapi.json. */
import { Deferred, Effect, Exit, Layer } from "effect"
import { HttpEffect, HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { ManagementApi, managementApiPath } from "../../schemas/ManagementApi.ts"
import { conditional } from "./Conditional.ts"
import { retryAfterSeconds } from "./DeviceRefusal.ts"
import type { ApiHandler, ApiRequest, ApiResponse } from "./Exchange.ts"
import { encodeJson, jsonType } from "./Json.ts"
import { AuthorizationByToken } from "./ManagementAccess.ts"
import { DeviceHandlers, JobHandlers, type ManagementOptions } from "./ManagementHandlers.ts"
import { MessagingHandlers } from "./MessagingHandlers.ts"
import { RolloutHandlers } from "./RolloutHandlers.ts"
import { ServerHandlers } from "./ServerHandlers.ts"

export const openApiPath = "/openapi.json"

const routes = (options: ManagementOptions) =>
  HttpApiBuilder.layer(ManagementApi, { openapiPath: openApiPath }).pipe(
    Layer.provide([
      ServerHandlers(options),
      DeviceHandlers(options),
      JobHandlers(options),
      RolloutHandlers(options),
      MessagingHandlers(options)
    ]),
    Layer.provide(AuthorizationByToken(options.requestsPerMinute)),
    Layer.provide(HttpServer.layerServices)
  )

const toWeb = ({ authority, body, headers, method, path, query }: ApiRequest): Request => {
  const given = Object.entries(headers).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, value] as [string, string]]
  )
  const hasBody = method !== "GET" && method !== "HEAD"
  return new Request(`http://${authority}${path}${query}`, {
    method,
    headers: given,
    ...(hasBody ? { body: body.slice() } : {})
  })
}

const fromWeb = async (response: Response): Promise<ApiResponse> => ({
  status: response.status,
  headers: Object.fromEntries(response.headers),
  body: new Uint8Array(await response.arrayBuffer())
})

/** Where scrapers look for figures. */
const metricsPath = "/metrics"

/** Paths that are another name of one below the API's own. */
const aliased = (request: ApiRequest): ApiRequest =>
  request.path === metricsPath ? { ...request, path: `${managementApiPath}${metricsPath}` } : request

/** What the platform refuses by itself says nothing; it gets the words that all other refusals have. */
const spoken = ({ method, path }: ApiRequest, response: ApiResponse): ApiResponse => {
  const { body, headers, status } = response
  if (status < 400 || (body instanceof Uint8Array && body.length > 0)) return response
  const [tag, code, message] =
    status === 404
      ? ["NotFound", "no_such_path", `there is no ${method} ${path.slice(0, 200)}`]
      : status < 500
        ? ["BadRequest", "bad_request", "the request is not what this path takes"]
        : ["Unavailable", "internal", "the server failed at this request"]
  const help =
    status < 500
      ? "Compare the request with the description at /openapi.json."
      : "Look into the server's log."
  return {
    status,
    headers: { ...headers, "content-type": jsonType },
    body: encodeJson({ _tag: tag, code, message, help })
  }
}

/** How long to wait before asking again, where waiting helps. */
const patient = (response: ApiResponse): ApiResponse => {
  const { body, headers, status } = response
  if (status !== 429 && status !== 503) return response
  const said =
    status === 429 && body instanceof Uint8Array
      ? /"retry_after_seconds":([0-9]+)/.exec(new TextDecoder().decode(body))?.[1]
      : undefined
  return { ...response, headers: { ...headers, "retry-after": said ?? String(retryAfterSeconds) } }
}

/** Requests whose answers differ each time, or are no news worth a tag. */
const isLive = (path: string): boolean => /[/](?:status|actors|metrics)$/.test(path)

/** Builds the API; what it acquires is released with the scope. */
export const makeManagementApi = (options: ManagementOptions) =>
  Effect.map(HttpRouter.toHttpEffect(routes(options)), (app) => {
    const handle: ApiHandler = (asked) =>
      Effect.gen(function* () {
        const request = aliased(asked)
        const sent = yield* Deferred.make<HttpServerResponse.HttpServerResponse>()
        const handled = HttpEffect.toHandled(app, (_request, response) => Deferred.succeed(sent, response))
        const ended = yield* Effect.exit(
          Effect.provideService(
            handled,
            HttpServerRequest.HttpServerRequest,
            HttpServerRequest.fromWeb(toWeb(request))
          )
        )
        // A path that is not there is answered and fails as well.
        if (Exit.isFailure(ended) && !(yield* Deferred.isDone(sent)))
          return yield* Effect.orDie(Effect.failCause(ended.cause))
        const response = yield* Deferred.await(sent)
        const withoutBody = request.method === "HEAD"
        const answer = yield* Effect.promise(() =>
          fromWeb(HttpServerResponse.toWeb(response, { withoutBody }))
        )
        const finished = patient(spoken(request, answer))
        return isLive(request.path) ? finished : conditional(request, finished)
      })
    return handle
  })
