/**
 * An MQTT 3.1.1 connection that does as little as it can: it publishes packets made before, with QoS 1, and acknowledges
 * what comes. Whoever loads a broker should cost little beside it.
 */
import { connect, type Socket } from "node:net"

const lengthOf = (bytes: number): ReadonlyArray<number> => {
  const digits: Array<number> = []
  for (let rest = bytes; ; rest >>= 7) {
    digits.push(rest < 128 ? rest : (rest & 127) | 128)
    if (rest < 128) return digits
  }
}

const packet = (first: number, ...parts: ReadonlyArray<Uint8Array>): Buffer => {
  const body = Buffer.concat(parts)
  return Buffer.concat([Buffer.from([first, ...lengthOf(body.length)]), body])
}

/** With its length in two bytes before it. */
const counted = (content: string | Uint8Array): Buffer => {
  const bytes = Buffer.from(content)
  const length = Buffer.alloc(2)
  length.writeUInt16BE(bytes.length)
  return Buffer.concat([length, bytes])
}

const connectPacket = (name: string, password: Uint8Array): Buffer =>
  // Version 4, user name and password, no clean session, a keep-alive of five minutes.
  packet(
    0x10,
    counted("MQTT"),
    Buffer.from([4, 0xc0, 0x01, 0x2c]),
    counted(name),
    counted(name),
    counted(password)
  )

/** A publication of QoS 1, as it goes over the line but for its number. */
export interface Prepared {
  readonly bytes: Buffer
  readonly numberAt: number
}

export const prepare = (topic: string, payload: Uint8Array): Prepared => {
  const name = counted(topic)
  const bytes = packet(0x32, name, Buffer.alloc(2), payload)
  return { bytes, numberAt: bytes.length - payload.length - 2 }
}

type Received = (topic: string, payload: Buffer) => void

export class MqttLine {
  /** Takes what comes. It is acknowledged at once. */
  received: Received = () => undefined
  private readonly socket: Socket
  private rest: Buffer = Buffer.alloc(0)
  private number = 0
  private readonly unanswered = new Map<number, { done: () => void; failed: (error: Error) => void }>()
  private greeted: { done: () => void; failed: (error: Error) => void } | undefined

  private constructor(socket: Socket) {
    this.socket = socket
    socket.setNoDelay(true)
    socket.on("data", (part: Buffer) => this.take(part))
    socket.on("error", (error) => this.fail(error))
    socket.on("close", () => this.fail(new Error("the broker closed the connection")))
  }

  /** Connects from one of loopback's addresses and says who it is. */
  static async open(
    port: number,
    who: { readonly name: string; readonly password: Uint8Array },
    localAddress = "127.0.0.1"
  ): Promise<MqttLine> {
    const socket = connect({ port, host: "127.0.0.1", localAddress })
    await new Promise<void>((done, failed) => {
      socket.once("error", failed)
      socket.once("connect", () => {
        socket.off("error", failed)
        done()
      })
    })
    const line = new MqttLine(socket)
    await new Promise<void>((done, failed) => {
      line.greeted = { done, failed }
      socket.write(connectPacket(who.name, who.password))
    })
    return line
  }

  private ask(bytes: Buffer, numberAt: number): Promise<void> {
    this.number = (this.number % 65_535) + 1
    const { number } = this
    bytes.writeUInt16BE(number, numberAt)
    return new Promise((done, failed) => {
      this.unanswered.set(number, { done, failed })
      this.socket.write(bytes)
    })
  }

  /** Ends when it is acknowledged. Bytes that were given may be given again afterwards. */
  publish({ bytes, numberAt }: Prepared): Promise<void> {
    return this.ask(bytes, numberAt)
  }

  async subscribe(...filters: ReadonlyArray<string>): Promise<void> {
    const wanted = filters.map((filter) => Buffer.concat([counted(filter), Buffer.from([1])]))
    const bytes = packet(0x82, Buffer.alloc(2), ...wanted)
    await this.ask(bytes, bytes.length - Buffer.concat(wanted).length - 2)
  }

  /** Ends the connection so that the system forgets it at once. */
  close(): void {
    this.unanswered.clear()
    this.socket.resetAndDestroy()
  }

  private fail(error: Error): void {
    this.greeted?.failed(error)
    for (const { failed } of this.unanswered.values()) failed(error)
    this.unanswered.clear()
  }

  private take(part: Buffer): void {
    let data = this.rest.length === 0 ? part : Buffer.concat([this.rest, part])
    for (let end = this.packetEnd(data); end !== undefined; end = this.packetEnd(data)) {
      this.read(data.subarray(0, end))
      data = data.subarray(end)
    }
    this.rest = data
  }

  /** Where the first packet ends; undefined where it is not there whole. */
  private packetEnd(data: Buffer): number | undefined {
    for (let at = 1, length = 0, shift = 0; at < Math.min(data.length, 5); at++, shift += 7) {
      const digit = data[at] as number
      length |= (digit & 127) << shift
      if (digit < 128) return at + 1 + length <= data.length ? at + 1 + length : undefined
    }
    return undefined
  }

  private read(bytes: Buffer): void {
    const kind = (bytes[0] as number) >> 4
    if (kind === 2) {
      const code = bytes[3]
      if (code === 0) this.greeted?.done()
      else this.greeted?.failed(new Error(`the broker answered ${code}`))
      this.greeted = undefined
    } else if (kind === 3) this.readPublication(bytes)
    else if (kind === 4 || kind === 9) {
      const number = bytes.readUInt16BE(2)
      const refused = kind === 9 && bytes.subarray(4).includes(0x80)
      const asked = this.unanswered.get(number)
      this.unanswered.delete(number)
      if (refused) asked?.failed(new Error("a subscription was refused"))
      else asked?.done()
    }
  }

  private readPublication(bytes: Buffer): void {
    let at = 1
    while ((bytes[at] as number) > 127) at++
    const topicEnd = at + 3 + bytes.readUInt16BE(at + 1)
    const hasNumber = ((bytes[0] as number) & 6) !== 0
    const topic = bytes.toString("utf8", at + 3, topicEnd)
    if (hasNumber) this.socket.write(Buffer.from([0x40, 2, ...bytes.subarray(topicEnd, topicEnd + 2)]))
    this.received(topic, bytes.subarray(topicEnd + (hasNumber ? 2 : 0)))
  }
}
