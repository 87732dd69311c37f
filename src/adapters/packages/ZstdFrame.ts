/**
 * Walks over the blocks of a zstd frame (RFC 8878) without decompressing it, to hold it to one plain frame with a small
 * window and nothing behind it.
 *
 * It is needed because Node's decompressor ends with the first frame only when more bytes stand in the same chunk (they
 * are dropped without a word), and goes on with the next frame when they come in another chunk: the same file could mean
 * two things. It is also where the window is bounded.
 *
 * @module
 */

/** The bytes are not one plain zstd frame; the message says why. */
export class ZstdRefused extends Error {
  override readonly name = "ZstdRefused"
}

/** The largest window: 8 MiB, what every decoder is asked to support (RFC 8878, 3.1.1.1.2). */
export const zstdWindowLog = 23

const magic = [0x28, 0xb5, 0x2f, 0xfd] as const
const contentSizeBytes = [0, 2, 4, 8] as const
const dictionaryIdBytes = [0, 1, 2, 4] as const

export interface ZstdFrameWalker {
  /**
   * Takes bytes and gives how many of them belong to the frame: fewer than all once it has ended.
   *
   * @throws ZstdRefused
   */
  readonly push: (bytes: Uint8Array) => number
  /** Whether the frame has come to its end, checksum included. */
  readonly isComplete: () => boolean
}

const littleEndian = (bytes: Uint8Array): number => bytes.reduceRight((sum, byte) => sum * 256 + byte, 0)

/** Steps of the walk: collect so many bytes and look at them, or skip so many. */
type Step = { readonly _tag: "Collect"; readonly length: number } | { readonly _tag: "Skip"; length: number }

const hasSingleSegment = (descriptor: number): boolean => (descriptor & 0x20) !== 0
const sizeFieldBytes = (descriptor: number): number => contentSizeBytes[(descriptor >> 6) as 0 | 1 | 2 | 3]

/** How many bytes of header follow the descriptor. */
const headerBytes = (descriptor: number): number => {
  if ((descriptor & 0x08) !== 0) throw new ZstdRefused("its frame has a reserved bit set")
  if (dictionaryIdBytes[(descriptor & 3) as 0 | 1 | 2 | 3] !== 0)
    throw new ZstdRefused("it needs a dictionary")
  const sizeBytes = sizeFieldBytes(descriptor)
  return hasSingleSegment(descriptor) ? Math.max(1, sizeBytes) : 1 + sizeBytes
}

/** The window a header asks for; in a single segment it is the whole content. */
const windowBytes = (descriptor: number, header: Uint8Array): number => {
  if (hasSingleSegment(descriptor)) return littleEndian(header) + (header.length === 2 ? 256 : 0)
  const [window = 0] = header
  return 2 ** (10 + (window >> 3)) * (1 + (window & 7) / 8)
}

class Walker implements ZstdFrameWalker {
  private held: Array<number> = []
  private phase: "magic" | "descriptor" | "header" | "block" | "ended" = "magic"
  private step: Step = { _tag: "Collect", length: magic.length }
  private descriptor = 0
  private isLast = false

  push(bytes: Uint8Array): number {
    let offset = 0
    while (offset < bytes.length && this.phase !== "ended") {
      const { step } = this
      if (step._tag === "Skip") {
        const skipped = Math.min(step.length, bytes.length - offset)
        step.length -= skipped
        offset += skipped
        if (step.length === 0) this.endSkip()
      } else {
        this.held.push(bytes[offset] as number)
        offset += 1
        if (this.held.length === step.length) this.takeHeld()
      }
    }
    return offset
  }

  isComplete(): boolean {
    return this.phase === "ended"
  }

  private takeHeld(): void {
    const bytes = Uint8Array.from(this.held)
    this.held = []
    switch (this.phase) {
      case "magic":
        if (magic.some((byte, index) => bytes[index] !== byte))
          throw new ZstdRefused("it does not begin like a zstd frame")
        return this.collect("descriptor", 1)
      case "descriptor":
        this.descriptor = bytes[0] as number
        return this.collect("header", headerBytes(this.descriptor))
      case "header": {
        const window = windowBytes(this.descriptor, bytes)
        if (window > 2 ** zstdWindowLog) throw new ZstdRefused(`its window is ${window} bytes`)
        return this.collect("block", 3)
      }
      default:
        return this.takeBlockHeader(littleEndian(bytes))
    }
  }

  private collect(phase: "descriptor" | "header" | "block", length: number): void {
    this.phase = phase
    this.step = { _tag: "Collect", length }
  }

  private takeBlockHeader(header: number): void {
    this.isLast = (header & 1) === 1
    const kind = (header >> 1) & 3
    if (kind === 3) throw new ZstdRefused("a block is of the reserved kind")
    const checksumBytes = this.isLast && (this.descriptor & 0x04) !== 0 ? 4 : 0
    // A run of one byte (kind 1) is written as that byte alone.
    const length = (kind === 1 ? 1 : header >> 3) + checksumBytes
    this.step = { _tag: "Skip", length }
    if (length === 0) this.endSkip()
  }

  private endSkip(): void {
    if (this.isLast) this.phase = "ended"
    else this.collect("block", 3)
  }
}

/** Begins a walk. */
export const zstdFrameWalker = (): ZstdFrameWalker => new Walker()

/** Walks over bytes that must all belong to the frame. */
export const walkAll = (walker: ZstdFrameWalker, bytes: Uint8Array): void => {
  if (walker.push(bytes) < bytes.length) throw new ZstdRefused("there are bytes behind its frame")
}

const emptyFrame = [...magic, 0x20, 0, 1, 0, 0]

/**
 * Cuts off the empty frame that Node's compressor sometimes writes behind the real one (when its input ends while the
 * last piece still waits).
 */
export const singleFrame = () => {
  const walker = zstdFrameWalker()
  const behind: Array<number> = []
  return (bytes: Uint8Array): Uint8Array => {
    const used = walker.push(bytes)
    behind.push(...bytes.subarray(used, used + emptyFrame.length + 1))
    if (behind.some((byte, index) => byte !== emptyFrame[index]))
      throw new ZstdRefused("the compressor wrote two frames")
    return bytes.subarray(0, used)
  }
}
