import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib"
import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import { singleFrame, ZstdRefused, zstdFrameWalker } from "../../../src/adapters/packages/ZstdFrame.ts"
import { concatBytes } from "../../../src/crypto/Bytes.ts"
import { describeWith } from "../../support/requires.ts"
import { run } from "./support.ts"

/** Bytes that compress in every way: noise, runs, repeated text. */
const content = fc
  .array(
    fc.oneof(
      fc.uint8Array({ maxLength: 3000 }),
      fc
        .record({ byte: fc.nat(255), count: fc.nat(300_000) })
        .map(({ byte, count }) => new Uint8Array(count).fill(byte)),
      fc.string({ maxLength: 50 }).map((text) => new TextEncoder().encode(text.repeat(200)))
    ),
    { maxLength: 6 }
  )
  .map((parts) => concatBytes(...parts))

const settings = fc.record({
  level: fc.constantFrom(1, 3, 9, 15),
  checksum: fc.boolean(),
  contentSize: fc.boolean(),
  windowLog: fc.constantFrom(10, 17, 23)
})

const compress = (
  bytes: Uint8Array,
  options: { level: number; checksum: boolean; contentSize: boolean; windowLog: number }
) =>
  zstdCompressSync(bytes, {
    params: {
      [constants.ZSTD_c_compressionLevel]: options.level,
      [constants.ZSTD_c_checksumFlag]: options.checksum ? 1 : 0,
      [constants.ZSTD_c_contentSizeFlag]: options.contentSize ? 1 : 0,
      [constants.ZSTD_c_windowLog]: options.windowLog
    }
  })

/** How many bytes belong to the frame, whatever pieces it comes in; undefined when it has not ended. */
const frameBytes = (bytes: Uint8Array, cuts: ReadonlyArray<number>): number | undefined => {
  const walker = zstdFrameWalker()
  let start = 0
  let used = 0
  for (const end of [...cuts, bytes.length]) {
    used += walker.push(bytes.subarray(start, end))
    start = end
  }
  return walker.isComplete() ? used : undefined
}

const cuts = (length: number) =>
  fc.array(fc.nat(length), { maxLength: 20 }).map((places) => places.sort((left, right) => left - right))

describe("the walk over a zstd frame", () => {
  it("ends exactly where the frame does, however it was made and is cut", () => {
    fc.assert(
      fc.property(
        fc.record({ content, settings, behind: fc.uint8Array({ maxLength: 20 }) }).chain((made) => {
          const frame = compress(made.content, made.settings)
          return fc.record({
            frame: fc.constant(frame),
            behind: fc.constant(made.behind),
            cuts: cuts(frame.length + made.behind.length)
          })
        }),
        ({ behind, cuts: places, frame }) => {
          assert.strictEqual(frameBytes(concatBytes(frame, behind), places), frame.length)
        }
      ),
      { numRuns: 150 }
    )
  })

  it("is not at its end while anything is missing", () => {
    const frame = compress(new TextEncoder().encode("postern ".repeat(5000)), {
      level: 3,
      checksum: true,
      contentSize: true,
      windowLog: 17
    })
    for (let length = 0; length < frame.length; length++)
      assert.isUndefined(frameBytes(frame.subarray(0, length), []))
    assert.strictEqual(frameBytes(frame, []), frame.length)
  })

  it("refuses other beginnings, dictionaries, reserved bits and blocks, and wide windows", () => {
    const bad: ReadonlyArray<readonly [RegExp, ReadonlyArray<number>]> = [
      [/does not begin/, [0x1f, 0x8b, 8, 0]],
      [/does not begin/, [0x50, 0x2a, 0x4d, 0x18]],
      [/reserved bit/, [0x28, 0xb5, 0x2f, 0xfd, 0x28]],
      [/dictionary/, [0x28, 0xb5, 0x2f, 0xfd, 0x21]],
      [/reserved kind/, [0x28, 0xb5, 0x2f, 0xfd, 0x20, 1, 6, 0, 0]],
      [/window is 9437184 bytes/, [0x28, 0xb5, 0x2f, 0xfd, 0, (13 << 3) | 1]],
      [/window is 8388609 bytes/, [0x28, 0xb5, 0x2f, 0xfd, 0xa0, 1, 0, 0x80, 0]]
    ]
    for (const [reason, bytes] of bad) {
      assert.throws(() => zstdFrameWalker().push(Uint8Array.from(bytes)), reason)
    }
  })

  it("cuts off the empty frame that the compressor may add, and nothing else", () => {
    const bytes = new TextEncoder().encode("hello")
    const frame = new Uint8Array(zstdCompressSync(bytes))
    const empty = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0)
    const cut = singleFrame()
    const kept = concatBytes(cut(frame), cut(empty.subarray(0, 4)), cut(empty.subarray(4)))
    assert.deepStrictEqual(new Uint8Array(zstdDecompressSync(kept)), bytes)
    assert.throws(() => singleFrame()(concatBytes(frame, frame)), ZstdRefused)
    assert.throws(() => singleFrame()(concatBytes(frame, empty, Uint8Array.of(1))), ZstdRefused)
  })
})

describeWith(["zstd"], "with the zstd tool", () => {
  it("ends where its frames do, at every level, and refuses long windows", () => {
    const bytes = new Uint8Array(2_000_000).map((_, index) => (index * index) >> 7)
    for (const level of ["-1", "-3", "-9", "-19", "--fast=3"]) {
      const frame = run("zstd", [level, "-c"], bytes)
      assert.strictEqual(frameBytes(frame, [1000]), frame.length)
    }
    const long = run("zstd", ["-3", "--long=27", "-c"], bytes)
    assert.throws(() => zstdFrameWalker().push(long), /window is/)
  })
})
