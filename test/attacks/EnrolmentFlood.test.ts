/** A flood of made-up devices: it is bounded, keeps no invited device out, and pushes out nobody who keeps asking. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"
import { RegistrarKey } from "../../src/actors/ServerKeys.ts"
import { type NodeKeyRing, nodeKeyRingFrom } from "../../src/adapters/NodeKeys.ts"
import { utf8 } from "../../src/crypto/Bytes.ts"
import { invitationId, proveInvitation } from "../../src/crypto/Invitations.ts"
import type { EnrolmentRequest } from "../../src/schemas/Enrolment.ts"
import type { DeviceId, ServerId } from "../../src/schemas/Ids.ts"
import { Limits } from "../../src/schemas/Limits.ts"
import { enrolment, type Fleet, rootedFleet, send } from "../support/fleet.ts"
import { device, engine, nowMs, otherDevice, server, trust } from "../support/operators.ts"

const secret = "s".repeat(32)

const stranger = (n: number): NodeKeyRing =>
  nodeKeyRingFrom(
    engine,
    "device",
    Uint8Array.from([...engine.sha256(utf8(`a${n}`)), ...engine.sha256(utf8(`b${n}`))])
  )

const ask = Effect.fnUntraced(function* (fleet: Fleet, by: NodeKeyRing, text: string | null = null) {
  const bound = { device: by.id as DeviceId, server: server.id as ServerId, rootDigest: trust.digest }
  const invitation = text === null ? null : proveInvitation(engine, text, bound)
  const { envelope } = enrolment(yield* Clock.currentTimeMillis, by, { invitation })
  return yield* send(fleet, "POST", "/enrolment", { body: envelope, by })
})

const isListed = (fleet: Fleet, by: NodeKeyRing) =>
  Effect.map(fleet.store.device(by.id as DeviceId), (row) => row !== null)

/** The list of those without an invitation, full of made-up devices that asked just now. */
const fill = (fleet: Fleet, atMs: number) =>
  fleet.disk.fleet.exec(`
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${Limits.pendingEnrolments})
    INSERT OR REPLACE INTO devices
      (device, status, enrolment, request, requested_at_ms, enrolled_at_ms, asked_at_ms)
    SELECT 'dev_' || i, 'pending', '{}', '{}', 0, ${atMs}, ${atMs} FROM n`)

const counted = (fleet: Fleet) => Effect.map(fleet.store.counts, ({ devices }) => devices.pending)

describe("a flood of enrolments", () => {
  it.effect("is bounded by rate and by count", () =>
    Effect.gen(function* () {
      const fleet = yield* rootedFleet
      const answers: Array<number> = []
      for (let n = 0; n < Limits.enrolmentBurst + 60; n++)
        answers.push((yield* ask(fleet, stranger(n))).status)
      const allowed = answers.filter((status) => status === 200).length
      assert.strictEqual(allowed, Limits.enrolmentBurst)
      assert.strictEqual(yield* counted(fleet), allowed)
      fill(fleet, nowMs)
      for (let n = 0; n < 30; n++) {
        yield* TestClock.adjust("1 second")
        yield* ask(fleet, stranger(1_000 + n))
      }
      assert.strictEqual(yield* counted(fleet), Limits.pendingEnrolments)
    })
  )
  it.effect(
    "keeps no device out that has an invitation, however full the list and however fast it comes",
    () =>
      Effect.gen(function* () {
        const fleet = yield* rootedFleet
        const invite = { id: invitationId(engine, secret), expires_at_ms: nowMs + 86_400_000, actor: "alice" }
        yield* fleet.system.ref(RegistrarKey).ask("Invite", invite)
        for (let n = 0; n < Limits.enrolmentBurst + 10; n++) yield* ask(fleet, stranger(n))
        fill(fleet, nowMs)
        assert.strictEqual((yield* ask(fleet, stranger(5_000))).code, "overloaded")
        assert.deepInclude((yield* ask(fleet, device, secret)).json, { status: "pending" })
        // Whoever only has heard the invitation's id takes none of its places.
        assert.strictEqual((yield* ask(fleet, otherDevice, "t".repeat(32))).code, "overloaded")
        fill(fleet, nowMs + 60_000)
        assert.isTrue(yield* isListed(fleet, device))
      })
  )
  it.effect("pushes out the one that was silent longest, not one that waits and keeps asking", () =>
    Effect.gen(function* () {
      const fleet = yield* rootedFleet
      yield* ask(fleet, otherDevice)
      yield* ask(fleet, device)
      fill(fleet, yield* Clock.currentTimeMillis)
      // As fast as strangers may come, for longer than it takes to replace the whole list.
      const roundMs = 10_000
      const perRound = (Limits.enrolmentsPerSecond * roundMs) / 1_000
      const rounds = Math.ceil(Limits.pendingEnrolments / perRound) + 1
      for (let round = 0; round < rounds; round++) {
        yield* TestClock.adjust(roundMs)
        yield* ask(fleet, device)
        const now = yield* Clock.currentTimeMillis
        for (let n = 0; n < perRound; n++) {
          // What the registrar hands to the store, without the trouble of signing it.
          const made = { device: `dev_flood_${round}_${n}` as DeviceId, invitation: null, issued_at_ms: now }
          yield* fleet.store.enrol(made as EnrolmentRequest, { ...trust.envelope, signatures: [] }, now)
        }
      }
      assert.deepStrictEqual(
        [yield* isListed(fleet, device), yield* isListed(fleet, otherDevice)],
        [true, false]
      )
    })
  )
})
