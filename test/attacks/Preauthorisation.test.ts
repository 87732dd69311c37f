/** Letting devices in beforehand: only whom an operator meant, once, and without a way for the server to swap keys. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Redacted } from "effect"
import { TestClock } from "effect/testing"
import { TrustKeeperKey } from "../../src/actors/ClientKeys.ts"
import { RegistrarKey } from "../../src/actors/ServerKeys.ts"
import type { NodeKeyRing } from "../../src/adapters/NodeKeys.ts"
import { signDocument } from "../../src/crypto/Documents.ts"
import { invitationId, proveInvitation } from "../../src/crypto/Invitations.ts"
import type { Preauthorisation } from "../../src/schemas/Enrolment.ts"
import type { DeviceId, Name, ServerId } from "../../src/schemas/Ids.ts"
import * as sim from "../actors/support/Parties.ts"
import { deviceUnderTest, type TestDevice } from "../actors/support/TestDevice.ts"
import { admission, enrolment, type Fleet, pollBody, rootedFleet, send } from "../support/fleet.ts"
import { device, engine, otherDevice, server, signAsOperator, trust } from "../support/operators.ts"

const day = 86_400_000
const secret = "s".repeat(32)
const invitation = invitationId(engine, secret)

const preauthorise = Effect.fnUntraced(function* (fleet: Fleet, changes: Partial<Preauthorisation> = {}) {
  const nowMs = yield* Clock.currentTimeMillis
  const document: Preauthorisation = {
    type: "postern/preauthorisation/v1",
    subject: invitation,
    name: "pi-cellar" as Name,
    server: server.id as ServerId,
    root_digest: trust.digest,
    root_version: 1,
    issued_at_ms: nowMs,
    expires_at_ms: nowMs + day,
    ...changes
  }
  const { envelope } = signAsOperator("preauthorisation", document)
  yield* fleet.system.ref(RegistrarKey).ask("Preauthorise", { envelope, actor: "alice" })
  return envelope
})

/** A device asks to be let in, with the proof of an invitation. */
const ask = Effect.fnUntraced(function* (
  fleet: Fleet,
  by: NodeKeyRing = device,
  text: string | null = secret
) {
  yield* TestClock.adjust("1 second")
  const bound = { device: by.id as DeviceId, server: server.id as ServerId, rootDigest: trust.digest }
  const proof = text === null ? null : proveInvitation(engine, text, bound)
  const { envelope } = enrolment(yield* Clock.currentTimeMillis, by, { invitation: proof })
  return (yield* send(fleet, "POST", "/enrolment", { body: envelope, by })).json as {
    readonly status: string
  }
})

const statusOf = (fleet: Fleet, by: NodeKeyRing) =>
  Effect.map(fleet.store.device(by.id as DeviceId), (row) => row?.status)

describe("pre-authorisation at the server", () => {
  it.effect("lets the first who proves the invitation in, at once and by the operator's word", () =>
    Effect.gen(function* () {
      const fleet = yield* rootedFleet
      const envelope = yield* preauthorise(fleet)
      assert.deepStrictEqual(yield* ask(fleet), {
        status: "accepted",
        admission: null,
        preauthorisation: envelope
      } as never)
      const answer = yield* send(fleet, "POST", "/poll", { body: pollBody({ admission_sequence: 0 }) })
      assert.deepInclude(answer.json, { objection: null, admission: null })
      assert.strictEqual((yield* fleet.store.device(device.id as DeviceId))?.name, "pi-cellar")
    })
  )
  it.effect("lets nobody else in: not the second, not who only knows the id, not another invitation", () =>
    Effect.gen(function* () {
      const fleet = yield* rootedFleet
      yield* preauthorise(fleet)
      assert.strictEqual((yield* ask(fleet, otherDevice, "t".repeat(32))).status, "pending")
      const bound = {
        device: otherDevice.id as DeviceId,
        server: server.id as ServerId,
        rootDigest: trust.digest
      }
      const stolen = { ...proveInvitation(engine, "t".repeat(32), bound), id: invitation }
      const { envelope } = enrolment(yield* Clock.currentTimeMillis, otherDevice, { invitation: stolen })
      const forged = yield* send(fleet, "POST", "/enrolment", { body: envelope, by: otherDevice })
      assert.strictEqual(forged.code, "bad_request")
      yield* ask(fleet)
      assert.strictEqual((yield* ask(fleet, otherDevice)).status, "pending")
      assert.strictEqual(yield* statusOf(fleet, otherDevice), "pending")
    })
  )
  it.effect("by a device's id is for that device", () =>
    Effect.gen(function* () {
      const fleet = yield* rootedFleet
      yield* preauthorise(fleet, { subject: device.id as DeviceId })
      assert.strictEqual((yield* ask(fleet, otherDevice, null)).status, "pending")
      assert.strictEqual((yield* ask(fleet, device, null)).status, "accepted")
    })
  )
  it.effect("stands below every decision about the device, and is used up", () =>
    Effect.gen(function* () {
      const fleet = yield* rootedFleet
      yield* preauthorise(fleet)
      yield* ask(fleet)
      const { envelope } = admission(yield* Clock.currentTimeMillis, { decision: "revoke", sequence: 1 })
      yield* fleet.system
        .ref(RegistrarKey)
        .ask("Admit", { device: device.id as DeviceId, envelope, actor: "alice" })
      assert.strictEqual((yield* ask(fleet)).status, "revoked")
      assert.strictEqual((yield* Effect.flip(preauthorise(fleet)))._tag, "Conflict")
    })
  )
  it.effect("is not taken when it is a stranger's, too late, or for another fleet", () =>
    Effect.gen(function* () {
      const fleet = yield* rootedFleet
      const registrar = fleet.system.ref(RegistrarKey)
      const nowMs = yield* Clock.currentTimeMillis
      const tags: Array<string> = []
      for (const changes of [
        { expires_at_ms: nowMs },
        { expires_at_ms: nowMs + 60 * day },
        { root_digest: `sha256:${"1".repeat(64)}` as never },
        { server: `srv_${"a".repeat(52)}` as ServerId }
      ])
        tags.push((yield* Effect.flip(preauthorise(fleet, changes)))._tag)
      const envelope = yield* preauthorise(fleet, { expires_at_ms: nowMs + 1_000 })
      const signature = { ...envelope.signatures[0], sig: `${"A".repeat(86)}==` } as never
      const forged = { ...envelope, signatures: [signature] }
      tags.push((yield* Effect.flip(registrar.ask("Preauthorise", { envelope: forged, actor: "eve" })))._tag)
      assert.deepStrictEqual(tags, ["Refused", "Refused", "Refused", "Refused", "Refused"])
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual((yield* ask(fleet)).status, "pending", "it has expired")
    })
  )
})

describe("pre-authorisation on the device, under a lying server", () => {
  const trustOf = (text: string) => ({
    invitation: {
      server: sim.server,
      rootDigest: sim.firstRootEnvelope.digest,
      secret: Redacted.make(text)
    },
    name: null
  })
  const documentOf = (changes: Partial<Preauthorisation> = {}): Preauthorisation => ({
    type: "postern/preauthorisation/v1",
    subject: invitation,
    name: "pi" as Name,
    server: sim.server,
    root_digest: sim.firstRootEnvelope.digest,
    root_version: 1,
    issued_at_ms: 0,
    expires_at_ms: day,
    ...changes
  })
  const sign = (document: Preauthorisation, key = sim.operator) =>
    signDocument(engine, "preauthorisation", document, [key.signer]).envelope
  const phaseOf = (under: TestDevice) =>
    Effect.orDie(
      Effect.map(
        (under.system as NonNullable<TestDevice["system"]>).ref(TrustKeeperKey).ask("View"),
        ({ phase }) => phase
      )
    )

  it.effect(
    "is believed when it is for the invitation it holds, over a restart too, until a decision comes",
    () =>
      Effect.gen(function* () {
        const under = yield* deviceUnderTest({ accepted: false, trust: trustOf(secret) })
        under.server.status = "accepted"
        under.server.preauthorisation = sign(documentOf())
        yield* under.until(() => under.server.polls.length > 0, "a poll")
        const order = under.server.submit(1, { script: ["exit:0"] })
        yield* under.until(() => under.server.receiptOf(order.id) !== undefined, "the receipt")
        Object.assign(under.options, { trust: { invitation: null, name: null } })
        yield* under.stop
        yield* under.start
        assert.strictEqual(yield* phaseOf(under), "accepted")
        const revoked = sim.admissionOf(under.ledger?.incarnation as never, { decision: "revoke" })
        under.server.admission = sim.signAdmission(revoked)
        under.server.stir()
        yield* under.until(() => under.server.polls.at(-1)?.admission_sequence === 0, "a poll")
        yield* under.pass(30_000)
        assert.strictEqual(yield* phaseOf(under), "revoked")
      })
  )
  const lies = [
    ["signed by a stranger", sign(documentOf(), sim.stranger)],
    ["for another invitation", sign(documentOf({ subject: invitationId(engine, "t".repeat(32)) }))],
    ["for another device", sign(documentOf({ subject: otherDevice.id as DeviceId }))],
    ["for another server", sign(documentOf({ server: server.id as ServerId }))],
    ["of another fleet", sign(documentOf({ root_digest: trust.digest }))],
    ["that has expired", sign(documentOf({ expires_at_ms: 1 }))]
  ] as const
  it.effect.each(lies.map(([what, envelope]) => ({ what, envelope })))(
    "$what is not believed",
    ({ envelope }) =>
      Effect.gen(function* () {
        yield* TestClock.adjust("1 second")
        const under = yield* deviceUnderTest({ accepted: false, trust: trustOf(secret) })
        under.server.status = "accepted"
        under.server.preauthorisation = envelope
        yield* under.pass(60_000)
        assert.strictEqual(yield* phaseOf(under), "not_enrolled")
        assert.strictEqual(under.server.polls.length, 0)
      })
  )
})
