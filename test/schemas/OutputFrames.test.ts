import { describe, expect, it } from "@effect/vitest"
import { Schema } from "effect"
import { Limits } from "../../src/schemas/Limits.ts"
import {
  BadFrames,
  decodeFrames,
  encodeFrames,
  firstSequence,
  frameHeaderBytes,
  type OutputFrame,
  sequenceLimit
} from "../../src/schemas/OutputFrames.ts"

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("latin1")

/** Each stream's bytes in a row: what a reader makes of frames. */
const streams = (frames: ReadonlyArray<OutputFrame>) => ({
  stdout: frames
    .filter((frame) => frame.stream === "stdout")
    .map((frame) => text(frame.bytes))
    .join(""),
  stderr: frames
    .filter((frame) => frame.stream === "stderr")
    .map((frame) => text(frame.bytes))
    .join("")
})

const Pieces = Schema.Array(
  Schema.Struct({
    stream: Schema.Literals(["stdout", "stderr"]),
    bytes: Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 })))
  })
)

describe("output frames", () => {
  it.prop("are read as they were written", [Pieces], ([pieces]) => {
    const frames = pieces.map(({ bytes, stream }) => ({ stream, bytes: Uint8Array.from(bytes) }))
    const decoded = decodeFrames(encodeFrames(frames))
    if (decoded instanceof BadFrames) throw decoded
    expect(streams(decoded)).toEqual(streams(frames))
    expect(decoded.every((frame) => frame.bytes.length > 0)).toBe(true)
    expect(decoded.every((frame, index) => frame.stream !== decoded[index - 1]?.stream)).toBe(true)
  })
  it("stand as documented", () => {
    const bytes = encodeFrames([
      { stream: "stdout", bytes: Uint8Array.from([65, 66]) },
      { stream: "stderr", bytes: Uint8Array.from([67]) }
    ])
    expect([...bytes]).toEqual([1, 0, 0, 0, 2, 65, 66, 2, 0, 0, 0, 1, 67])
    expect(frameHeaderBytes).toBe(5)
  })
  it.each([
    ["an unknown stream", [3, 0, 0, 0, 0], { offset: 0, reason: "unknown_stream" }],
    ["a header cut short", [1, 0, 0], { offset: 0, reason: "cut_short" }],
    ["content cut short", [1, 0, 0, 0, 1, 65, 2, 0, 0, 0, 9, 65], { offset: 6, reason: "cut_short" }],
    ["a length beyond all bounds", [1, 255, 255, 255, 255, 0], { offset: 0, reason: "cut_short" }]
  ] as const)("refuse %s", (_name, bytes, expected) => {
    expect(decodeFrames(Uint8Array.from(bytes))).toMatchObject(expected)
  })
  it("of each attempt have sequences of their own", () => {
    expect([1, 2, 3].map(firstSequence)).toEqual([0, Limits.outputChunks, 2 * Limits.outputChunks])
    expect(firstSequence(Limits.runAttempts) + Limits.outputChunks).toBe(sequenceLimit)
  })
})
