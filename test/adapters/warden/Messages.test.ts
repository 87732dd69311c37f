import { describe, expect, it } from "@effect/vitest"
import { Schema } from "effect"
import * as fc from "fast-check"
import type { Decoder } from "../../../src/adapters/warden/Decoding.ts"
import { BadMessage } from "../../../src/adapters/warden/Decoding.ts"
import { encodeFrame, FrameReader } from "../../../src/adapters/warden/Frames.ts"
import {
  decodeCommand,
  decodeEnvironment,
  decodeGrants,
  decodeLimits,
  decodeToClient,
  decodeToWarden
} from "../../../src/adapters/warden/Messages.ts"
import { defaultJobLimits, Grants, JobLimits, Manifest } from "../../../src/schemas/Manifest.ts"

const takes = <A>(decode: Decoder<A>, value: unknown): boolean => {
  try {
    expect(decode(value, "it")).toEqual(value)
    return true
  } catch (error) {
    if (error instanceof BadMessage) return false
    throw error
  }
}

/** Values near the right ones: of the right shape, with odd parts. */
const oddText = fc.oneof(
  fc.constantFrom(
    "",
    "/",
    "/srv",
    "//",
    "serial",
    "Serial",
    "-a",
    "a\0b",
    "A",
    "_1",
    "1A",
    "A B",
    "PATH",
    "é",
    "\ud800"
  ),
  fc.string({ maxLength: 80 })
)
const oddNumber = fc.oneof(
  fc.constantFrom(0, -1, 1, 0.5, 100, 16 * 1024 * 1024, 2 ** 53, Number.NaN, 64, 4096, 6400, 6401),
  fc.integer()
)
const oddPart = fc.oneof(oddText, oddNumber, fc.constantFrom(null, true, [], {}))
const nearLimits = fc.oneof(
  fc.tuple(fc.constantFrom(...Object.keys(defaultJobLimits), "more"), oddPart).map(([key, value]) => ({
    ...defaultJobLimits,
    [key]: value
  })),
  fc
    .constantFrom(...Object.keys(defaultJobLimits))
    .map((key) => Object.fromEntries(Object.entries(defaultJobLimits).filter(([name]) => name !== key))),
  oddPart
)
const nearGrants = fc.record(
  {
    devices: fc.oneof(fc.array(oddText, { maxLength: 20 }), oddPart),
    read_only: fc.oneof(fc.array(oddText), oddPart)
  },
  { requiredKeys: [] }
)
const nearCommand = fc.oneof(fc.array(fc.oneof(oddText, oddText, oddPart), { maxLength: 300 }), oddPart)
const nearEnvironment = fc.oneof(
  fc.dictionary(oddText, fc.oneof(oddText, oddPart), { maxKeys: 140 }),
  oddPart
)

describe("what the client may ask for is what a manifest may say", () => {
  const { command, environment } = Manifest.fields
  const agree = <A>(
    name: string,
    schema: Schema.Codec<A>,
    decode: Decoder<unknown>,
    near: fc.Arbitrary<unknown>,
    allowed: (value: A) => boolean = () => true
  ) => {
    it.prop(`${name}: every good one is taken`, [schema], ([value]) =>
      expect(takes(decode, value)).toBe(allowed(value))
    )
    it(`${name}: of those that are nearly good, the same ones are`, () => {
      fc.assert(
        fc.property(near, (value) => {
          const strict = Schema.decodeUnknownResult(schema, { onExcessProperty: "error" })(value)
          expect(takes(decode, value)).toBe(strict._tag === "Success" && allowed(strict.success))
        })
      )
    })
  }

  agree("limits", JobLimits, decodeLimits, nearLimits)
  agree("grants", Grants, decodeGrants, nearGrants)
  // A manifest may name an empty program, which the jail refuses before it asks the warden.
  agree("command", command, decodeCommand, nearCommand, ([program]) => program !== "")
  agree("environment", environment, decodeEnvironment, nearEnvironment)
})

describe("a message", () => {
  const start = {
    type: "start",
    run: 1,
    command: ["true"],
    environment: {},
    package: 7,
    limits: defaultJobLimits,
    grants: { devices: [], read_only: [] }
  }

  it("is read as it was written", () => {
    expect(decodeToWarden(start, "it")).toEqual(start)
    for (const message of [{ type: "beat" }, { type: "kill", run: 3 }]) {
      expect(decodeToWarden(message, "it")).toEqual(message)
    }
    const ready = { type: "ready", run: 1, viewer: 77 }
    expect(decodeToClient(ready, "it")).toEqual(ready)
  })

  it.each([
    ["of no known type", { type: "toString" }],
    ["without a type", {}],
    ["no object", "beat"],
    ["with a member too many", { ...start, uid: 0 }],
    ["with a member too few", { type: "kill" }],
    ["with a number that is none", { type: "kill", run: "1" }],
    ["with a descriptor below zero", { ...start, package: -1 }],
    ["with a path for a descriptor", { ...start, package: "/etc" }],
    ["with an empty program", { ...start, command: [""] }],
    ["with a NUL", { ...start, command: ["a\0b"] }],
    ["with an option in a variable's name", { ...start, environment: { "--bind": "/" } }],
    ["with a policy that names root's uid for jobs", { type: "hello", policy: { uid_base: 0 } }]
  ])("is refused when it is %s", (_name, message) => {
    expect(() => decodeToWarden(message, "it")).toThrow(BadMessage)
  })
})

describe("frames", () => {
  it("come through whole, however the bytes are cut", () => {
    fc.assert(
      fc.property(
        fc.array(fc.jsonValue(), { maxLength: 8 }),
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }),
        (values, cuts) => {
          const sent = values.map((value) => JSON.parse(JSON.stringify(value)))
          const bytes = Buffer.concat(values.map((value) => encodeFrame(value, 1024 * 1024)))
          const reader = new FrameReader(1024 * 1024)
          const got: Array<unknown> = []
          for (let at = 0, turn = 0; at < bytes.length; turn++) {
            const size = cuts[turn % cuts.length] as number
            got.push(...reader.take(bytes.subarray(at, at + size)))
            at += size
          }
          expect(got).toEqual(sent)
        }
      )
    )
  })

  it("that are too long are refused before they are held, and none is written", () => {
    const header = Buffer.alloc(4)
    header.writeUInt32BE(101, 0)
    expect(() => new FrameReader(100).take(header)).toThrow(BadMessage)
    expect(() => encodeFrame("x".repeat(100), 100)).toThrow(BadMessage)
    expect(new FrameReader(100).take(encodeFrame("x".repeat(98), 100))).toEqual(["x".repeat(98)])
  })

  it("that are no JSON are refused", () => {
    expect(() => new FrameReader(100).take(Buffer.from([0, 0, 0, 1, 0x7b]))).toThrow(BadMessage)
  })
})
