/** Every reason to refuse, through the whole device; after each it runs the next good order. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { encodeBase64 } from "../../src/crypto/Base64.ts"
import { canonicalBytes } from "../../src/crypto/CanonicalJson.ts"
import { Limits } from "../../src/schemas/Limits.ts"
import type { RefusalCode } from "../../src/schemas/Refusals.ts"
import { refusalTexts } from "../../src/schemas/Refusals.ts"
import {
  admissionOf,
  type device as deviceId,
  operator,
  orderId,
  orderOf,
  otherDeviceKeys,
  type PackagePlan,
  rootOf,
  signAdmission,
  signCancel,
  signOrder,
  signRoot,
  stranger
} from "./support/Parties.ts"
import { deviceUnderTest, type TestDevice } from "./support/TestDevice.ts"

const good: PackagePlan = { script: ["out:fine", "exit:0"] }

/** The device runs a good order, whatever happened before. */
const goesOn = (device: TestDevice, n = 50) =>
  Effect.gen(function* () {
    const order = device.server.submit(n, good)
    yield* device.until(() => device.server.receiptOf(order.id) !== undefined, "the next good order")
    expect(device.server.receiptOf(order.id)).toMatchObject({ state: "succeeded", reason: null })
    expect(device.host.files.size).toBe(0)
  })

const refusedWith = (device: TestDevice, code: RefusalCode) =>
  Effect.gen(function* () {
    yield* device.until(() => device.server.receipts.length > 0, `a receipt that says ${code}`)
    expect(device.server.receipts[0]).toMatchObject({
      state: "rejected",
      reason: code,
      number: 1,
      attempts: 0,
      output: null
    })
    expect(device.host.runs).toHaveLength(0)
    expect(device.host.files.size).toBe(0)
  })

const hour = 3_600_000
const order = orderOf(1, good)

/** Refusals that come of the envelope alone. */
const byEnvelope: Partial<Record<RefusalCode, (device: TestDevice) => void>> = {
  too_large: ({ server }) => {
    server.offer({
      ...signOrder(order).envelope,
      payload: encodeBase64(new Uint8Array(Limits.envelopeBytes))
    })
  },
  malformed: ({ server }) =>
    server.offer({ ...signOrder(order).envelope, payloadType: "application/vnd.postern.cancel+json" }),
  unknown_key: ({ server }) => server.offer(signOrder(order, stranger).envelope),
  bad_signature: ({ server }) => {
    server.offer({
      ...signOrder(order).envelope,
      payload: encodeBase64(canonicalBytes({ ...order, counter: 7 }))
    })
  },
  wrong_device: ({ server }) =>
    server.offer(signOrder({ ...order, device: otherDeviceKeys.id as typeof deviceId }).envelope),
  wrong_root: ({ server }) => server.offer(signOrder({ ...order, root_version: 2 }).envelope),
  expired: ({ server }) =>
    server.offer(signOrder({ ...order, expires_at_ms: 1, deadline_at_ms: 1 }).envelope),
  not_yet_valid: ({ server }) => {
    server.offer(
      signOrder({ ...order, issued_at_ms: 9 * hour, expires_at_ms: 99 * hour, deadline_at_ms: 99 * hour })
        .envelope
    )
  }
}

/** Refusals that come of the payload, as staging finds it. */
const byPayload: ReadonlyArray<RefusalCode> = [
  "payload_not_for_us",
  "payload_decrypt",
  "payload_decompress",
  "payload_unpacked_size",
  "payload_entries",
  "entry_forbidden",
  "manifest_missing",
  "manifest_malformed",
  "file_unlisted",
  "file_missing",
  "file_digest"
]

const tested = new Set<RefusalCode>([...(Object.keys(byEnvelope) as Array<RefusalCode>), ...byPayload])

const test = (
  code: RefusalCode,
  name: string,
  run: (device: TestDevice) => Effect.Effect<void, unknown, Scope.Scope>,
  options = {}
) => {
  tested.add(code)
  it.effect(`${code}: ${name}`, () => Effect.flatMap(deviceUnderTest(options), run))
}

describe("an order is refused by its envelope", () => {
  for (const [code, offer] of Object.entries(byEnvelope) as Array<
    [RefusalCode, (device: TestDevice) => void]
  >) {
    it.effect(code, () =>
      Effect.gen(function* () {
        const device = yield* deviceUnderTest()
        yield* device.pass(5_000)
        offer(device)
        yield* refusedWith(device, code)
        // The server offers it again as long as it likes: one receipt is enough.
        yield* device.pass(60_000)
        expect(device.server.receipts).toHaveLength(1)
        yield* goesOn(device)
      })
    )
  }
  it.effect("an envelope without good signatures does not spoil the order with the same id", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      const { envelope } = signOrder(order)
      device.server.offer({ ...envelope, signatures: [] })
      yield* refusedWith(device, "unknown_key")
      device.server.receipts.length = 0
      device.server.submit(1, good)
      yield* device.until(() => device.server.receipts.length > 0, "the real order's receipt")
      expect(device.server.receiptOf(order.id)).toMatchObject({ state: "succeeded", number: 2 })
    })
  )
})

describe("an order is refused by its payload", () => {
  it.effect.each(byPayload)("%s", (code) =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.submit(1, { ...good, refuse: code })
      yield* refusedWith(device, code)
      yield* goesOn(device)
    })
  )
  test("payload_missing", "the server lacks it", (device) =>
    Effect.gen(function* () {
      const submitted = device.server.submit(1, good)
      device.server.payloads.delete(submitted.payload.digest)
      yield* refusedWith(device, "payload_missing")
      yield* goesOn(device)
    })
  )
  test("payload_size", "more comes than was signed", (device) =>
    Effect.gen(function* () {
      const submitted = device.server.submit(1, good)
      device.server.payloads.set(submitted.payload.digest, new Uint8Array(submitted.payload.size_bytes + 1))
      yield* refusedWith(device, "payload_size")
      yield* goesOn(device)
    })
  )
  test("payload_digest", "other bytes come", (device) =>
    Effect.gen(function* () {
      const submitted = device.server.submit(1, good)
      device.server.payloads.set(submitted.payload.digest, new Uint8Array(submitted.payload.size_bytes))
      yield* refusedWith(device, "payload_digest")
      yield* goesOn(device)
    })
  )
  test(
    "payload_too_slow",
    "it trickles until the order expires",
    (device) =>
      Effect.gen(function* () {
        device.server.blockMs = 200_000
        const submitted = device.server.submit(1, good, { expires_at_ms: hour, deadline_at_ms: hour })
        yield* device.until(() => device.server.receipts.length > 0, "the refusal", 2 * hour, 1_000)
        expect(device.server.receiptOf(submitted.id)).toMatchObject({
          state: "rejected",
          reason: "payload_too_slow"
        })
        device.server.blockMs = 0
        yield* goesOn(device)
      }),
    { config: { download_minimum_rate: 1_000 } }
  )
  test("grant_refused", "it asks for what the device does not lend", (device) =>
    Effect.gen(function* () {
      device.server.submit(1, { ...good, grants: { devices: ["camera"], read_only: [] } })
      yield* refusedWith(device, "grant_refused")
      expect(device.server.receipts[0]?.detail).toContain("camera")
      yield* goesOn(device)
    })
  )
  test(
    "limit_refused",
    "it asks for more than the device allows",
    (device) =>
      Effect.gen(function* () {
        device.server.submit(1, { ...good, limits: { memory_bytes: 512 * 1024 * 1024 } })
        yield* refusedWith(device, "limit_refused")
        device.server.submit(2, { ...good, limits: { memory_bytes: 64 * 1024 * 1024 } })
        yield* device.until(() => device.server.receipts.length > 1, "the smaller one")
        expect(device.server.receipts[1]).toMatchObject({ state: "succeeded" })
      }),
    { config: { job_limits: { memory_bytes: 64 * 1024 * 1024 } } }
  )
})

describe("an order is refused by its place", () => {
  test("out_of_order", "its counter lies below the last one", (device) =>
    Effect.gen(function* () {
      yield* goesOn(device, 20)
      device.server.rude = true
      device.server.submit(10, good)
      yield* device.until(() => device.server.receipts.length === 2, "the refusal")
      expect(device.server.receiptOf(orderId(10))).toMatchObject({
        state: "rejected",
        reason: "out_of_order"
      })
      yield* goesOn(device, 21)
    })
  )
  test("replayed", "another order has its id", (device) =>
    Effect.gen(function* () {
      yield* goesOn(device, 20)
      const second = device.server.submit(21, good, { id: orderId(20) })
      yield* device.until(() => device.server.receipts.length === 2, "the refusal")
      expect(device.server.receipts[1]).toMatchObject({
        order: second.id,
        state: "rejected",
        reason: "replayed"
      })
      expect(device.host.runs).toHaveLength(1)
      yield* goesOn(device, 22)
    })
  )
  it.effect("the same order come again changes nothing, while it runs and after", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.rude = true
      const submitted = device.server.submit(1, { script: ["sleep:60000", "exit:0"] })
      yield* device.pass(30_000)
      yield* device.until(() => device.server.receipts.length > 0, "the receipt")
      device.server.receipts.length = 0
      device.server.unacknowledged.clear()
      yield* device.pass(60_000)
      expect(device.host.runs.filter((run) => run.order === submitted.id)).toHaveLength(1)
      expect(device.server.receipts).toHaveLength(0)
      yield* goesOn(device)
    })
  )
  test("canceled", "a cancel was there before it", (device) =>
    Effect.gen(function* () {
      device.server.cancels.push(signCancel(orderId(1)))
      device.server.stir()
      yield* device.until(
        () => (device.server.polls.at(-1)?.cancels_seen.length ?? 0) === 1,
        "the cancel being known"
      )
      device.server.submit(1, good)
      yield* device.until(() => device.server.receipts.length > 0, "the receipt")
      expect(device.server.receipts[0]).toMatchObject({ state: "canceled", reason: "canceled", attempts: 0 })
      expect(device.host.runs).toHaveLength(0)
      yield* goesOn(device)
    })
  )
})

describe("an order is refused by the state of trust", () => {
  test("threshold_not_met", "the new root asks for two operators", (device) =>
    Effect.gen(function* () {
      yield* device.until(() => device.server.polls.length > 0, "the first poll")
      const next = rootOf({ version: 2, operators: [stranger, operator], threshold: 2 })
      device.server.roots.push(signRoot(next).envelope)
      yield* device.until(() => (device.server.polls.at(-1)?.root_version ?? 0) === 2, "the new root")
      device.server.offer(signOrder({ ...order, root_version: 2 }).envelope)
      yield* refusedWith(device, "threshold_not_met")
    })
  )
  test("not_accepted", "the device is revoked in the same answer", (device) =>
    Effect.gen(function* () {
      yield* goesOn(device, 20)
      device.server.admission = signAdmission(
        admissionOf(device.ledger?.incarnation as never, { decision: "revoke", sequence: 2 })
      )
      device.server.submit(21, good)
      yield* device.until(
        () => device.trace.length > 0 && device.server.enrolments.length > 1,
        "the device asking again"
      )
      device.server.admission = signAdmission(
        admissionOf(device.ledger?.incarnation as never, { sequence: 3 })
      )
      yield* device.until(() => device.server.receipts.length === 2, "the refusal", 3 * hour, 1_000)
      expect(device.server.receipts[1]).toMatchObject({
        order: orderId(21),
        state: "rejected",
        reason: "not_accepted"
      })
      yield* goesOn(device, 22)
    })
  )
})

describe("an order waits for what passes", () => {
  test("no_jail", "reported with the poll; an order that was accepted before is refused", (device) =>
    Effect.gen(function* () {
      yield* goesOn(device, 1)
      device.host.jailProblem = "bubblewrap is gone"
      device.server.submit(2, good)
      yield* device.until(() => device.server.receipts.length === 2, "the refusal")
      expect(device.server.receiptOf(orderId(2))).toMatchObject({
        state: "rejected",
        reason: "no_jail",
        attempts: 1
      })
      expect(device.host.runs).toHaveLength(1)
      yield* device.until(() => device.server.polls.at(-1)?.blocked === "no_jail", "the poll that says so")
      expect(device.server.polls.at(-1)?.free_lanes).toEqual([])
      device.server.submit(3, good)
      yield* device.pass(60_000)
      expect(device.server.receiptOf(orderId(3))).toBeUndefined()
      device.host.jailProblem = null
      yield* device.until(() => device.server.receipts.length === 3, "the order that waited")
      expect(device.server.receiptOf(orderId(3))).toMatchObject({ state: "succeeded" })
    })
  )
  test("disk_low", "reported with the poll; refused when it expires first", (device) =>
    Effect.gen(function* () {
      yield* goesOn(device, 1)
      device.host.freeDiskBytes = 70 * 1024 * 1024
      const large = device.server.submit(2, good, {
        payload: { ...orderOf(2, good).payload, unpacked_bytes: 50 * 1024 * 1024 },
        expires_at_ms: hour,
        deadline_at_ms: hour
      })
      yield* device.until(
        () => device.server.receiptOf(large.id) !== undefined,
        "the refusal",
        2 * hour,
        10_000
      )
      expect(device.server.receiptOf(large.id)).toMatchObject({ state: "rejected", reason: "disk_low" })
      device.host.freeDiskBytes = 10
      yield* device.until(() => device.server.polls.at(-1)?.blocked === "disk_low", "the poll that says so")
      device.server.submit(3, good)
      yield* device.pass(60_000)
      expect(device.host.runs).toHaveLength(1)
      device.host.freeDiskBytes = 1_000_000_000
      yield* device.until(() => device.server.receiptOf(orderId(3)) !== undefined, "the order that waited")
      expect(device.server.receiptOf(orderId(3))).toMatchObject({ state: "succeeded" })
    })
  )
  test("clock_unproven", "the poll that proves the time takes no orders, the next one does", (device) =>
    Effect.gen(function* () {
      yield* goesOn(device, 1)
      expect(device.server.polls[0]).toMatchObject({ blocked: null })
      yield* device.stop
      device.server.polls.length = 0
      yield* device.start
      device.server.submit(2, good)
      yield* device.until(
        () => device.server.receiptOf(orderId(2)) !== undefined,
        "the order after the restart"
      )
      expect(device.server.polls[0]).toMatchObject({ blocked: "clock_unproven", free_lanes: [], wait_ms: 0 })
    })
  )
})

describe("the table of refusals", () => {
  it("has a test for every code that an order can meet", () => {
    // lane_unknown: this device has both lanes, see OrderChecks.test.ts; outbox_full: see OutboxFull.test.ts;
    // ledger_doubtful: see attacks/RestoredLedger.test.ts.
    const elsewhere = new Set(["lane_unknown", "outbox_full", "ledger_doubtful"])
    const missing = Object.keys(refusalTexts).filter(
      (code) => !tested.has(code as RefusalCode) && !elsewhere.has(code)
    )
    expect(missing).toEqual([])
  })
})
