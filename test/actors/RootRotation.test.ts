/** A device and the versions of its trust root: sleeping through some, waiting under an expired one, judging by the newest. */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { TrustKeeperKey } from "../../src/actors/ClientKeys.ts"
import { signDocument } from "../../src/crypto/Documents.ts"
import type { DsseEnvelope } from "../../src/schemas/Dsse.ts"
import type { TrustRoot } from "../../src/schemas/TrustRoot.ts"
import {
  admissionOf,
  engine,
  type Key,
  keyOf,
  operator,
  orderId,
  recovery,
  rootOf,
  signAdmission,
  signRoot
} from "./support/Parties.ts"
import { deviceUnderTest, type TestDevice } from "./support/TestDevice.ts"

const good = { script: ["exit:0"] }
const minute = 60_000
const hour = 60 * minute
const second = keyOf("second operator")

const viewOf = (device: TestDevice) =>
  Effect.orDie((device.system as NonNullable<TestDevice["system"]>).ref(TrustKeeperKey).ask("View"))

const sign = (root: TrustRoot, ...keys: ReadonlyArray<Key>): DsseEnvelope =>
  signDocument(
    engine,
    "root",
    root,
    keys.map((key) => key.signer)
  ).envelope

/** A root whose root role is other keys than the usual one. */
const ruledBy = (root: TrustRoot, keys: ReadonlyArray<Key>, threshold: number): TrustRoot => ({
  ...root,
  keys: {
    ...root.keys,
    ...Object.fromEntries(
      keys.map((key) => [
        key.keyId,
        { algorithm: "ed25519" as const, public_key: key.signingKey, label: key.name, recipient: null }
      ])
    )
  },
  roles: { ...root.roles, root: { keys: keys.map((key) => key.keyId), threshold } }
})

describe("a device that slept through five roots", () => {
  const [a, b, c] = [keyOf("root a"), keyOf("root b"), keyOf("root c")]
  /** Thresholds, root keys and operators change on the way; all but the last have expired. */
  const chain: ReadonlyArray<DsseEnvelope> = [
    sign(ruledBy(rootOf({ version: 2, expiresAtMs: hour }), [recovery, a, b], 2), recovery, a),
    sign(ruledBy(rootOf({ version: 3, expiresAtMs: hour }), [a, b, c], 2), a, b),
    sign(
      ruledBy(rootOf({ version: 4, expiresAtMs: hour, operators: [operator, second] }), [a, b, c], 3),
      a,
      b,
      c
    ),
    sign(ruledBy(rootOf({ version: 5, expiresAtMs: hour, operators: [second] }), [c], 1), a, b, c),
    sign(ruledBy(rootOf({ version: 6, operators: [second] }), [c], 1), c)
  ]

  it.effect("catches up, and does what those say who are operators now", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.until(() => device.server.polls.length > 0, "the first poll")
      yield* device.crash
      device.server.roots.push(...chain)
      yield* device.pass(2 * hour, 60_000)
      yield* device.start
      yield* device.until(() => device.server.polls.at(-1)?.root_version === 6, "the newest root", hour)
      const order = device.server.submit(1, good, { root_version: 6 }, second)
      yield* device.until(() => device.server.receipts.length === 1, "the receipt")
      expect(device.server.receiptOf(order.id)).toMatchObject({ state: "succeeded", root_version: 6 })
    })
  )

  it.effect.each(["one is missing", "two changed places", "one has too few signatures"] as const)(
    "stops before the break where %s, and stays accepted",
    (fault) =>
      Effect.gen(function* () {
        const device = yield* deviceUnderTest()
        yield* device.until(() => device.server.polls.length > 0, "the first poll")
        const [two, three, four, five, six] = chain as [
          DsseEnvelope,
          DsseEnvelope,
          DsseEnvelope,
          DsseEnvelope,
          DsseEnvelope
        ]
        const weak = { ...four, signatures: four.signatures.slice(0, 2) }
        const broken = {
          "one is missing": [two, three, five, six],
          "two changed places": [two, three, five, four, six],
          "one has too few signatures": [two, three, weak, five, six]
        }[fault]
        device.server.roots.push(...broken)
        yield* device.until(() => device.server.polls.at(-1)?.root_version === 3, "the last good root", hour)
        yield* device.pass(2 * minute, 10_000)
        expect((yield* viewOf(device)).held?.root.version).toBe(3)
        expect((yield* viewOf(device)).phase).toBe("accepted")
        // Once the chain is whole it goes on.
        device.server.roots = [device.server.roots[0] as DsseEnvelope, ...chain]
        yield* device.until(() => device.server.polls.at(-1)?.root_version === 6, "the newest root", hour)
      })
  )
})

describe("a device whose root has expired", () => {
  it.effect("ends what runs, sends it, says why it begins nothing, and goes on under the next one", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.roots = [signRoot(rootOf({ expiresAtMs: 6 * minute })).envelope]
      yield* device.until(() => device.server.polls.length > 0, "the first poll")
      device.server.submit(1, { script: ["out:slow", `sleep:${8 * minute}`, "out:done", "exit:0"] })
      device.server.submit(2, good)
      yield* device.until(() => device.host.runs.length === 1, "the first run")
      // The server is away when the root ends, so that results must wait.
      device.server.online = false
      yield* device.pass(12 * minute, 10_000)
      device.server.online = true
      yield* device.until(() => device.server.receipts.length === 1, "the receipt of what ran", hour)
      expect(device.server.receiptOf(orderId(1))).toMatchObject({ state: "succeeded" })
      yield* device.until(
        () => device.server.polls.at(-1)?.blocked === "root_expired",
        "the poll that says so",
        hour
      )
      yield* device.pass(5 * minute, 10_000)
      expect(device.host.runs).toHaveLength(1)
      expect(device.server.polls.at(-1)?.degraded).toContain("root_expired")
      const size = yield* device.ledger?.outboxSize ?? Effect.die(new Error("no ledger"))
      expect(size.items).toBe(0)
      device.server.roots.push(signRoot(rootOf({ version: 2 })).envelope)
      yield* device.until(() => device.server.receipts.length === 2, "the second receipt", hour)
      expect(device.server.receiptOf(orderId(2))).toMatchObject({ state: "succeeded", root_version: 2 })
    })
  )

  it.effect("warned of it in every poll from 90 days ahead", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.roots = [signRoot(rootOf({ expiresAtMs: 89 * 24 * hour })).envelope]
      yield* device.until(() => device.server.polls.length > 1, "the polls")
      expect(device.server.polls.at(-1)?.degraded).toContain("root_expiring")
      expect(device.server.polls.at(-1)?.blocked).toBeNull()
    })
  )
})

describe("an acceptance by an operator whom the newest root revoked", () => {
  it.effect("does not let a new device in; one by an operator of today does", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest({ accepted: false })
      device.server.roots.push(signRoot(rootOf({ version: 2, operators: [second] })).envelope)
      yield* device.until(() => device.server.enrolments.length > 0, "the request")
      const offer = (key: Key, sequence: number) => {
        const decision = admissionOf(device.ledger?.incarnation as never, { sequence })
        device.server.admission = signAdmission(decision, key)
        device.server.status = "accepted"
      }
      offer(operator, 1)
      yield* device.pass(120_000)
      expect(yield* viewOf(device)).toMatchObject({ phase: "not_enrolled" })
      expect((yield* viewOf(device)).detail).toContain("its signatures are not good: unknown_key")
      offer(second, 2)
      yield* device.until(() => device.server.polls.length > 0, "the first poll", hour)
      expect((yield* viewOf(device)).phase).toBe("accepted")
    })
  )

  it.effect("keeps a device in that took it when it was good, over restarts", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.until(() => device.server.polls.length > 0, "the first poll")
      device.server.roots.push(signRoot(rootOf({ version: 2, operators: [second] })).envelope)
      yield* device.until(() => device.server.polls.at(-1)?.root_version === 2, "the new root", hour)
      yield* device.crash
      yield* device.start
      // What the revoked operator signed and the server still holds is refused, with a receipt that says why.
      device.server.submit(1, good)
      yield* device.until(() => device.server.receipts.length === 1, "the refusal", hour)
      expect(device.server.receiptOf(orderId(1))).toMatchObject({ state: "rejected", reason: "unknown_key" })
      device.server.submit(2, good, { root_version: 2 }, second)
      yield* device.until(() => device.server.receipts.length === 2, "the receipt", hour)
      expect(device.server.receiptOf(orderId(2))).toMatchObject({ state: "succeeded" })
    })
  )
})
