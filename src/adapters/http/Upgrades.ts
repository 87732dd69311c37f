/**
 * Connections that ask one open port for another protocol. One that asks at the known path for a WebSocket is handed over,
 * where somebody takes it; all others are answered as if they had not asked, and closed.
 */
import { type IncomingMessage, ServerResponse, STATUS_CODES } from "node:http"
import type { Socket } from "node:net"
import type { Duplex } from "node:stream"
import { Limits } from "../../schemas/Limits.ts"
import { retryAfterSeconds } from "./DeviceRefusal.ts"
import { splitTarget } from "./NodeExchange.ts"

/** What a port hands over. */
export interface UpgradeOptions {
  readonly path: string
  /** So many at one time; more are told to come later. */
  readonly maximum: number
  /** Takes the socket; false where there is nobody at the moment, and nothing was done to it. */
  readonly take: (request: IncomingMessage, socket: Duplex, head: Buffer) => boolean
}

/** The answer to whoever cannot be taken now; it is made by hand, since Node's own has let go of the socket. */
const later = (message: string): string => {
  const body = JSON.stringify({ error: "overloaded", message })
  const lines = [
    `HTTP/1.1 503 ${STATUS_CODES[503]}`,
    "content-type: application/json",
    `content-length: ${body.length}`,
    `retry-after: ${retryAfterSeconds}`,
    "connection: close"
  ]
  return `${lines.join("\r\n")}\r\n\r\n${body}`
}

export class Upgrades {
  private readonly options: UpgradeOptions
  private readonly otherwise: (incoming: IncomingMessage, outgoing: ServerResponse) => void
  private readonly answered: (incoming: IncomingMessage, status: number) => void
  /** All that Node's server does not close by itself any more. */
  private readonly sockets = new Set<Duplex>()
  private taken = 0

  constructor(
    options: UpgradeOptions,
    /** Answers those that are not handed over. */
    otherwise: (incoming: IncomingMessage, outgoing: ServerResponse) => void,
    /** Told what became of the others. */
    answered: (incoming: IncomingMessage, status: number) => void
  ) {
    this.options = options
    this.otherwise = otherwise
    this.answered = answered
  }

  readonly listener = (incoming: IncomingMessage, socket: Duplex, head: Buffer): void => {
    this.sockets.add(socket)
    socket.once("close", () => this.sockets.delete(socket))
    socket.on("error", () => socket.destroy())
    const isAsked =
      incoming.method === "GET" &&
      splitTarget(incoming.url ?? "/").path === this.options.path &&
      incoming.headers.upgrade?.toLowerCase() === "websocket"
    if (!isAsked) return this.answerPlainly(incoming, socket as Socket)
    if (this.taken >= this.options.maximum) return this.refuse(incoming, socket, "too many are connected")
    this.taken++
    if (!this.options.take(incoming, socket, head)) {
      this.taken--
      return this.refuse(incoming, socket, "there is no MQTT broker at the moment")
    }
    socket.once("close", () => {
      this.taken--
    })
    this.answered(incoming, 101)
  }

  private refuse(incoming: IncomingMessage, socket: Duplex, message: string): void {
    this.answered(incoming, 503)
    socket.end(later(`${message}: try again later`))
  }

  private answerPlainly(incoming: IncomingMessage, socket: Socket): void {
    const outgoing = new ServerResponse(incoming)
    outgoing.shouldKeepAlive = false
    outgoing.assignSocket(socket)
    outgoing.on("finish", () => socket.end())
    socket.setTimeout(Limits.connectionIdleMs, () => socket.destroy())
    this.otherwise(incoming, outgoing)
  }

  closeAll(): void {
    for (const socket of this.sockets) socket.destroy()
  }
}
