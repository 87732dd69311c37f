/**
 * The transport over `node:http` and `node:https`, by the route that each origin has: kept connections, a time limit on
 * each stage, bounded heads, no redirects followed.
 *
 * @module
 */
import { type ClientRequest, request as httpRequest, type IncomingMessage } from "node:http"
import { request as httpsRequest } from "node:https"
import type { Socket } from "node:net"
import { Effect, type Scope, Stream } from "effect"
import { errorCode, errorText } from "./files/AtomicFile.ts"
import {
  type Transport,
  TransportError,
  type TransportRequest,
  type TransportResponse
} from "./http/Transport.ts"
import { hedgesMs } from "./net/Dial.ts"
import { type Line, type LineRequest, type Lines, makeLines, type OpenRoute } from "./net/Lines.ts"
import { RouteError } from "./net/RouteError.ts"
import { proxyRoutes, type Routes } from "./net/Routes.ts"

export interface HttpTransportOptions {
  /** By which way each origin is reached. Default: directly, and onion addresses not at all. */
  readonly routes?: Routes
  /** Until a direct connection (and TLS) stands. Default 15 s. */
  readonly connectTimeoutMs?: number
  /** The same behind a proxy. Default 30 s. */
  readonly proxyTimeoutMs?: number
  /** The same through Tor, where several circuits are tried within it. Default 60 s. */
  readonly torTimeoutMs?: number
  /** After which silences through Tor a second and a third circuit are tried beside. Default: {@link hedgesMs}. */
  readonly hedgesMs?: ReadonlyArray<number>
  /** The longest silence within a body. Default 30 s. */
  readonly idleTimeoutMs?: number
  /** Connections to one origin at once. Default 8. */
  readonly connections?: number
}

const defaults = {
  connectTimeoutMs: 15_000,
  proxyTimeoutMs: 30_000,
  torTimeoutMs: 60_000,
  hedgesMs,
  idleTimeoutMs: 30_000,
  connections: 8
}
const headBytes = 32 * 1024

type Limits = Required<Omit<HttpTransportOptions, "routes">>

/** How long a connection by this route may take to stand. */
const connectLimitMs = (limits: Limits, { _tag }: OpenRoute, request: TransportRequest): number => {
  const own = { Direct: limits.connectTimeoutMs, Upstream: limits.proxyTimeoutMs, Tor: limits.torTimeoutMs }
  return Math.min(own[_tag], request.connectTimeoutMs ?? Number.POSITIVE_INFINITY)
}

const problems: Readonly<Record<string, string>> = {
  ENOTFOUND: "its name is not known",
  EAI_AGAIN: "its name could not be looked up",
  ECONNREFUSED: "nobody listens there",
  ECONNRESET: "the connection was cut",
  EHOSTUNREACH: "there is no way to that host",
  ENETUNREACH: "there is no network",
  ETIMEDOUT: "nothing was heard of it any more",
  HPE_HEADER_OVERFLOW: `the head of its answer is longer than ${headBytes} bytes`
}

const problemOf = (error: unknown): string => {
  const code = errorCode(error) ?? ""
  if (problems[code] !== undefined) return problems[code]
  if (code.startsWith("HPE_")) return `what answers does not speak HTTP (${errorText(error)})`
  // Several addresses behind one name failed together: the error's own text is empty then.
  const parts = error instanceof AggregateError ? error.errors.map(errorText).join("; ") : errorText(error)
  return parts === "" ? code : parts
}

/** One timer at a time: each stage replaces the last one's. */
const stopwatch = (late: (reason: string) => void) => {
  let timer: NodeJS.Timeout | undefined
  return {
    start: (timeoutMs: number, what: string): void => {
      clearTimeout(timer)
      timer = setTimeout(() => late(`${what} within ${timeoutMs} ms`), timeoutMs)
    },
    stop: (): void => clearTimeout(timer)
  }
}

const headersOf = (message: IncomingMessage): Record<string, string> => {
  const headers: Record<string, string> = {}
  for (const [name, value] of Object.entries(message.headers)) {
    if (value !== undefined) headers[name] = typeof value === "string" ? value : value.join(", ")
  }
  return headers
}

/** The body's pieces; silence longer than allowed cuts the connection, and a cut is an error. */
async function* pieces(message: IncomingMessage, idleTimeoutMs: number) {
  const watch = stopwatch((reason) => message.destroy(new Error(reason)))
  try {
    watch.start(idleTimeoutMs, "nothing more of its answer came")
    for await (const piece of message as AsyncIterable<Buffer>) {
      watch.stop()
      yield new Uint8Array(piece.buffer, piece.byteOffset, piece.byteLength)
      watch.start(idleTimeoutMs, "nothing more of its answer came")
    }
    if (!message.complete) throw new Error("the answer was cut off")
  } finally {
    watch.stop()
  }
}

const transportError = (error: unknown, stale = false): TransportError => {
  const code = error instanceof RouteError ? error.failure : undefined
  return new TransportError({ reason: problemOf(error), stale, ...(code === undefined ? {} : { code }) })
}

/** An answer's head, and the means to say that its connection is no good. */
interface Answered {
  readonly message: IncomingMessage
  readonly failed: () => void
}

const bodyOf = ({ failed, message }: Answered, idleTimeoutMs: number): TransportResponse["body"] =>
  Stream.fromAsyncIterable(pieces(message, idleTimeoutMs), (error) => {
    failed()
    return transportError(error)
  })

const startRequest = (
  lines: Lines,
  line: Line,
  abort: AbortSignal,
  { authority, body, headers, method, origin, path, query }: TransportRequest
): ClientRequest => {
  const url = new URL(origin)
  const isTls = url.protocol === "https:"
  const options: LineRequest = {
    line,
    abort,
    agent: isTls ? lines.https : lines.http,
    hostname: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port === "" ? (isTls ? 443 : 80) : Number(url.port),
    method,
    path: `${path}${query}`,
    headers: { ...headers, host: authority, "content-length": String(body.length) },
    maxHeaderSize: headBytes,
    joinDuplicateHeaders: true
  }
  return (isTls ? httpsRequest : httpRequest)(options)
}

/** Starts the connect stage's clock, and the answer's once the connection stands. */
const watchSocket = (
  socket: Socket,
  watch: ReturnType<typeof stopwatch>,
  connectMs: number,
  request: TransportRequest
): void => {
  const answer = (): void => watch.start(request.responseTimeoutMs, "no answer came")
  if (!socket.connecting) return answer()
  watch.start(connectMs, "no connection stood")
  socket.once(request.origin.startsWith("https:") ? "secureConnect" : "connect", answer)
}

const send = (
  lines: Lines,
  line: Line,
  limits: Limits,
  request: TransportRequest
): Effect.Effect<Answered, TransportError> =>
  Effect.callback<Answered, TransportError>((resume) => {
    const giveUp = new AbortController()
    const sending = startRequest(lines, line, giveUp.signal, request)
    let taken: Socket | null = null
    const failed = (): void => {
      if (line.route._tag === "Tor") lines.failed(line, taken)
    }
    const end = (error: Error): void => {
      giveUp.abort(error)
      sending.destroy(error)
    }
    const connectMs = connectLimitMs(limits, line.route, request)
    const watch = stopwatch((reason) => end(new RouteError(reason)))
    // Looking up the name counts as connecting, and so does what a proxy is told.
    watch.start(connectMs, "no connection stood")
    sending.on("socket", (socket) => {
      taken = socket
      watchSocket(socket, watch, connectMs, request)
    })
    sending.on("response", (message) => {
      watch.stop()
      resume(Effect.succeed({ message, failed }))
    })
    sending.on("error", (error) => {
      watch.stop()
      const stale = sending.reusedSocket && ["ECONNRESET", "EPIPE"].includes(errorCode(error) ?? "")
      if (!stale) failed()
      resume(Effect.fail(transportError(error, stale)))
    })
    sending.end(request.body)
    return Effect.sync(() => {
      watch.stop()
      end(new RouteError("nobody waits for it any more"))
    })
  })

/** The line to an origin, with a permit for one connection on it as long as the scope is open. */
const takeLine = Effect.fnUntraced(function* (
  lines: Lines,
  routes: Routes,
  limits: Limits,
  request: TransportRequest
) {
  const route = yield* routes.to(request.origin)
  if (route._tag === "Refused") {
    if (route.failure === "tunnel_not_ready") lines.leaveTor()
    return yield* new TransportError({ reason: route.reason, stale: false, code: route.failure })
  }
  const line = lines.take(request.origin, request.circuit, route)
  const connectMs = connectLimitMs(limits, route, request)
  yield* Effect.acquireRelease(
    Effect.sync(() => line.use(1)),
    () => Effect.sync(() => line.use(-1))
  )
  yield* Effect.acquireRelease(line.gate.take(1), () => line.gate.release(1), { interruptible: true }).pipe(
    Effect.timeoutOrElse({
      duration: connectMs,
      orElse: () =>
        Effect.fail(
          new TransportError({
            reason: `all ${limits.connections} connections to it were busy for ${connectMs} ms`,
            stale: false
          })
        )
    })
  )
  return line
})

/** Makes the transport; its kept connections close with the scope. */
export const httpTransport = (
  options: HttpTransportOptions = {}
): Effect.Effect<Transport, never, Scope.Scope> =>
  Effect.gen(function* () {
    const { routes = proxyRoutes(null), ...given } = options
    const limits = { ...defaults, ...given }
    const lines = yield* Effect.acquireRelease(
      Effect.sync(() => makeLines({ keepAlive: true, maxFreeSockets: 4, scheduling: "lifo" }, limits)),
      ({ close }) => Effect.sync(close)
    )
    return {
      send: (request) =>
        Effect.gen(function* () {
          const line = yield* takeLine(lines, routes, limits, request)
          const answered = yield* Effect.acquireRelease(
            send(lines, line, limits, request),
            ({ message }) =>
              Effect.sync(() => {
                // One read to its end has given its connection back already.
                if (!message.complete || !message.readableEnded) message.destroy()
              }),
            { interruptible: true }
          )
          const { message } = answered
          return {
            status: message.statusCode ?? 0,
            headers: headersOf(message),
            body: bodyOf(answered, limits.idleTimeoutMs)
          }
        })
    }
  })
