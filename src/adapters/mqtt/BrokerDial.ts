/**
 * Streams to an MQTT broker: TCP, TLS or a WebSocket (RFC 6455, subprotocol `mqtt`), over connections that others open. `ws`
 * is loaded when it is first needed.
 *
 * @module
 */
import type { Duplex } from "node:stream"
import { Effect, type Scope } from "effect"
import { MessageLimits } from "../../schemas/Message.ts"
import { errorText } from "../files/AtomicFile.ts"
import type { Connections, Destination } from "../net/Connections.ts"
import { RouteError } from "../net/RouteError.ts"

/** Where a broker is: `mqtt://`, `mqtts://`, `ws://` or `wss://`. */
export interface BrokerPlace {
  readonly url: string
  /** Certificates (PEM) that vouch for it; null: those that Node trusts. */
  readonly ca: string | null
}

const ports: Readonly<Record<string, number>> = { "mqtt:": 1883, "mqtts:": 8883, "ws:": 80, "wss:": 443 }
/** Several packets may come in one message. */
const messageBytes = 4 * MessageLimits.wireBytes
const handshakeMs = 30_000

const parse = (text: string): URL | undefined => {
  const url = URL.parse(text)
  return url !== null && url.protocol in ports ? url : undefined
}

const destinationOf = ({ hostname, port, protocol }: URL, ca: string | null): Destination => ({
  host: hostname.replace(/^\[|\]$/g, ""),
  port: port === "" ? (ports[protocol] as number) : Number(port),
  tls: protocol === "mqtts:" || protocol === "wss:" ? { ca } : null
})

/** A WebSocket's handshake on a connection that stands. */
const webSocketOn = (url: URL, socket: Duplex): Effect.Effect<Duplex, RouteError, Scope.Scope> =>
  Effect.gen(function* () {
    const { createWebSocketStream, WebSocket } = yield* Effect.promise(() => import("ws"))
    const web = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const made = new WebSocket(url, ["mqtt"], {
          createConnection: () => socket,
          perMessageDeflate: false,
          maxPayload: messageBytes,
          handshakeTimeout: handshakeMs,
          followRedirects: false
        })
        // Without a listener an error would end the program; the stream tells of it too.
        made.on("error", () => undefined)
        return made
      }),
      (made) => Effect.sync(() => made.terminate())
    )
    yield* Effect.callback<void, RouteError>((resume) => {
      web.once("open", () => resume(Effect.void))
      web.once("unexpected-response", (_request, { statusCode }) => {
        const why = statusCode === 503 ? "it has no MQTT broker at the moment" : "it takes no WebSocket there"
        resume(Effect.fail(new RouteError(`${why} (${statusCode})`)))
      })
      web.once("error", (error) => resume(Effect.fail(new RouteError(errorText(error)))))
    })
    const stream = createWebSocketStream(web)
    stream.on("error", () => undefined)
    // Of itself it would only end: whoever writes to it would not hear that the connection is gone.
    web.once("close", () => stream.destroy())
    return stream
  })

/** Opens a stream to a broker, which ends with the scope. */
export const dialBroker = (
  connections: Connections,
  { ca, url: text }: BrokerPlace
): Effect.Effect<Duplex, { readonly message: string }, Scope.Scope> =>
  Effect.gen(function* () {
    const url = parse(text)
    if (url === undefined)
      return yield* Effect.fail(new RouteError("what it was named by is no URL of a broker"))
    const socket = yield* connections.open(destinationOf(url, ca))
    return url.protocol.startsWith("ws") ? yield* webSocketOn(url, socket) : socket
  }).pipe(Effect.mapError(({ message }) => ({ message: `${text}: ${message}` })))
