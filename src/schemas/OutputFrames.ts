/**
 * What stands inside one encrypted output chunk: frames, each a byte for the stream (1 stdout, 2 stderr), four bytes of
 * length (big-endian) and so many bytes. One chunk is one age file; its place in the order's output is its sequence.
 */
import { Schema } from "effect"
import { Limits } from "./Limits.ts"

/** Which of a job's two outputs. */
export type OutputStream = "stdout" | "stderr"

/** A piece of one stream. */
export interface OutputFrame {
  readonly stream: OutputStream
  readonly bytes: Uint8Array
}

/** A chunk's plaintext is not a row of whole frames: it was made by another version, or damaged before it was sealed. */
export class BadFrames extends Schema.TaggedError<BadFrames>()("BadFrames", {
  /** Where in the chunk the first wrong frame begins. */
  offset: Schema.Finite,
  reason: Schema.Literals(["unknown_stream", "cut_short"])
}) {
  override get message(): string {
    return `the output chunk is ${this.reason === "cut_short" ? "cut short" : "of an unknown stream"} at byte ${this.offset}`
  }
}

/** Bytes a frame needs beside its content. */
export const frameHeaderBytes = 5

const codes: Readonly<Record<OutputStream, number>> = { stdout: 1, stderr: 2 }

/** The bytes of all frames in order. Neighbours of one stream become one frame; empty ones vanish. */
export const encodeFrames = (frames: ReadonlyArray<OutputFrame>): Uint8Array => {
  const runs: Array<{ readonly stream: OutputStream; readonly parts: Array<Uint8Array>; length: number }> = []
  for (const { bytes, stream } of frames) {
    if (bytes.length === 0) continue
    const last = runs.at(-1)
    if (last?.stream === stream) {
      last.parts.push(bytes)
      last.length += bytes.length
    } else {
      runs.push({ stream, parts: [bytes], length: bytes.length })
    }
  }
  const encoded = new Uint8Array(runs.reduce((sum, run) => sum + frameHeaderBytes + run.length, 0))
  const view = new DataView(encoded.buffer)
  let offset = 0
  for (const run of runs) {
    encoded[offset] = codes[run.stream]
    view.setUint32(offset + 1, run.length)
    offset += frameHeaderBytes
    for (const part of run.parts) {
      encoded.set(part, offset)
      offset += part.length
    }
  }
  return encoded
}

/** The frames of one chunk, as views of `chunk`; or what is wrong with it. The bytes are untrusted text. */
export const decodeFrames = (chunk: Uint8Array): ReadonlyArray<OutputFrame> | BadFrames => {
  const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength)
  const frames: Array<OutputFrame> = []
  let offset = 0
  while (offset < chunk.length) {
    const code = chunk[offset]
    const stream = code === codes.stdout ? "stdout" : code === codes.stderr ? "stderr" : undefined
    if (stream === undefined) return new BadFrames({ offset, reason: "unknown_stream" })
    const start = offset + frameHeaderBytes
    if (start > chunk.length) return new BadFrames({ offset, reason: "cut_short" })
    const end = start + view.getUint32(offset + 1)
    if (end > chunk.length) return new BadFrames({ offset, reason: "cut_short" })
    frames.push({ stream, bytes: chunk.subarray(start, end) })
    offset = end
  }
  return frames
}

/**
 * Sequence of the first chunk of an attempt (from 1). An order that is run again after an interruption starts a fresh
 * range, so that its chunks never meet those of an earlier attempt which the server may hold already. The chunks a
 * receipt speaks of are `firstSequence(receipt.attempts)` and the `receipt.output.chunks - 1` after it.
 */
export const firstSequence = (attempt: number): number => Math.max(attempt - 1, 0) * Limits.outputChunks

/** Sequences are below this. */
export const sequenceLimit = Limits.runAttempts * Limits.outputChunks
