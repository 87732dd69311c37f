import { describe, expect, it } from "@effect/vitest"
import { Result } from "effect"
import { authenticate, isAbove, judge, type OrderFacts } from "../../src/actors/OrderChecks.ts"
import { encodeBase64 } from "../../src/crypto/Base64.ts"
import { canonicalBytes } from "../../src/crypto/CanonicalJson.ts"
import type { Digest } from "../../src/schemas/Ids.ts"
import { Limits } from "../../src/schemas/Limits.ts"
import {
  device,
  engine,
  keyOf,
  operator,
  orderOf,
  otherDeviceKeys,
  rootOf,
  signOrder,
  stranger
} from "./support/Parties.ts"

const plan = { script: ["exit:0"] }
const root = rootOf()
const order = orderOf(5, plan)
const signed = signOrder(order)
const otherDigest = `sha256:${"0".repeat(64)}` as Digest

const facts: OrderFacts = {
  device,
  accepted: true,
  lanes: new Set(["job", "service"]),
  rootVersion: 1,
  highWater: { root_version: 1, counter: 4, order_digest: otherDigest },
  seen: null,
  nowMs: 1_000,
  clockProven: true,
  blocked: null
}

const judged = (changes: Partial<OrderFacts>, authentic = { order, digest: signed.digest }) =>
  judge(authentic, { ...facts, ...changes })

const codeOf = (envelope: Parameters<typeof authenticate>[2], trusted = root) => {
  const result = authenticate(engine, trusted, envelope)
  return Result.isFailure(result) ? result.failure.code : "authentic"
}

describe("signatures on an order", () => {
  it("takes what an operator signed", () => {
    expect(codeOf(signed.envelope)).toBe("authentic")
  })
  it("refuses what is too large before anything else", () => {
    expect(codeOf({ ...signed.envelope, payload: "A".repeat(Limits.envelopeBytes + 4) })).toBe("too_large")
  })
  it("refuses another kind of document, and JSON that is not the canonical form", () => {
    expect(codeOf({ ...signed.envelope, payloadType: "application/vnd.postern.cancel+json" })).toBe(
      "malformed"
    )
  })
  it("refuses a signature by a key outside the operators role", () => {
    expect(codeOf(signOrder(order, stranger).envelope)).toBe("unknown_key")
    expect(codeOf({ ...signed.envelope, signatures: [] })).toBe("unknown_key")
  })
  it("refuses a signature that does not fit", () => {
    const other = encodeBase64(canonicalBytes({ ...order, counter: 6 }))
    expect(codeOf({ ...signed.envelope, payload: other })).toBe("bad_signature")
  })
  it("refuses too few signatures", () => {
    const second = keyOf("second operator")
    expect(codeOf(signed.envelope, rootOf({ operators: [operator, second], threshold: 2 }))).toBe(
      "threshold_not_met"
    )
  })
  it("names what is not authentic by the whole envelope, never by the order's own digest", () => {
    const result = authenticate(engine, root, { ...signed.envelope, signatures: [] })
    expect(Result.isFailure(result) && result.failure.digest).toBe(signed.digest)
    expect(Result.isFailure(result) && result.failure.key).not.toBe(signed.digest)
  })
})

describe("judgement on an authentic order", () => {
  it("accepts a good one", () => {
    expect(judged({})).toEqual({ kind: "accept" })
    expect(judged({ highWater: null })).toEqual({ kind: "accept" })
  })
  const refusals: ReadonlyArray<readonly [string, Partial<OrderFacts>, Partial<typeof order>]> = [
    ["not_accepted", { accepted: false }, {}],
    ["wrong_device", {}, { device: otherDeviceKeys.id as typeof device }],
    ["lane_unknown", { lanes: new Set(["job"]) }, { lane: "service" }],
    ["wrong_root", {}, { root_version: 2 }],
    ["out_of_order", {}, { counter: 4 }],
    [
      "out_of_order",
      { rootVersion: 2, highWater: { root_version: 2, counter: 1, order_digest: otherDigest } },
      {}
    ],
    ["replayed", { seen: otherDigest }, {}],
    ["expired", { nowMs: order.expires_at_ms }, {}],
    ["not_yet_valid", { nowMs: 0 }, { issued_at_ms: Limits.requestClockSkewMs + 1 }]
  ]
  it.each(refusals)("refuses: %s", (code, changes, other) => {
    expect(judged(changes, { order: { ...order, ...other }, digest: signed.digest })).toMatchObject({
      kind: "refuse",
      code
    })
  })
  it("checks in the documented order when several things are wrong", () => {
    const all = {
      accepted: false,
      lanes: new Set<never>(),
      seen: otherDigest,
      clockProven: false,
      nowMs: order.expires_at_ms
    }
    const worst = { ...order, device: otherDeviceKeys.id as typeof device, root_version: 9, counter: 1 }
    const next = (changes: Partial<OrderFacts>, one: typeof order) => {
      const judgement = judge({ order: one, digest: signed.digest }, { ...facts, ...all, ...changes })
      return "code" in judgement ? judgement.code : judgement.kind
    }
    expect(next({}, worst)).toBe("not_accepted")
    expect(next({ accepted: true }, worst)).toBe("wrong_device")
    const mine = { ...worst, device }
    expect(next({ accepted: true }, mine)).toBe("lane_unknown")
    const lanes = facts.lanes
    expect(next({ accepted: true, lanes }, mine)).toBe("wrong_root")
    expect(next({ accepted: true, lanes }, { ...mine, root_version: 1 })).toBe("out_of_order")
    expect(next({ accepted: true, lanes }, { ...mine, root_version: 1, counter: 5 })).toBe("replayed")
    expect(next({ accepted: true, lanes, seen: null }, { ...mine, root_version: 1, counter: 5 })).toBe(
      "clock_unproven"
    )
    expect(
      next({ accepted: true, lanes, seen: null, clockProven: true }, { ...mine, root_version: 1, counter: 5 })
    ).toBe("expired")
  })
  it("leaves an order with the server for what passes, and knows its own again", () => {
    expect(judged({ clockProven: false })).toEqual({ kind: "later", code: "clock_unproven" })
    expect(judged({ blocked: "disk_low" })).toEqual({ kind: "later", code: "disk_low" })
    expect(
      judged({ seen: signed.digest, highWater: { root_version: 1, counter: 5, order_digest: signed.digest } })
    ).toEqual({ kind: "known" })
  })
  it("compares places by root version first", () => {
    const mark = { root_version: 2, counter: 9, order_digest: otherDigest }
    expect(isAbove(orderOf(1, plan, { root_version: 3 }), mark)).toBe(true)
    expect(isAbove(orderOf(10, plan, { root_version: 2 }), mark)).toBe(true)
    expect(isAbove(orderOf(9, plan, { root_version: 2 }), mark)).toBe(false)
    expect(isAbove(orderOf(99, plan, { root_version: 1 }), mark)).toBe(false)
  })
})
