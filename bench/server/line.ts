/**
 * A kept HTTP connection that sends bytes made before and reads no more of an answer than its status and its length:
 * whoever loads a server should cost little beside it.
 */
import { connect, type Socket } from "node:net"

const endOfHead = Buffer.from("\r\n\r\n")

export class Line {
  private readonly socket: Socket
  private head: Buffer = Buffer.alloc(0)
  /** What is still to come of the answer's body. */
  private left = 0
  private waiting:
    | { readonly resolve: (status: number) => void; readonly reject: (error: Error) => void }
    | undefined
  private status = 0

  private constructor(socket: Socket) {
    this.socket = socket
    socket.setNoDelay(true)
    socket.on("data", (part) => this.take(part))
    socket.on("error", (error) => this.fail(error))
    socket.on("close", () => this.fail(new Error("the server closed the connection")))
  }

  /** Connects from one of loopback's addresses: each has ports of its own. */
  static open(port: number, localAddress = "127.0.0.1"): Promise<Line> {
    return new Promise((resolve, reject) => {
      const socket = connect({ port, host: "127.0.0.1", localAddress })
      socket.once("error", reject)
      socket.once("connect", () => {
        socket.off("error", reject)
        resolve(new Line(socket))
      })
    })
  }

  /** Sends a request; gives the status once the whole answer is here. One at a time. */
  ask(request: Buffer): Promise<number> {
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject }
      this.socket.write(request)
    })
  }

  /** Ends the connection so that the system forgets it at once. */
  close(): void {
    this.waiting = undefined
    this.socket.resetAndDestroy()
  }

  private fail(error: Error): void {
    this.waiting?.reject(error)
    this.waiting = undefined
  }

  private take(part: Buffer): void {
    if (this.left > 0) return this.takeBody(part.length)
    this.head = this.head.length === 0 ? part : Buffer.concat([this.head, part])
    const end = this.head.indexOf(endOfHead)
    if (end < 0) return
    const head = this.head.toString("latin1", 0, end)
    const bodyBytes = this.head.length - end - endOfHead.length
    this.head = Buffer.alloc(0)
    this.status = Number(head.slice("HTTP/1.1 ".length, "HTTP/1.1 200".length))
    this.left = Number(/^content-length: *(\d+)$/im.exec(head)?.[1] ?? 0)
    this.takeBody(bodyBytes)
  }

  private takeBody(bytes: number): void {
    this.left -= bytes
    if (this.left > 0) return
    const { waiting } = this
    this.waiting = undefined
    waiting?.resolve(this.status)
  }
}

/** Loopback's addresses in turn, so that tens of thousands of connections find a port. */
export const loopbackAddress = (index: number): string => `127.0.0.${2 + Math.floor(index / 5_000)}`
