/**
 * A port or socket on the wire: APIs behind one `node:http` server, as an actor's behaviour. The listener belongs to the
 * actor's life, so a restart opens it again. Everything is bounded: header and body sizes, time for each,
 * requests in work, bytes in work, idle connections.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http"
import { Clock, Deferred, Duration, Effect, Exit, Fiber } from "effect"
import { type ActorSystem, Behaviour } from "../../kernel/index.ts"
import { deviceApiPath } from "../../schemas/DeviceApi.ts"
import { Limits } from "../../schemas/Limits.ts"
import { managementApiPath } from "../../schemas/ManagementApi.ts"
import { GatewayProtocol } from "../../schemas/protocols/Gateway.ts"
import { retryAfterSeconds } from "./DeviceRefusal.ts"
import { maximumBodyBytes, routeOf } from "./DeviceRoutes.ts"
import type { ApiHandler, ApiRequest, ApiResponse } from "./Exchange.ts"
import { encodeJson, jsonType } from "./Json.ts"
import { type ListenAt, listen } from "./Listening.ts"
import { headOf, makeRoom, type Room, readBody, send } from "./NodeExchange.ts"
import { type RequestFigures, routeLabel } from "./RequestFigures.ts"
import { type UpgradeOptions, Upgrades } from "./Upgrades.ts"

/** What is served; null is not there at all. */
export interface Apis {
  readonly device: ApiHandler | null
  /** Everything that is not the device API. */
  readonly management: ApiHandler | null
  /** Where no path needs the bodies that some usually do: the largest, in bytes. */
  readonly bodyBytes?: number
}

/** How the gateway's own life reaches other actors. */
export type Addresses = Pick<ActorSystem, "ref" | "refOf">

export interface GatewayOptions<E, R> {
  /** Of port 0 a restart takes the same again that was taken before. */
  readonly at: ListenAt
  readonly maximumRequests: number
  /** Builds the APIs of one life. `stopping` resolves when the port is about to close. */
  readonly apis: (context: Addresses, stopping: Effect.Effect<void>) => Effect.Effect<Apis, E, R>
  /** What is handed over to another protocol; nothing by default. */
  readonly upgrade?: UpgradeOptions | undefined
  /** Told each time the port is open. */
  readonly listening: (address: string) => Effect.Effect<void>
  /** Where requests are counted; nowhere by default. */
  readonly figures?: RequestFigures | undefined
  /** Whether each request is a span of a trace. */
  readonly spans?: boolean
}

/** A refusal of the port itself, in the shape that the management API's have. */
const problem = (
  status: number,
  [tag, code]: readonly [string, string],
  message: string,
  help: string,
  headers: Record<string, string> = {}
): ApiResponse => ({
  status,
  headers: { "content-type": jsonType, ...headers },
  body: encodeJson({ _tag: tag, code, message, help })
})

const busy = problem(
  503,
  ["Unavailable", "overloaded"],
  "the server has too much to do",
  "Nothing was changed: try again after the seconds in Retry-After.",
  { "retry-after": String(retryAfterSeconds) }
)
const failed = problem(
  500,
  ["Unavailable", "internal"],
  "the server failed at this request",
  "Look for the request's id in the server's log: it stands in x-request-id."
)
const tooLarge = problem(
  413,
  ["TooLarge", "too_large"],
  "the body is larger than this path takes",
  "Send large payloads in blocks."
)

const absent = problem(
  404,
  ["NotFound", "no_such_path"],
  "nothing of the kind is served here",
  "Another address of this server may serve it."
)

const handlerOf = (apis: Apis, head: Pick<ApiRequest, "path">): ApiHandler | null =>
  head.path.startsWith(deviceApiPath) ? apis.device : apis.management

const bodyLimit = (apis: Apis, head: Omit<ApiRequest, "body">): number =>
  handlerOf(apis, head) === null ? 0 : Math.min(limitOfPath(head), apis.bodyBytes ?? Limits.blockBytes)

const limitOfPath = (head: Omit<ApiRequest, "body">): number => {
  if (head.path.startsWith(deviceApiPath)) {
    const route = routeOf(head)
    return route === undefined ? 0 : maximumBodyBytes(route)
  }
  return head.path.startsWith(`${managementApiPath}/payloads/`) ? Limits.blockBytes : Limits.requestBodyBytes
}

/** Counted in place of a status where the asker was gone before there was an answer. */
const goneAway = 499

/** How the requests of one open port are watched. */
interface Watch {
  readonly figures: RequestFigures | undefined
  readonly spans: boolean
  /** Begins the ids of this life's requests. */
  readonly life: string
}

/** The requests in work of one open port. */
class Requests {
  private readonly fibers = new Set<Fiber.Fiber<void>>()
  private inWork = 0
  private emptied: (() => void) | undefined = undefined
  private readonly room: Room = makeRoom(Limits.bodiesInWorkBytes)
  private readonly maximum: number
  private readonly apis: Apis
  private readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  private readonly watch: Watch
  private count = 0

  constructor(
    maximum: number,
    apis: Apis,
    fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>,
    watch: Watch
  ) {
    this.maximum = maximum
    this.apis = apis
    this.fork = fork
    this.watch = watch
  }

  readonly now = () => ({
    inWork: this.inWork,
    bodyBytes: Limits.bodiesInWorkBytes - this.room.freeBytes()
  })

  readonly listener = (incoming: IncomingMessage, outgoing: ServerResponse): void => {
    outgoing.on("error", () => outgoing.destroy())
    if (this.inWork >= this.maximum) {
      this.watch.figures?.rejected()
      this.start(outgoing, send(outgoing, busy, true), 0)
      return
    }
    this.inWork++
    const head = headOf(incoming)
    readBody(incoming, bodyLimit(this.apis, head), this.room, (body, held) => {
      if (body === "cut_off") this.finish(held)
      else if (body === "no_room") this.start(outgoing, send(outgoing, busy, true), held, true)
      else if (body === "too_large")
        this.start(outgoing, this.answer(outgoing, head, new Uint8Array(0), true), held, true)
      else this.start(outgoing, this.answer(outgoing, head, body, false), held, true)
    })
  }

  private answer(
    outgoing: ServerResponse,
    head: Omit<ApiRequest, "body">,
    body: Uint8Array,
    oversize: boolean
  ): Effect.Effect<void> {
    const handle = handlerOf(this.apis, head)
    if (handle === null) return this.watched(head, outgoing, send(outgoing, absent, oversize))
    if (oversize && !head.path.startsWith(deviceApiPath)) return send(outgoing, tooLarge, true)
    return this.watched(
      head,
      outgoing,
      handle(oversize ? { ...head, body, oversize } : { ...head, body }).pipe(
        Effect.catchCause((cause) => Effect.as(Effect.logError("a request failed", cause), failed)),
        // A body left unread stands in the way of the next request on this connection.
        Effect.flatMap((response) => send(outgoing, response, oversize))
      )
    )
  }

  /** Puts the request's id into what is logged meanwhile, counts it, and makes it a span where that is wanted. */
  private watched(
    head: Omit<ApiRequest, "body">,
    outgoing: ServerResponse,
    answering: Effect.Effect<void>
  ): Effect.Effect<void> {
    const { figures, life, spans } = this.watch
    const id = `${life}-${(this.count++).toString(36)}`
    outgoing.setHeader("x-request-id", id)
    const named = Effect.annotateLogs(answering, "request", id)
    const startedMs = performance.now()
    const counted =
      figures === undefined
        ? named
        : Effect.ensuring(
            named,
            Effect.sync(() =>
              figures.answered(
                head,
                outgoing.headersSent ? outgoing.statusCode : goneAway,
                (performance.now() - startedMs) / 1_000
              )
            )
          )
    if (!spans) return counted
    const { api, route } = routeLabel(head)
    return Effect.withSpan(counted, `${api} ${route}`, {
      kind: "server",
      attributes: { "http.request.method": head.method, "http.route": route, "postern.request": id }
    })
  }

  /** Runs the answering; when the other side goes away, it is interrupted. */
  private start(
    outgoing: ServerResponse,
    effect: Effect.Effect<void>,
    heldBytes: number,
    counted = false
  ): void {
    const fiber = this.fork(effect)
    this.fibers.add(fiber)
    const gone = () => {
      if (!outgoing.writableFinished) fiber.interruptUnsafe()
    }
    outgoing.on("close", gone)
    fiber.addObserver(() => {
      outgoing.off("close", gone)
      this.fibers.delete(fiber)
      if (counted) this.finish(heldBytes)
    })
  }

  private finish(heldBytes: number): void {
    this.room.give(heldBytes)
    this.inWork--
    if (this.inWork === 0) this.emptied?.()
  }

  /** Waits until nothing is in work. */
  readonly drained: Effect.Effect<void> = Effect.callback((resume) => {
    if (this.inWork === 0) return resume(Effect.void)
    this.emptied = () => resume(Effect.void)
  })

  readonly interruptAll: Effect.Effect<void> = Effect.suspend(() => Fiber.interruptAll(this.fibers))
}

const spareConnections = 256

const openServer = (requests: Requests, maximumRequests: number, maximumUpgrades: number): Server => {
  const server = createServer(
    {
      maxHeaderSize: Limits.requestHeaderBytes,
      headersTimeout: Limits.requestHeadersMs,
      requestTimeout: Limits.requestMs,
      connectionsCheckingInterval: 1_000,
      keepAliveTimeout: Limits.connectionIdleMs,
      noDelay: true
    },
    requests.listener
  )
  server.timeout = Limits.connectionIdleMs
  server.maxHeadersCount = 100
  // Some more than requests, so that those beyond can still be told to come later.
  server.maxConnections = maximumRequests + maximumUpgrades + spareConnections
  return server
}

/** Hands over what asks for another protocol, where the port has one. */
const openUpgrades = (
  server: Server,
  requests: Requests,
  { figures, upgrade }: Pick<GatewayOptions<never, never>, "figures" | "upgrade">
): Upgrades | null => {
  if (upgrade === undefined) return null
  const upgrades = new Upgrades(upgrade, requests.listener, (incoming, status) =>
    figures?.answered(headOf(incoming), status, 0)
  )
  server.on("upgrade", upgrades.listener)
  return upgrades
}

/** Stops listening, lets what is in work end for a moment, then cuts the rest off. */
const closeServer = (
  server: Server,
  requests: Requests,
  upgrades: Upgrades | null,
  stopping: Deferred.Deferred<void>
): Effect.Effect<void> =>
  Effect.gen(function* () {
    const closed = yield* Deferred.make<void>()
    server.close(() => Deferred.doneUnsafe(closed, Effect.void))
    yield* Deferred.succeed(stopping, undefined)
    server.closeIdleConnections()
    yield* Effect.timeoutOption(requests.drained, Duration.millis(Limits.drainMs))
    yield* requests.interruptAll
    server.closeAllConnections()
    upgrades?.closeAll()
    yield* Deferred.await(closed)
  })

/** Waits for the end of a listener that nobody asked to end, and says why it came. */
const listenerLost = (server: Server): Effect.Effect<string> =>
  Effect.callback((resume) => {
    server.on("error", (error) => resume(Effect.succeed(error.message)))
    server.on("close", () => resume(Effect.succeed("the listener was closed")))
  })

export const httpGateway = <E, R>(options: GatewayOptions<E, R>) => {
  /** With the port of an earlier life, so that a restart does not move the server. */
  let at = options.at
  return Behaviour.make(GatewayProtocol, (context) =>
    Effect.gen(function* () {
      const stopping = yield* Deferred.make<void>()
      const apis = yield* options.apis(context, Deferred.await(stopping))
      const services = yield* Effect.context<never>()
      const life = (yield* Clock.currentTimeMillis).toString(36)
      const watch = { figures: options.figures, spans: options.spans ?? false, life }
      const requests = new Requests(options.maximumRequests, apis, Effect.runForkWith(services), watch)
      const server = openServer(requests, options.maximumRequests, options.upgrade?.maximum ?? 0)
      const upgrades = openUpgrades(server, requests, options)
      yield* Effect.addFinalizer(() => closeServer(server, requests, upgrades, stopping))
      const origin = yield* listen(server, at)
      if (!("path" in at)) at = { ...at, port: Number(new URL(origin).port || 80) }
      const { figures } = options
      if (figures !== undefined)
        yield* Effect.acquireRelease(
          Effect.sync(() => figures.watch(requests.now)),
          (forget) => Effect.sync(forget)
        )
      server.on("clientError", (_error, socket) => {
        if (socket.writable) socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        else socket.destroy()
      })
      yield* options.listening(origin)
      yield* context.startTask(listenerLost(server), (exit) => [
        "Lost",
        { reason: Exit.isSuccess(exit) ? exit.value : "it was interrupted" }
      ])
      return context.handlers({
        Address: () => Effect.succeed(origin),
        Lost: ({ payload }) =>
          Effect.andThen(Effect.logError(`the port is lost: ${payload.reason}`), context.stopSelf)
      })
    })
  )
}
