import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Layer, Logger, Redacted } from "effect"
import { TestClock } from "effect/testing"
import { makeAgentDoor, makeOnce } from "../../src/actors/AgentDoor.ts"
import { AgentBookCell } from "../../src/adapters/AgentBookCell.ts"
import { NativeCrypto, NativeCryptoEngine } from "../../src/adapters/NativeCrypto.ts"
import { toWire } from "../../src/crypto/Messages.ts"
import { signJson } from "../../src/crypto/SignedJson.ts"
import { FleetStore } from "../../src/ports/FleetStore.ts"
import { Identity } from "../../src/ports/Identity.ts"
import type { ConnectProof, SessionId } from "../../src/schemas/Agents.ts"
import type { DeviceId, Name, ServerId } from "../../src/schemas/Ids.ts"
import { Limits } from "../../src/schemas/Limits.ts"
import { Fleet, ringOf, serverKeys } from "../support/messaging.ts"

const [alice, bob] = ["alice" as Name, "bob" as Name]

let sessions = 0
const session = () =>
  [...(sessions++).toString(8).padStart(26, "0")]
    .map((digit) => "abcdefgh"[Number(digit)])
    .join("") as SessionId

/** A proof by `who`, good but for the changes. */
const proofOf = (who: string, changes: Partial<ConnectProof> = {}) =>
  Effect.map(Clock.currentTimeMillis, (issued_at_ms) => {
    const ring = ringOf("device", who)
    const signer = { seed: Redacted.value(ring.signingSeed), signingKey: ring.signingKey }
    return toWire(
      signJson<ConnectProof>(NativeCrypto, signer, {
        type: "postern/mqtt-connect/v1",
        agent: who as Name,
        device: ring.id as DeviceId,
        server: serverKeys.id as ServerId,
        session: session(),
        issued_at_ms,
        ...changes
      })
    )
  })

/** A door over a fleet in which alice is accepted; what it logged. */
const makeDoor = Effect.gen(function* () {
  yield* TestClock.setTime(1_800_000_000_000)
  const fleet = new Fleet()
  fleet.add("alice")
  const warnings: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => {
    if (logLevel === "Warn") warnings.push(String(message))
  })
  const services = yield* Layer.build(
    Layer.mergeAll(
      NativeCryptoEngine,
      AgentBookCell,
      Layer.succeed(FleetStore, fleet.store),
      Layer.succeed(Identity, { id: serverKeys.id } as unknown as Identity["Service"]),
      Logger.layer([logger])
    )
  )
  const judge = yield* Effect.provideContext(makeAgentDoor, services)
  return {
    fleet,
    warnings,
    judge: (name: Name, password: Uint8Array) => Effect.provideContext(judge(name, password), services)
  }
})

describe("the door of the MQTT broker", () => {
  it.effect("lets accepted devices in as agents, and those nobody knows as strangers", () =>
    Effect.gen(function* () {
      const { fleet, judge } = yield* makeDoor
      assert.strictEqual(yield* judge(alice, yield* proofOf("alice")), "agent")
      assert.strictEqual(yield* judge(bob, yield* proofOf("bob")), "stranger")
      fleet.add("bob", "pending")
      assert.strictEqual(yield* judge(bob, yield* proofOf("bob")), "stranger")
      for (const status of ["revoked", "rejected"] as const) {
        fleet.add("bob", status)
        assert.isNull(yield* judge(bob, yield* proofOf("bob")))
      }
      fleet.decide("alice", "revoked")
      assert.isNull(yield* judge(alice, yield* proofOf("alice")))
    })
  )

  it.effect("turns away who proves something else, byte by byte", () =>
    Effect.gen(function* () {
      const { judge } = yield* makeDoor
      const nowMs = yield* Clock.currentTimeMillis
      const late = nowMs - Limits.requestClockSkewMs - 1
      const bad = {
        "another's name": yield* proofOf("bob", { agent: alice }),
        "a proof for another name": yield* proofOf("alice", { agent: bob }),
        "a proof for another server": yield* proofOf("alice", {
          server: ringOf("server", "other").id as ServerId
        }),
        "an old proof": yield* proofOf("alice", { issued_at_ms: late }),
        "a proof of times to come": yield* proofOf("alice", {
          issued_at_ms: nowMs + Limits.requestClockSkewMs + 1
        }),
        "another's device": yield* proofOf("alice", { device: ringOf("device", "bob").id as DeviceId }),
        nothing: new Uint8Array(0)
      }
      for (const [what, password] of Object.entries(bad)) assert.isNull(yield* judge(alice, password), what)
      const good = yield* proofOf("alice")
      for (let at = 0; at < good.length; at += 7) {
        const bent = good.slice()
        bent[at] = (bent[at] as number) ^ 1
        assert.isNull(yield* judge(alice, bent), `byte ${at}`)
      }
      assert.strictEqual(yield* judge(alice, good), "agent")
    })
  )

  it.effect("takes each proof once, also after a restart", () =>
    Effect.gen(function* () {
      const { judge } = yield* makeDoor
      const openedAtMs = yield* Clock.currentTimeMillis
      const proof = yield* proofOf("alice")
      assert.strictEqual(yield* judge(alice, proof), "agent")
      assert.isNull(yield* judge(alice, proof))
      yield* TestClock.adjust(Limits.requestClockSkewMs)
      assert.isNull(yield* judge(alice, proof))
      // Before the door opened, proofs may have been taken that nobody remembers.
      assert.isNull(yield* judge(alice, yield* proofOf("alice", { issued_at_ms: openedAtMs - 1 })))
      assert.strictEqual(yield* judge(alice, yield* proofOf("alice")), "agent")
    })
  )

  it.effect("goes by the clock as it is, which may have been ahead when it opened", () =>
    Effect.gen(function* () {
      const { judge } = yield* makeDoor
      yield* TestClock.adjust(10_000)
      const clock = yield* Clock.Clock
      const nowMs = clock.currentTimeMillisUnsafe() - 3_600_000
      const putBack: Clock.Clock = {
        ...clock,
        currentTimeMillisUnsafe: () => nowMs,
        currentTimeMillis: Effect.succeed(nowMs)
      }
      const judged = (issued_at_ms: number) =>
        Effect.flatMap(proofOf("alice", { issued_at_ms }), (proof) => judge(alice, proof)).pipe(
          Effect.provideService(Clock.Clock, putBack)
        )
      assert.strictEqual(yield* judged(nowMs - 9_000), "agent")
      assert.isNull(yield* judged(nowMs - 11_000))
    })
  )

  it.effect("lets nobody use up a session's name for another", () =>
    Effect.gen(function* () {
      const { judge } = yield* makeDoor
      const shared = session()
      assert.strictEqual(yield* judge(bob, yield* proofOf("bob", { session: shared })), "stranger")
      const proof = yield* proofOf("alice", { session: shared })
      assert.strictEqual(yield* judge(alice, proof), "agent")
      assert.isNull(yield* judge(alice, proof))
    })
  )

  it("forgets no proof while it is good, however many come: strangers wait for strangers, and an agent for itself", () => {
    const take = makeOnce()
    assert.strictEqual(take(alice, "alice's", 0), "first")
    for (let index = 0; index < Limits.requestNonces; index++)
      assert.strictEqual(take(null, `stranger ${index}`, 1), "first")
    assert.strictEqual(take(null, "one more", 2), "too_many")
    assert.strictEqual(take(null, "stranger 0", 2), "again")
    assert.strictEqual(take(alice, "alice's", 2), "again")
    let times = 1
    while (take(alice, `alice's ${times}`, 3) === "first") times++
    assert.isBelow(times, 1_000)
    assert.strictEqual(take(bob, "bob's", 4), "first")
    const overMs = 2 * Limits.requestClockSkewMs
    assert.strictEqual(take(null, "one more", overMs + 1), "first")
    assert.strictEqual(take(alice, "another", overMs + 3), "first")
    assert.strictEqual(take(bob, "bob's", overMs + 3), "again")
  })

  it.effect("tells of those it turned away some times a minute, however many come", () =>
    Effect.gen(function* () {
      const { judge, warnings } = yield* makeDoor
      for (let index = 0; index < 200; index++) yield* judge(alice, new Uint8Array(index))
      const told = warnings.length
      assert.isAtMost(told, 20)
      assert.include(warnings.at(-1) ?? "", "more of this minute is not told")
      yield* TestClock.adjust("1 minute")
      yield* judge(alice, new Uint8Array(3))
      assert.strictEqual(warnings.length, told + 1)
    })
  )
})
