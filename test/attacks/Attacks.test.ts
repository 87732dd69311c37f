/** The attacks a protocol for work packages must answer, each by its name, on the real device and the real server. */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import type { ApiRequest } from "../../src/adapters/http/Exchange.ts"
import type { PollAnswer } from "../../src/schemas/DeviceApi.ts"
import {
  admissionOf,
  type device as deviceId,
  operator,
  orderOf,
  otherDeviceKeys,
  payloadOf,
  rootOf,
  signAdmission,
  signCancel,
  signOrder,
  signRoot,
  stranger
} from "../actors/support/Parties.ts"
import { good, siege, signedBy } from "./support/Siege.ts"

const minute = 60_000
const hour = 60 * minute

const reasons = (receipts: ReadonlyArray<{ readonly reason: string | null }>) =>
  receipts.map(({ reason }) => reason)

describe("arbitrary software", () => {
  it.effect(
    "arbitrary software: an order that no operator signed is refused, though the server offers it",
    () =>
      Effect.gen(function* () {
        const besieged = yield* siege
        yield* besieged.pollsSay({ orders: [signOrder(orderOf(1, good), stranger).envelope] })
        yield* besieged.device.pass(minute)
        expect(besieged.device.host.runs).toHaveLength(0)
        expect(reasons(yield* besieged.receipts)).toEqual(["unknown_key"])
        expect(yield* besieged.goesOn()).toBe("succeeded")
      })
  )
  it.effect("arbitrary software: another payload in the place of the signed one is not run", () =>
    Effect.gen(function* () {
      const besieged = yield* siege
      const evil = payloadOf(1, { script: ["out:evil", "leave:result:10", "exit:0"], artifacts: ["result"] })
      const same = payloadOf(1, good)
      expect(evil.bytes.length).toBe(same.bytes.length)
      besieged.bends.set("/payloads/", (response) => ({ ...response, body: evil.bytes }))
      const { order } = yield* besieged.submit(1)
      expect(yield* besieged.ended(order.id)).toMatchObject({ state: "rejected", reason: "payload_digest" })
      expect(besieged.device.host.runs).toHaveLength(0)
      expect(besieged.device.host.files.size).toBe(0)
      expect(yield* besieged.goesOn()).toBe("succeeded")
    })
  )
})

describe("rollback and replay", () => {
  it.effect("rollback: an older order, held back until a newer one was taken, is refused", () =>
    Effect.gen(function* () {
      const besieged = yield* siege
      const old = signOrder(orderOf(70, good, { counter: 1 })).envelope
      const { order } = yield* besieged.submit(2, good, { counter: 2 })
      yield* besieged.ended(order.id)
      yield* besieged.pollsSay({ orders: [old] })
      yield* besieged.device.pass(minute)
      expect(besieged.device.host.runs).toHaveLength(1)
      expect(reasons(yield* besieged.receipts)).toEqual([null, "out_of_order"])
    })
  )
  it.effect(
    "job replay: an order that was run is never run again, not after a restart nor when its id is forgotten",
    () =>
      Effect.gen(function* () {
        const besieged = yield* siege
        const { envelope, order } = yield* besieged.submit(1, good, {
          expires_at_ms: 2 * hour,
          deadline_at_ms: 2 * hour
        })
        yield* besieged.ended(order.id)
        yield* besieged.pollsSay({ orders: [envelope], sleep_ms: 5 * minute })
        yield* besieged.device.pass(15 * minute)
        yield* besieged.device.crash
        yield* besieged.device.start
        yield* besieged.device.pass(15 * minute)
        expect(besieged.runsOf(order.id)).toBe(1)
        yield* besieged.device.pass(3 * hour, 60_000)
        expect(besieged.runsOf(order.id)).toBe(1)
        expect(reasons(yield* besieged.receipts)).toEqual([null, "out_of_order"])
      })
  )
  it.effect("job replay: a request of the device sent again changes nothing at the server", () =>
    Effect.gen(function* () {
      const besieged = yield* siege
      const { order } = yield* besieged.submit(1)
      const before = yield* besieged.ended(order.id)
      const handler = besieged.server.life?.handler
      const kept = besieged.seen.filter(({ request }) => request.method !== "GET")
      expect(kept.length).toBeGreaterThan(4)
      for (const { request } of kept) {
        const answer = yield* handler?.(request as ApiRequest) ?? Effect.die("no server")
        expect([401, 410]).toContain(answer.status)
      }
      expect(yield* besieged.job(order.id)).toEqual(before)
    })
  )
})

describe("freeze", () => {
  it.effect(
    "freeze: an order withheld until it expired is refused, and the operator's server shows no receipt until then",
    () =>
      Effect.gen(function* () {
        const besieged = yield* siege
        yield* besieged.pollsSay({ sleep_ms: 5 * minute })
        const { envelope, order } = yield* besieged.submit(1, good, {
          expires_at_ms: hour,
          deadline_at_ms: hour
        })
        yield* besieged.device.pass(hour, 60_000)
        expect((yield* besieged.job(order.id))?.state).toBe("queued")
        yield* besieged.pollsSay({ orders: [envelope] })
        yield* besieged.device.pass(6 * minute)
        expect(besieged.device.host.runs).toHaveLength(0)
        expect(reasons(yield* besieged.receipts)).toEqual(["expired"])
        expect(yield* besieged.goesOn()).toBe("succeeded")
      })
  )
  it.effect("freeze: an old answer kept and shown again is not believed", () =>
    Effect.gen(function* () {
      const besieged = yield* siege
      const old = besieged.seen.findLast(({ request }) => request.path.endsWith("/poll"))
      besieged.lies.set("/poll", () => (old as NonNullable<typeof old>).response)
      const { order } = yield* besieged.submit(1)
      yield* besieged.device.pass(5 * minute)
      expect(besieged.device.host.runs).toHaveLength(0)
      yield* besieged.honest
      expect((yield* besieged.ended(order.id)).state).toBe("succeeded")
    })
  )
})

describe("fast-forward", () => {
  it.effect(
    "fast-forward: a claim of roots that do not exist holds back orders only as long as it is made",
    () =>
      Effect.gen(function* () {
        const besieged = yield* siege
        const { envelope, order } = yield* besieged.submit(1)
        yield* besieged.pollsSay({ orders: [envelope] }, { root_version: 2_000_000_000 })
        yield* besieged.device.pass(5 * minute)
        expect(besieged.device.host.runs).toHaveLength(0)
        yield* besieged.honest
        const second = signRoot(rootOf({ version: 2 })).envelope
        yield* besieged.server.registrar?.ask("PublishRoot", { envelope: second, actor: "operator" }) ??
          Effect.void
        const ended = yield* besieged.ended(order.id, 24 * hour)
        expect(ended.state).toBe("succeeded")
      })
  )
})

describe("mix-and-match", () => {
  it.effect("mix-and-match: the signatures of one order do not carry another, nor do those of a cancel", () =>
    Effect.gen(function* () {
      const besieged = yield* siege
      const one = signOrder(orderOf(1, good)).envelope
      const two = signOrder(orderOf(2, good)).envelope
      const cancel = signCancel(orderOf(3, good).id)
      yield* besieged.pollsSay({
        orders: [{ ...one, signatures: two.signatures }, { ...two, signatures: cancel.signatures }, cancel]
      })
      yield* besieged.device.pass(minute)
      expect(besieged.device.host.runs).toHaveLength(0)
      expect(reasons(yield* besieged.receipts)).toEqual(["bad_signature", "bad_signature", "malformed"])
      // None of the three spoiled the genuine order of the same id.
      yield* besieged.honest
      const { order } = yield* besieged.submit(1)
      expect((yield* besieged.ended(order.id)).state).toBe("succeeded")
    })
  )
  it.effect("mix-and-match: the payload of one order is not run for another", () =>
    Effect.gen(function* () {
      const besieged = yield* siege
      const other = payloadOf(2, good)
      besieged.bends.set("/payloads/", (response) => ({ ...response, body: other.bytes }))
      const { order } = yield* besieged.submit(1)
      expect((yield* besieged.ended(order.id)).reason).toBe("payload_digest")
      expect(besieged.device.host.runs).toHaveLength(0)
    })
  )
})

describe("partial bundle, endless data, slow retrieval", () => {
  it.effect("partial bundle: half a payload is never staged; the rest is fetched when it comes", () =>
    Effect.gen(function* () {
      const besieged = yield* siege
      const { bytes } = payloadOf(1, good)
      besieged.bends.set("/payloads/", (response) =>
        response.status === 200 ? { ...response, body: bytes.slice(0, bytes.length / 2) } : response
      )
      const { order } = yield* besieged.submit(1)
      yield* besieged.device.until(
        () => (besieged.device.host.files.get(order.id)?.length ?? 0) > 0,
        "the half"
      )
      expect(besieged.device.host.runs).toHaveLength(0)
      expect((yield* besieged.ended(order.id)).state).toBe("succeeded")
      expect(besieged.runsOf(order.id)).toBe(1)
    })
  )
  it.effect(
    "partial bundle: what a power cut spoiled of a download is fetched anew, and does not end the order",
    () =>
      Effect.gen(function* () {
        const besieged = yield* siege
        const { device } = besieged
        const { bytes } = payloadOf(1, good)
        besieged.bends.set("/payloads/", (response) =>
          response.status === 200 ? { ...response, body: bytes.slice(0, bytes.length / 2) } : response
        )
        const { order } = yield* besieged.submit(1)
        yield* device.until(() => (device.host.files.get(order.id)?.length ?? 0) > 0, "the half")
        yield* device.crash
        device.host.files.set(order.id, new Uint8Array(bytes.length / 2))
        yield* besieged.honest
        yield* device.start
        expect((yield* besieged.ended(order.id)).state).toBe("succeeded")
        expect(besieged.runsOf(order.id)).toBe(1)
      })
  )
  it.effect(
    "endless data: a payload longer than signed, and an answer longer than allowed, are cut off",
    () =>
      Effect.gen(function* () {
        const besieged = yield* siege
        besieged.bends.set("/payloads/", (response) => ({ ...response, body: new Uint8Array(1_000_000) }))
        const { order } = yield* besieged.submit(1)
        expect((yield* besieged.ended(order.id)).reason).toBe("payload_size")
        expect(besieged.device.host.files.size).toBe(0)
        besieged.lies.set("/poll", (request) =>
          signedBy(request, null, { bodyBytes: new Uint8Array(5 * 1024 * 1024).fill(0x20) })
        )
        yield* besieged.device.pass(minute)
        expect(yield* besieged.goesOn()).toBe("succeeded")
      })
  )
  it.effect(
    "slow retrieval: a payload that never comes holds up no other order, and is refused when its time is over",
    () =>
      Effect.gen(function* () {
        const besieged = yield* siege
        const slow = payloadOf(1, good).digest
        besieged.lies.set(slow, () => ({ status: 504, headers: {}, body: new Uint8Array(0) }))
        const first = yield* besieged.submit(1, good, { expires_at_ms: hour, deadline_at_ms: hour })
        const second = yield* besieged.submit(2)
        expect((yield* besieged.ended(second.order.id)).state).toBe("succeeded")
        expect((yield* besieged.ended(first.order.id, 2 * hour)).state).toBe("rejected")
        expect(besieged.runsOf(first.order.id)).toBe(0)
      })
  )
})

describe("wrong device", () => {
  it.effect("wrong device: orders, cancels and acceptances for another device change nothing here", () =>
    Effect.gen(function* () {
      const besieged = yield* siege
      const other = otherDeviceKeys.id as typeof deviceId
      const { order } = yield* besieged.submit(1, { script: ["sleep:60000", "exit:0"] })
      yield* besieged.device.until(() => besieged.device.host.runs.length === 1, "the run")
      const admission = admissionOf("a".repeat(26) as never, {
        decision: "revoke",
        device: other,
        signing_key: otherDeviceKeys.signingKey,
        recipient: otherDeviceKeys.recipient,
        sequence: 9
      })
      yield* besieged.pollsSay({
        orders: [signOrder(orderOf(7, good, { device: other })).envelope],
        cancels: [signCancel(order.id, { device: other })],
        admission: signAdmission(admission)
      })
      yield* besieged.device.pass(30_000)
      yield* besieged.honest
      expect((yield* besieged.ended(order.id)).state).toBe("succeeded")
      expect(reasons(yield* besieged.receipts)).toEqual(["wrong_device", null])
    })
  )
})

describe("malicious mirror", () => {
  it.effect(
    "malicious mirror: whoever answers without the server's key is not believed, whatever it says",
    () =>
      Effect.gen(function* () {
        const besieged = yield* siege
        const { envelope, order } = yield* besieged.submit(1)
        const answer: PollAnswer = {
          orders: [envelope],
          cancels: [signCancel(order.id)],
          stops: [order.id],
          admission: null,
          objection: "cloned",
          sleep_ms: 3_600_000
        }
        besieged.lies.set("/poll", (request) => signedBy(request, answer, {}, otherDeviceKeys))
        yield* besieged.device.pass(5 * minute)
        expect(besieged.device.host.runs).toHaveLength(0)
        yield* besieged.honest
        expect((yield* besieged.ended(order.id)).state).toBe("succeeded")
      })
  )
})

describe("key compromise", () => {
  it.effect("key compromise: an operator's key that a new root took away signs nothing any more", () =>
    Effect.gen(function* () {
      const besieged = yield* siege
      const second = signRoot(rootOf({ version: 2, operators: [stranger] })).envelope
      yield* besieged.server.registrar?.ask("PublishRoot", { envelope: second, actor: "operator" }) ??
        Effect.void
      yield* besieged.device.pass(minute)
      yield* besieged.pollsSay(
        { orders: [signOrder(orderOf(1, good, { root_version: 2 }), operator).envelope] },
        { root_version: 2 }
      )
      yield* besieged.device.pass(minute)
      expect(besieged.device.host.runs).toHaveLength(0)
      expect(reasons(yield* besieged.receipts)).toEqual(["unknown_key"])
      yield* besieged.honest
      const { order } = yield* besieged.submit(2, good, { root_version: 2 }, stranger)
      expect((yield* besieged.ended(order.id)).state).toBe("succeeded")
    })
  )
  it.effect("key compromise: the server's key alone makes no order, cancel, acceptance or root", () =>
    Effect.gen(function* () {
      const besieged = yield* siege
      const { order } = yield* besieged.submit(1, { script: ["sleep:30000", "exit:0"] })
      yield* besieged.device.until(() => besieged.device.host.runs.length === 1, "the run")
      const forgedRoot = rootOf({ version: 2, operators: [stranger] })
      besieged.lies.set("/roots", () => ({
        status: 200,
        headers: {},
        body: Buffer.from(JSON.stringify({ roots: [{ ...signRoot(forgedRoot).envelope, signatures: [] }] }))
      }))
      yield* besieged.pollsSay(
        {
          cancels: [signCancel(order.id, {}, stranger)],
          admission: signAdmission(
            admissionOf(besieged.device.ledger?.incarnation as never, { decision: "revoke", sequence: 9 }),
            stranger
          )
        },
        { root_version: 2 }
      )
      yield* besieged.device.pass(10_000)
      yield* besieged.honest
      expect(besieged.device.host.runs).toHaveLength(1)
      expect((yield* besieged.ended(order.id, 24 * hour)).state).toBe("succeeded")
    })
  )
})

describe("forged or swapped result", () => {
  it.effect(
    "forged or swapped result: a receipt changed on its way is refused, and the true one comes through later",
    () =>
      Effect.gen(function* () {
        const besieged = yield* siege
        // An acknowledgement of something else: the device must keep its receipt.
        besieged.lies.set("/receipts", (request) =>
          signedBy(request, { acknowledged: [{ number: 1, digest: `sha256:${"0".repeat(64)}` }] })
        )
        const { digest, order } = yield* besieged.submit(1)
        yield* besieged.device.pass(minute)
        expect((yield* besieged.job(order.id))?.state).not.toBe("succeeded")
        yield* besieged.honest
        expect((yield* besieged.ended(order.id, hour)).state).toBe("succeeded")
        expect((yield* besieged.receipts).map((receipt) => receipt.order_digest)).toEqual([digest])
      })
  )
})
