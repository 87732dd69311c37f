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

/** Begins a walk. */
export const zstdFrameWalker = (): ZstdFrameWalker => {
  let held: Array<number> = []
  let phase: "magic" | "descriptor" | "header" | "block" | "ended" = "magic"
  let step: Step = { _tag: "Collect", length: 4 }
  let descriptor = 0
  let isLast = false

  const expectBlock = (): void => {
    phase = "block"
    step = { _tag: "Collect", length: 3 }
  }

  const readHeader = (bytes: Uint8Array): void => {
    const isSingleSegment = (descriptor & 0x20) !== 0
    const sizeBytes = contentSizeBytes[(descriptor >> 6) as 0 | 1 | 2 | 3]
    const size = isSingleSegment && sizeBytes === 0 ? 1 : sizeBytes
    const windowBytes = isSingleSegment
      ? littleEndian(bytes.subarray(bytes.length - size)) + (size === 2 ? 256 : 0)
      : 2 ** (10 + ((bytes[0] as number) >> 3)) * (1 + ((bytes[0] as number) & 7) / 8)
    if (windowBytes > 2 ** zstdWindowLog) throw new ZstdRefused(`its window is ${windowBytes} bytes`)
    expectBlock()
  }

  const readDescriptor = (byte: number): void => {
    descriptor = byte
    if ((byte & 0x08) !== 0) throw new ZstdRefused("its frame has a reserved bit set")
    if (dictionaryIdBytes[(byte & 3) as 0 | 1 | 2 | 3] !== 0) throw new ZstdRefused("it needs a dictionary")
    const isSingleSegment = (byte & 0x20) !== 0
    const sizeBytes = contentSizeBytes[(byte >> 6) as 0 | 1 | 2 | 3]
    phase = "header"
    step = { _tag: "Collect", length: isSingleSegment ? Math.max(1, sizeBytes) : 1 + sizeBytes }
  }

  const readBlockHeader = (header: number): void => {
    isLast = (header & 1) === 1
    const kind = (header >> 1) & 3
    if (kind === 3) throw new ZstdRefused("a block is of the reserved kind")
    step = { _tag: "Skip", length: kind === 1 ? 1 : header >> 3 }
    if (isLast && (descriptor & 0x04) !== 0) step.length += 4
    if (step.length === 0) endSkip()
  }

  const endSkip = (): void => {
    if (isLast) phase = "ended"
    else expectBlock()
  }

  const collected = (bytes: Uint8Array): void => {
    if (phase === "magic") {
      if (magic.some((byte, index) => bytes[index] !== byte))
        throw new ZstdRefused("it does not begin like a zstd frame")
      phase = "descriptor"
      step = { _tag: "Collect", length: 1 }
    } else if (phase === "descriptor") readDescriptor(bytes[0] as number)
    else if (phase === "header") readHeader(bytes)
    else readBlockHeader(littleEndian(bytes))
  }

  return {
    push: (bytes) => {
      let offset = 0
      while (offset < bytes.length) {
        if (phase === "ended") return offset
        if (step._tag === "Skip") {
          const skipped = Math.min(step.length, bytes.length - offset)
          step.length -= skipped
          offset += skipped
          if (step.length === 0) endSkip()
        } else {
          held.push(bytes[offset] as number)
          offset += 1
          if (held.length === step.length) {
            const whole = Uint8Array.from(held)
            held = []
            collected(whole)
          }
        }
      }
      return offset
    },
    isComplete: () => phase === "ended"
  }
}

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
