/**
 * What one connection may ask of the embedded broker at once. aedes takes everything that comes in one read in hand together,
 * which may be thousands of packets, and reads nothing more before all of that is done. Here a connection has so many packets
 * in hand; its others wait in their order, and what is behind them in the connection itself.
 *
 * @module
 */
import type { Duplex } from "node:stream"
import type { Client } from "aedes"
import { Limits } from "../../schemas/Limits.ts"
import { MessageLimits } from "../../schemas/Message.ts"

/** The fixed header and the topic come on top of what is carried. */
export const packetBytes = MessageLimits.wireBytes + 1024

/** What is looked at of a packet before aedes has it: which kind it is, and what has filters. */
interface AskingPacket {
  readonly cmd?: string
  readonly subscriptions?: ReadonlyArray<unknown>
  readonly unsubscriptions?: ReadonlyArray<unknown>
}

interface Parser extends NodeJS.EventEmitter {
  readonly _list: { readonly length: number }
}

/** Of an aedes client, what its types do not tell. */
interface Inside {
  readonly _parser: Parser
  readonly connackSent: boolean
  /** Reads more where what was read before is done, by the count below. Each packet that is taken in hand tells it its end. */
  _nextBatch: (error?: Error | null) => void
  _parsingBatch: number
  /** Whether it has taken leave: then its last will is not published. */
  _disconnected: boolean
}

/** The packets of one connection, on their way to aedes. */
class Packets {
  private readonly client: Client & Inside
  private readonly conn: Duplex
  private readonly take: (packet: AskingPacket) => void
  private readonly readMore: Inside["_nextBatch"]
  /** Read, and not in hand. */
  private readonly waiting: Array<AskingPacket> = []
  private inHand = 0
  private isBegun = false
  private isReading = false

  constructor(client: Client & Inside, conn: Duplex, take: (packet: AskingPacket) => void) {
    this.client = client
    this.conn = conn
    this.take = take
    this.readMore = client._nextBatch
    // aedes calls it where a connection that was held up may go on.
    client._nextBatch = this.goOn
  }

  /** The first packet is taken at once, and others when it has been answered. */
  private hasRoom(): boolean {
    return this.inHand < Limits.messagingInHand && (this.client.connackSent || !this.isBegun)
  }

  private readonly goOn = (): void => {
    while (this.waiting.length > 0 && this.hasRoom() && !this.client.closed && !this.conn.destroyed)
      this.takeInHand(this.waiting.shift() as AskingPacket)
    this.read()
  }

  /** Reads what has come, unless enough of it is there already. */
  read(): void {
    if (this.isReading || this.waiting.length > 0 || !this.hasRoom()) return
    this.isReading = true
    this.client._parsingBatch = 1
    this.readMore()
    this.isReading = false
  }

  came(packet: AskingPacket): void {
    if (this.waiting.length === 0 && this.hasRoom()) return this.takeInHand(packet)
    // Who takes leave may hang up before its turn comes, and has left cleanly all the same.
    if (packet.cmd === "disconnect") this.client._disconnected = true
    this.waiting.push(packet)
  }

  private takeInHand(packet: AskingPacket): void {
    this.isBegun = true
    this.inHand++
    let isDone = false
    this.client._nextBatch = (error) => {
      if (!isDone) this.inHand--
      isDone = true
      if (error == null) this.goOn()
      else this.readMore(error)
    }
    this.take(packet)
    this.client._nextBatch = this.goOn
  }
}

/**
 * Holds a connection to its bounds. It is cut where it sends packets larger than any of ours, or names more filters in one
 * than anybody may have: aedes looks at all of them in one turn. What came together with the packet that a connection is cut
 * for counts for nothing.
 */
export const holdToBounds = (client: Client, conn: Duplex, askedTooMuch: (client: Client) => void): void => {
  const inside = client as Client & Inside
  const parser = inside._parser
  conn.removeListener("readable", inside._nextBatch)
  const takers = parser.listeners("packet")
  const packets = new Packets(inside, conn, (packet) => {
    for (const take of takers) take.call(parser, packet)
  })
  conn.on("readable", () => {
    packets.read()
    if (parser._list.length > packetBytes) conn.destroy()
  })
  parser.removeAllListeners("packet")
  parser.on("packet", (packet: AskingPacket) => {
    if (conn.destroyed) return
    const { length } = packet.subscriptions ?? packet.unsubscriptions ?? []
    if (length > Limits.messagingFilters) {
      conn.destroy()
      return askedTooMuch(client)
    }
    packets.came(packet)
  })
}
