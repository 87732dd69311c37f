/** How a device comes to trust a server and its operators, and what it believes of them later. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Redacted, Result } from "effect"
import { TrustKeeperKey } from "../../src/actors/ClientKeys.ts"
import { keptEnrolAddresses } from "../../src/actors/EnrolAddresses.ts"
import { proveInvitation } from "../../src/crypto/Invitations.ts"
import { verifyEnrolment } from "../../src/crypto/Trust.ts"
import { Ledger } from "../../src/ports/Ledger.ts"
import type { Digest } from "../../src/schemas/Ids.ts"
import {
  admissionOf,
  device as deviceId,
  engine,
  firstRootEnvelope,
  keyOf,
  operator,
  orderId,
  otherDeviceKeys,
  recovery,
  rootOf,
  server as serverId,
  signAdmission,
  signRoot,
  stranger
} from "./support/Parties.ts"
import { deviceUnderTest, type TestDevice } from "./support/TestDevice.ts"

const newcomers = `http://${"b".repeat(55)}d.onion`
const good = { script: ["exit:0"] }
const hour = 3_600_000

const viewOf = (device: TestDevice) =>
  Effect.orDie((device.system as NonNullable<TestDevice["system"]>).ref(TrustKeeperKey).ask("View"))

const accept = (device: TestDevice, changes: Parameters<typeof admissionOf>[1] = {}, key = operator) => {
  device.server.admission = signAdmission(admissionOf(device.ledger?.incarnation as never, changes), key)
  device.server.status = "accepted"
}

const enrolmentIn = (device: TestDevice, index = 0) => {
  const verified = verifyEnrolment(engine, device.server.enrolments[index])
  return Result.getOrThrow(verified).document
}

describe("enrolment", () => {
  it.effect("leaves the device with the address for newcomers, whatever it is started with later", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest({ accepted: false, enrolAddresses: [newcomers] })
      const ledger = Effect.sync(() => device.ledger as NonNullable<TestDevice["ledger"]>)
      const kept = Effect.flatMap(ledger, (held) => Effect.provideService(keptEnrolAddresses, Ledger, held))
      yield* device.until(() => device.server.enrolments.length > 0, "a request")
      yield* device.crash
      device.server.enrolAddresses = []
      yield* device.start
      expect(yield* kept).toEqual([newcomers])
      const held = yield* ledger
      yield* held.setNote("enrol_addresses", '["no address"]')
      expect(yield* kept).toEqual([])
    })
  )

  it.effect("by claim code: shown until an operator accepts", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest({ accepted: false })
      yield* device.until(() => device.server.enrolments.length > 2, "some requests")
      const waiting = yield* viewOf(device)
      expect(waiting.phase).toBe("not_enrolled")
      expect(waiting.claimCode).toMatch(/^[A-Z2-7]{4}(-[A-Z2-7]{4}){3}$/)
      expect(device.server.polls).toHaveLength(0)
      expect(enrolmentIn(device)).toMatchObject({
        device: deviceId,
        server: serverId,
        root_digest: firstRootEnvelope.digest,
        invitation: null
      })
      accept(device)
      yield* device.until(() => device.server.polls.length > 0, "the first poll")
      expect(yield* viewOf(device)).toMatchObject({
        phase: "accepted",
        claimCode: null,
        name: "pi",
        admissionSequence: 1
      })
    })
  )
  it.effect("by invitation: the proof is over device, server and root", () =>
    Effect.gen(function* () {
      const secret = "a".repeat(32)
      const invitation = {
        server: serverId,
        rootDigest: firstRootEnvelope.digest,
        secret: Redacted.make(secret)
      }
      const device = yield* deviceUnderTest({ accepted: false, trust: { invitation, name: null } })
      yield* device.until(() => device.server.enrolments.length > 0, "the request")
      const request = enrolmentIn(device)
      const bound = { device: deviceId, server: serverId, rootDigest: firstRootEnvelope.digest }
      expect(request.invitation).toEqual(proveInvitation(engine, secret, bound))
      expect(JSON.stringify(device.server.enrolments)).not.toContain(secret)
    })
  )
  it.effect("refuses a root that is not the invitation's", () =>
    Effect.gen(function* () {
      const invitation = {
        server: serverId,
        rootDigest: `sha256:${"0".repeat(64)}` as Digest,
        secret: Redacted.make("a".repeat(32))
      }
      const device = yield* deviceUnderTest({ accepted: false, trust: { invitation, name: null } })
      yield* device.pass(120_000)
      expect(device.server.enrolments).toHaveLength(0)
      expect(yield* viewOf(device)).toMatchObject({ held: null, phase: "not_enrolled" })
    })
  )
  it.effect("refuses a server that its own root does not name", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest({ accepted: false })
      device.server.roots = [signRoot({ ...rootOf(), servers: [] }).envelope]
      yield* device.pass(60_000)
      expect(device.server.enrolments).toHaveLength(0)
      expect((yield* viewOf(device)).detail).toContain("does not name the server")
    })
  )
  it.effect("waits for a server that has no root yet, or is not reached", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest({ accepted: false })
      const roots = device.server.roots
      device.server.roots = []
      yield* device.pass(60_000)
      expect((yield* viewOf(device)).detail).toContain("no trust root yet")
      device.server.online = false
      yield* device.pass(600_000, 10_000)
      device.server.roots = roots
      device.server.online = true
      accept(device)
      device.server.submit(1, good)
      yield* device.until(() => device.server.receipts.length > 0, "the first receipt")
      expect(device.server.receipts[0]).toMatchObject({ state: "succeeded" })
    })
  )
  it.effect("believes only what an operator signed about this very device", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest({ accepted: false })
      const others = otherDeviceKeys
      const wrong: ReadonlyArray<() => void> = [
        () => accept(device, {}, stranger),
        () =>
          accept(device, {
            device: others.id as typeof deviceId,
            signing_key: others.signingKey,
            recipient: others.recipient
          }),
        () => accept(device, { signing_key: others.signingKey }),
        () => accept(device, { incarnation: "b".repeat(26) as never })
      ]
      for (const offer of wrong) {
        offer()
        yield* device.pass(60_000)
        expect((yield* viewOf(device)).phase).toBe("not_enrolled")
      }
      expect(device.server.polls).toHaveLength(0)
      accept(device, { sequence: 9 })
      yield* device.until(() => device.server.polls.length > 0, "the first poll")
    })
  )
  it.effect("obeys a rejection, a later acceptance, and no decision that is older", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest({ accepted: false })
      accept(device, { decision: "reject", sequence: 5 })
      yield* device.until(() => device.server.enrolments.length > 0, "the request")
      yield* device.pass(1_000)
      expect((yield* viewOf(device)).phase).toBe("rejected")
      accept(device, { sequence: 4 })
      yield* device.pass(hour, 10_000)
      expect((yield* viewOf(device)).phase).toBe("rejected")
      accept(device, { sequence: 6 })
      yield* device.until(() => device.server.polls.length > 0, "the first poll", hour)
    })
  )
})

describe("an accepted device", () => {
  it.effect("knows it after a restart without any network", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.until(() => device.server.polls.length > 0, "the first poll")
      yield* device.crash
      device.server.online = false
      yield* device.start
      yield* device.pass(10_000)
      expect(yield* viewOf(device)).toMatchObject({ phase: "accepted", name: "pi" })
      device.server.online = true
      device.server.submit(1, good)
      yield* device.until(() => device.server.receipts.length > 0, "the receipt")
    })
  )
  it.effect("stops polling when it is revoked, and says so", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.until(() => device.server.polls.length > 0, "the first poll")
      accept(device, { decision: "revoke", sequence: 2 })
      device.server.stir()
      yield* device.pass(60_000)
      const polls = device.server.polls.length
      yield* device.pass(600_000, 10_000)
      expect(device.server.polls).toHaveLength(polls)
      expect((yield* viewOf(device)).phase).toBe("revoked")
    })
  )
  it.effect("does not run what waits in its ledger once it is revoked", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.submit(1, { script: ["sleep:60000", "exit:0"] })
      device.server.submit(2, good)
      yield* device.until(() => device.host.runs.length === 1, "the first run")
      accept(device, { decision: "revoke", sequence: 2 })
      device.server.stir()
      yield* device.until(() => device.server.receipts.length === 2, "both receipts")
      expect(device.server.receiptOf(orderId(1))).toMatchObject({ state: "succeeded" })
      expect(device.server.receiptOf(orderId(2))).toMatchObject({ state: "rejected", reason: "not_accepted" })
    })
  )
  it.effect("asks to be let in again when the server does not know it", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.until(() => device.server.polls.length > 0, "the first poll")
      const before = device.server.enrolments.length
      device.server.refusals.poll = "unknown_device"
      device.server.stir()
      yield* device.until(() => device.server.enrolments.length > before, "the new request")
      delete device.server.refusals.poll
      device.server.submit(1, good)
      yield* device.until(() => device.server.receipts.length > 0, "the receipt")
    })
  )
  it.effect.each(["ledger_rolled_back", "cloned"] as const)(
    "takes no orders after an objection until an operator has accepted it again: %s",
    (objection) =>
      Effect.gen(function* () {
        const device = yield* deviceUnderTest()
        yield* device.until(() => device.server.polls.length > 0, "the first poll")
        const enrolments = device.server.enrolments.length
        device.server.objection = objection
        yield* device.until(() => device.server.polls.at(-1)?.blocked === objection, "the poll that says so")
        expect(device.server.polls.at(-1)?.free_lanes).toEqual([])
        yield* device.until(
          () => device.server.enrolments.length > enrolments,
          "its asking for a new decision"
        )
        device.server.objection = null
        accept(device, { sequence: 2 })
        device.server.submit(1, good)
        yield* device.until(() => device.server.receipts.length > 0, "the receipt")
        expect(device.server.receipts[0]).toMatchObject({ state: "succeeded" })
      })
  )
})

describe("the trust root", () => {
  const second = keyOf("second operator")

  it.effect("is followed along its chain, and its orders count above the old ones", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.submit(7, good)
      yield* device.until(() => device.server.receipts.length === 1, "the first receipt")
      device.server.roots.push(signRoot(rootOf({ version: 2, operators: [second] })).envelope)
      yield* device.until(() => device.server.polls.at(-1)?.root_version === 2, "the new root", hour)
      const order = device.server.submit(8, good, { root_version: 2 }, second)
      yield* device.until(() => device.server.receipts.length === 2, "the second receipt")
      expect(device.server.receiptOf(order.id)).toMatchObject({ state: "succeeded", root_version: 2 })
    })
  )
  it.effect("takes an operator's power over what is not begun yet", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.submit(1, { script: ["sleep:60000", "exit:0"] })
      device.server.submit(2, good)
      yield* device.until(() => device.host.runs.length === 1, "the first run")
      device.server.roots.push(signRoot(rootOf({ version: 2, operators: [second] })).envelope)
      yield* device.until(() => device.server.receipts.length === 2, "both receipts")
      expect(device.server.receiptOf(orderId(1))).toMatchObject({ state: "succeeded" })
      expect(device.server.receiptOf(orderId(2))).toMatchObject({ state: "rejected", reason: "unknown_key" })
      yield* device.crash
      yield* device.start
      yield* device.pass(10_000)
      expect((yield* viewOf(device)).phase).toBe("accepted")
    })
  )
  it.effect("is not replaced by one that the old one did not sign", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.until(() => device.server.polls.length > 0, "the first poll")
      const usurped = rootOf({ version: 2, operators: [stranger] })
      const forged = {
        ...usurped,
        roles: { ...usurped.roles, root: { keys: [stranger.keyId], threshold: 1 } }
      }
      device.server.roots.push(signRoot(forged).envelope)
      yield* device.pass(120_000)
      expect((yield* viewOf(device)).held?.root.version).toBe(1)
      expect(recovery.keyId).not.toBe(stranger.keyId)
    })
  )
  it.effect("when expired: nothing new is run, polls and receipts go on, a successor is taken", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.roots = [signRoot(rootOf({ expiresAtMs: hour })).envelope]
      device.server.submit(1, good)
      yield* device.until(() => device.server.receipts.length === 1, "the first receipt")
      yield* device.pass(hour, 10_000)
      device.server.submit(2, good)
      yield* device.until(
        () => device.server.polls.at(-1)?.blocked === "root_expired",
        "the poll that says so"
      )
      yield* device.pass(hour, 10_000)
      expect(device.server.receipts).toHaveLength(1)
      device.server.roots.push(signRoot(rootOf({ version: 2 })).envelope)
      yield* device.until(() => device.server.receipts.length === 2, "the second receipt", hour)
      expect(device.server.receipts[1]).toMatchObject({ state: "succeeded", root_version: 2 })
    })
  )
})
