/** Messages on the pipe between warden and client: four bytes of length, big-endian, then so many bytes of JSON. */
import { BadMessage } from "./Decoding.ts"

/** What one side may say at once. A start request holds a whole command and environment; an answer is some lines. */
export const FrameLimits = { toWarden: 3 * 1024 * 1024, toClient: 64 * 1024 } as const

const headerBytes = 4

/** @throws BadMessage where the message is longer than its reader takes */
export const encodeFrame = (message: unknown, maximumBytes: number): Buffer => {
  const body = Buffer.from(JSON.stringify(message), "utf8")
  if (body.length > maximumBytes) throw new BadMessage(`a message of ${body.length} bytes is too long`)
  const frame = Buffer.allocUnsafe(headerBytes + body.length)
  frame.writeUInt32BE(body.length, 0)
  body.copy(frame, headerBytes)
  return frame
}

/** Takes the bytes of one direction as they come and gives the messages in them; holds at most one message. */
export class FrameReader {
  private readonly maximumBytes: number
  private pieces: Array<Buffer> = []
  private held = 0

  constructor(maximumBytes: number) {
    this.maximumBytes = maximumBytes
  }

  /**
   * @returns the messages completed by this piece, as JSON values that nobody has checked
   * @throws BadMessage where a length is too large or a body is no JSON: nothing sensible can follow
   */
  take(piece: Buffer): ReadonlyArray<unknown> {
    this.pieces.push(piece)
    this.held += piece.length
    const messages: Array<unknown> = []
    for (;;) {
      if (this.held < headerBytes) return messages
      const length = this.peek(headerBytes).readUInt32BE(0)
      if (length > this.maximumBytes) throw new BadMessage(`a message of ${length} bytes is too long`)
      if (this.held < headerBytes + length) return messages
      const frame = this.peek(headerBytes + length)
      this.pieces = [frame.subarray(headerBytes + length)]
      this.held -= headerBytes + length
      messages.push(parse(frame.subarray(headerBytes, headerBytes + length)))
    }
  }

  /** The pieces, joined where what is wanted does not lie in the first. */
  private peek(bytes: number): Buffer {
    const [first] = this.pieces
    if (first !== undefined && first.length >= bytes) return first
    const joined = Buffer.concat(this.pieces)
    this.pieces = [joined]
    return joined
  }
}

const parse = (body: Buffer): unknown => {
  try {
    return JSON.parse(body.toString("utf8"))
  } catch {
    throw new BadMessage("a message is no JSON")
  }
}
