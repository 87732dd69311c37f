/**
 * Where the HTTP doors hand over connections that ask for MQTT over WebSocket. The broker takes them for as long as it is
 * open; it may come and go while the doors stay.
 */
import type { IncomingMessage } from "node:http"
import type { Duplex } from "node:stream"

/** Answers the handshake and takes the socket. */
export type UpgradeTaker = (request: IncomingMessage, socket: Duplex, head: Buffer) => void

export class MqttUpgrades {
  private taker: UpgradeTaker | undefined = undefined

  /** The broker's side; gives the way to be handed nothing more. */
  open(taker: UpgradeTaker): () => void {
    this.taker = taker
    return () => {
      if (this.taker === taker) this.taker = undefined
    }
  }

  /** A door's side; false while there is no broker, and nothing was done to the socket. */
  readonly hand = (request: IncomingMessage, socket: Duplex, head: Buffer): boolean => {
    this.taker?.(request, socket, head)
    return this.taker !== undefined
  }
}
