/**
 * The transport over `node:http` and `node:https`: kept connections, a time limit on each stage, bounded heads, no
 * redirects followed.
 *
 * @module
 */
import {
  type ClientRequest,
  Agent as HttpAgent,
  request as httpRequest,
  type IncomingMessage
} from "node:http"
import { Agent as HttpsAgent, request as httpsRequest } from "node:https"
import type { Socket } from "node:net"
import { Effect, type Scope, Stream } from "effect"
import { errorCode, errorText } from "./files/AtomicFile.ts"
import {
  type Transport,
  TransportError,
  type TransportRequest,
  type TransportResponse
} from "./http/Transport.ts"

export interface HttpTransportOptions {
  /** Until the connection (and TLS) stands. Default 15 s. */
  readonly connectTimeoutMs?: number
  /** The longest silence within a body. Default 30 s. */
  readonly idleTimeoutMs?: number
  /** Connections to one origin at once. Default 8. */
  readonly connections?: number
}

const defaults = { connectTimeoutMs: 15_000, idleTimeoutMs: 30_000, connections: 8 }
const headBytes = 32 * 1024

type Limits = Required<HttpTransportOptions>

const problems: Readonly<Record<string, string>> = {
  ENOTFOUND: "its name is not known",
  EAI_AGAIN: "its name could not be looked up",
  ECONNREFUSED: "nobody listens there",
  ECONNRESET: "the connection was cut",
  EHOSTUNREACH: "there is no way to that host",
  ENETUNREACH: "there is no network",
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

const bodyOf = (message: IncomingMessage, idleTimeoutMs: number): TransportResponse["body"] =>
  Stream.fromAsyncIterable(
    pieces(message, idleTimeoutMs),
    (error) => new TransportError({ reason: problemOf(error), stale: false })
  )

interface Agents {
  readonly http: HttpAgent
  readonly https: HttpsAgent
}

const startRequest = (
  agents: Agents,
  { authority, body, headers, method, origin, path, query }: TransportRequest
): ClientRequest => {
  const url = new URL(origin)
  const isTls = url.protocol === "https:"
  return (isTls ? httpsRequest : httpRequest)({
    agent: isTls ? agents.https : agents.http,
    hostname: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port === "" ? undefined : Number(url.port),
    method,
    path: `${path}${query}`,
    headers: { ...headers, host: authority, "content-length": String(body.length) },
    maxHeaderSize: headBytes,
    joinDuplicateHeaders: true
  })
}

/** Starts the connect stage's clock, and the answer's once the connection stands. */
const watchSocket = (
  socket: Socket,
  watch: ReturnType<typeof stopwatch>,
  limits: Limits,
  request: TransportRequest
): void => {
  const answer = (): void => watch.start(request.responseTimeoutMs, "no answer came")
  if (!socket.connecting) return answer()
  watch.start(limits.connectTimeoutMs, "no connection stood")
  socket.once(request.origin.startsWith("https:") ? "secureConnect" : "connect", answer)
}

const send = (
  agents: Agents,
  limits: Limits,
  request: TransportRequest
): Effect.Effect<IncomingMessage, TransportError> =>
  Effect.callback<IncomingMessage, TransportError>((resume) => {
    const sending = startRequest(agents, request)
    const watch = stopwatch((reason) => sending.destroy(new Error(reason)))
    // Waiting for a free connection and looking up the name count as connecting.
    watch.start(limits.connectTimeoutMs, "no connection stood")
    sending.on("socket", (socket) => watchSocket(socket, watch, limits, request))
    sending.on("response", (message) => {
      watch.stop()
      resume(Effect.succeed(message))
    })
    sending.on("error", (error) => {
      watch.stop()
      const stale = sending.reusedSocket && ["ECONNRESET", "EPIPE"].includes(errorCode(error) ?? "")
      resume(Effect.fail(new TransportError({ reason: problemOf(error), stale })))
    })
    sending.end(request.body)
    return Effect.sync(() => {
      watch.stop()
      sending.destroy()
    })
  })

/** Makes the transport; its kept connections close with the scope. */
export const httpTransport = (
  options: HttpTransportOptions = {}
): Effect.Effect<Transport, never, Scope.Scope> =>
  Effect.gen(function* () {
    const limits = { ...defaults, ...options }
    const kept = {
      keepAlive: true,
      maxSockets: limits.connections,
      maxFreeSockets: 4,
      scheduling: "lifo" as const
    }
    const agents = yield* Effect.acquireRelease(
      Effect.sync(() => ({ http: new HttpAgent(kept), https: new HttpsAgent(kept) })),
      ({ http, https }) =>
        Effect.sync(() => {
          http.destroy()
          https.destroy()
        })
    )
    return {
      send: (request) =>
        Effect.acquireRelease(
          send(agents, limits, request),
          (message) =>
            Effect.sync(() => {
              // One read to its end has given its connection back already.
              if (!message.complete || !message.readableEnded) message.destroy()
            }),
          { interruptible: true }
        ).pipe(
          Effect.map((message) => ({
            status: message.statusCode ?? 0,
            headers: headersOf(message),
            body: bodyOf(message, limits.idleTimeoutMs)
          }))
        )
    }
  })
