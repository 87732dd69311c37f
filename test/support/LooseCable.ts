/** A way to a TCP port of this machine that can be cut, or pulled out so that neither end notices. */

import type { AddressInfo } from "node:net"
import { connect, createServer, type Server, type Socket } from "node:net"

export class LooseCable {
  private readonly server: Server
  private readonly pairs = new Set<readonly [Socket, Socket]>()
  private pulled = false

  private constructor(host: string, port: number) {
    this.server = createServer((near) => {
      const far = connect({ host, port })
      const pair = [near, far] as const
      this.pairs.add(pair)
      for (const [from, to] of [
        [near, far],
        [far, near]
      ] as const) {
        from.on("error", () => undefined)
        from.on("data", (chunk: Buffer) => {
          // What is swallowed is gone for good, as far as both ends' systems would try again.
          if (!this.pulled && to.writable) to.write(chunk)
        })
        from.on("close", () => {
          if (!this.pulled) to.destroy()
          // An end that was not told is ended with the cable.
          if (to.destroyed) this.pairs.delete(pair)
        })
      }
    })
  }

  /** Opens one to an address. */
  static async to(address: URL): Promise<LooseCable> {
    const cable = new LooseCable(address.hostname, Number(address.port))
    await new Promise<void>((done) => cable.server.listen(0, "127.0.0.1", done))
    return cable
  }

  get address(): URL {
    return new URL(`mqtt://127.0.0.1:${(this.server.address() as AddressInfo).port}`)
  }

  /** Ends what goes through it; both ends hear of it at once. */
  cut(): void {
    for (const pair of this.pairs) for (const socket of pair) socket.destroy()
  }

  /** From now on it swallows everything, and tells nobody. */
  pull(): void {
    this.pulled = true
  }

  /** It carries again what is begun anew; what stood before stays broken. */
  plug(): void {
    this.pulled = false
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((done) => this.server.close(() => done()))
    this.cut()
    await closed
  }
}
