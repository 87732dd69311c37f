/** What tor says on its control connection, as data. */
import { describe, expect, it } from "@effect/vitest"
import * as fc from "fast-check"
import {
  type ControlReply,
  controlQuoted,
  controlValue,
  controlWords,
  makeReplyReader
} from "../../../src/adapters/tor/ControlReplies.ts"

const read = (chunks: ReadonlyArray<Buffer>, maximumBytes = 100_000) => {
  const replies: Array<ControlReply> = []
  const broken: Array<string> = []
  const push = makeReplyReader({
    maximumBytes,
    onReply: (reply) => replies.push(reply),
    onBroken: (reason) => broken.push(reason)
  })
  for (const chunk of chunks) push(chunk)
  return { replies, broken }
}

const text = (...lines: ReadonlyArray<string>) => Buffer.from(lines.map((line) => `${line}\r\n`).join(""))

describe("replies of the control protocol", () => {
  it("are single lines, several lines, and lines with data below them", () => {
    const { broken, replies } = read([
      text(
        "250 OK",
        "250-version=0.4.9",
        "250+config-text=",
        "A 1",
        "..",
        ".. B",
        ".",
        "250 OK",
        "552 Unknown option"
      )
    ])
    expect(broken).toEqual([])
    expect(replies).toEqual([
      { status: 250, lines: ["OK"] },
      { status: 250, lines: ["version=0.4.9", "config-text=A 1\n.\n. B", "OK"] },
      { status: 552, lines: ["Unknown option"] }
    ])
  })

  it("may have events between their lines", () => {
    const { replies } = read([text("250-a=1", "650-HS_DESC X", "650 more", "250 OK")])
    expect(replies).toEqual([
      { status: 650, lines: ["HS_DESC X", "more"] },
      { status: 250, lines: ["a=1", "OK"] }
    ])
  })

  it("are refused when they are none, or too long, and nothing is read any more", () => {
    expect(read([text("SSH-2.0", "250 OK")])).toMatchObject({
      replies: [],
      broken: [/no line of the control/]
    })
    expect(read([Buffer.alloc(2_000, 65)], 1_000).broken).toHaveLength(1)
    const endless = Array.from({ length: 200 }, () => text("250-xxxxxxxxxxxxxxxxxx"))
    expect(read(endless, 1_000).broken).toHaveLength(1)
    const data = [text("250+x="), ...Array.from({ length: 200 }, () => text("yyyyyyyyyyyyyyyyyy"))]
    expect(read(data, 1_000)).toMatchObject({ replies: [], broken: [/more than 1000 bytes/] })
  })

  it("come out the same however they are cut", () => {
    const reply = fc.record({
      status: fc.constantFrom(250, 251, 515, 650),
      lines: fc.array(fc.stringMatching(/^[ -~]{0,20}$/), { minLength: 1, maxLength: 5 })
    })
    const cuts = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 })
    fc.assert(
      fc.property(fc.array(reply, { maxLength: 8 }), cuts, (replies, sizes) => {
        const bytes = Buffer.concat(
          replies.map(({ lines, status }) =>
            text(...lines.map((line, index) => `${status}${index === lines.length - 1 ? " " : "-"}${line}`))
          )
        )
        const chunks: Array<Buffer> = []
        for (let at = 0; at < bytes.length; ) {
          const size = sizes[chunks.length % sizes.length] as number
          chunks.push(bytes.subarray(at, at + size))
          at += size
        }
        expect(read(chunks)).toEqual({ replies, broken: [] })
      })
    )
  })

  it("hold quoted texts as they were", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (secret) => {
        const quoted = controlQuoted(secret)
        expect(quoted).not.toMatch(/[\r\n]/)
        expect(controlWords(`AUTH COOKIEFILE=${quoted} METHODS=NULL`)).toEqual({
          words: ["AUTH"],
          fields: { COOKIEFILE: secret, METHODS: "NULL" }
        })
      })
    )
  })

  it("are read as tor escapes what is not ASCII: byte by byte, in octal digits", () => {
    const there = String.raw`"/home/j\303\274rgen/\360\237\220\264\\\"\'\t\7\0331"`
    const meant = "/home/jürgen/🐴\\\"'\t\u0007\u001b1"
    expect(controlValue(there)).toBe(meant)
    expect(controlWords(`A=${there}`).fields["A"]).toBe(meant)
    for (const plain of ["", "/a folder", '"', '"a" b']) expect(controlValue(plain)).toBe(plain)
  })

  it("name no member that an object has anyway", () => {
    expect(controlWords("x __proto__=1 constructor=2").fields["toString"]).toBeUndefined()
  })
})
