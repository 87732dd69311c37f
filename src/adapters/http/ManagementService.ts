/** The management API as an effect over bytes, with its OpenAPI description at /openapi.json. */
import { Deferred, Effect, Layer } from "effect"
import { HttpEffect, HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { ManagementApi } from "../../schemas/ManagementApi.ts"
import type { ApiHandler, ApiRequest, ApiResponse } from "./Exchange.ts"
import { AuthorizationByToken } from "./ManagementAccess.ts"
import { DeviceHandlers, JobHandlers, type ManagementOptions, ServerHandlers } from "./ManagementHandlers.ts"

export const openApiPath = "/openapi.json"

const routes = (options: ManagementOptions) =>
  HttpApiBuilder.layer(ManagementApi, { openapiPath: openApiPath }).pipe(
    Layer.provide([ServerHandlers(options), DeviceHandlers(options), JobHandlers(options)]),
    Layer.provide(AuthorizationByToken),
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

/** Builds the API; what it acquires is released with the scope. */
export const makeManagementApi = (options: ManagementOptions) =>
  Effect.map(HttpRouter.toHttpEffect(routes(options)), (app) => {
    const handle: ApiHandler = (request) =>
      Effect.gen(function* () {
        const sent = yield* Deferred.make<HttpServerResponse.HttpServerResponse>()
        const handled = HttpEffect.toHandled(app, (_request, response) => Deferred.succeed(sent, response))
        yield* Effect.provideService(
          handled,
          HttpServerRequest.HttpServerRequest,
          HttpServerRequest.fromWeb(toWeb(request))
        )
        const response = yield* Deferred.await(sent)
        const withoutBody = request.method === "HEAD"
        return yield* Effect.promise(() => fromWeb(HttpServerResponse.toWeb(response, { withoutBody })))
      })
    return handle
  })
