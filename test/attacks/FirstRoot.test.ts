/** Mix-and-match and a malicious mirror at enrolment: which root a device begins with, and what a later pin is worth. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { TrustKeeperKey } from "../../src/actors/ClientKeys.ts"
import type { ApiRequest } from "../../src/adapters/http/Exchange.ts"
import { encodeJson } from "../../src/adapters/http/Json.ts"
import { handlerTransport } from "../../src/adapters/http/Transport.ts"
import { digestOf } from "../../src/crypto/Documents.ts"
import type { DsseEnvelope } from "../../src/schemas/Dsse.ts"
import type { TrustRoot } from "../../src/schemas/TrustRoot.ts"
import {
  admissionOf,
  engine,
  firstRootEnvelope,
  recovery,
  rootOf,
  server,
  signAdmission,
  signRoot,
  stranger
} from "../actors/support/Parties.ts"
import { deviceUnderTest, type TestDevice } from "../actors/support/TestDevice.ts"
import * as link from "../adapters/support/server.ts"

/** A root of a stranger's making for the same server. */
const usurped: TrustRoot = rootOf({ operators: [stranger] })
const usurpedEnvelope: DsseEnvelope = signRoot(usurped).envelope

const viewOf = (device: TestDevice) =>
  Effect.orDie((device.system as NonNullable<TestDevice["system"]>).ref(TrustKeeperKey).ask("View"))

const invitation = {
  server,
  rootDigest: firstRootEnvelope.digest,
  secret: Redacted.make("a".repeat(32))
}

/** A device that took a stranger's root while it had no invitation, and whose owner then gives it one. */
const misled = (accepted: boolean) =>
  Effect.gen(function* () {
    const device = yield* deviceUnderTest({ accepted: false })
    device.server.roots = [usurpedEnvelope]
    if (accepted) {
      device.server.admission = signAdmission(admissionOf(device.ledger?.incarnation as never), stranger)
      device.server.status = "accepted"
    }
    yield* device.until(
      () => (accepted ? device.server.polls.length > 0 : device.server.enrolments.length > 0),
      "the stranger's success"
    )
    yield* device.stop
    device.server.roots = [firstRootEnvelope.envelope]
    device.server.enrolments.length = 0
    device.server.admission = null
    device.server.status = "pending"
    Object.assign(device.options, { trust: { invitation, name: null } })
    yield* device.start
    return device
  })

describe("malicious mirror: a false first root", () => {
  it.effect.each([false, true])(
    "gives way to the root an invitation names (accepted by it: %s)",
    (accepted) =>
      Effect.gen(function* () {
        const device = yield* misled(accepted)
        yield* device.until(() => device.server.enrolments.length > 0, "a request under the right root")
        const { held, phase } = yield* viewOf(device)
        expect(held?.firstDigest).toBe(firstRootEnvelope.digest)
        expect(phase).toBe("not_enrolled")
        device.server.admission = signAdmission(
          admissionOf(device.ledger?.incarnation as never, { sequence: 2 }),
          stranger
        )
        yield* device.pass(60_000)
        expect((yield* viewOf(device)).phase).toBe("not_enrolled")
        yield* device.stop
        yield* device.start
        expect((yield* viewOf(device)).phase).toBe("not_enrolled")
      })
  )
  it.effect("is not taken where the invitation names another", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest({
        accepted: false,
        trust: { invitation: { ...invitation, rootDigest: signRoot(usurped).digest }, name: null }
      })
      yield* device.pass(60_000)
      expect((yield* viewOf(device)).held).toBeNull()
      expect(device.server.enrolments).toHaveLength(0)
    })
  )
  it("has another digest, and so another claim code, than the true one", () => {
    expect(digestOf(engine, Buffer.from(usurpedEnvelope.payload, "base64"))).not.toBe(
      firstRootEnvelope.digest
    )
    expect(recovery.keyId).not.toBe(stranger.keyId)
  })
})

describe("malicious mirror: one of several addresses", () => {
  it.effect("does not keep a device from the others while it looks for its first root", () =>
    Effect.gen(function* () {
      const asked: Array<string> = []
      const identity = {
        type: "postern/server-identity/v1",
        server: link.server.id,
        signing_key: link.server.signingKey,
        recipient: link.server.recipient,
        addresses: link.addresses
      }
      const reach = (origin: string) => (request: ApiRequest) =>
        Effect.sync(() => {
          asked.push(`${origin} ${request.path.split("/").at(-1)}`)
          const answer = request.path.endsWith("/identity") ? identity : { roots: [] }
          return { status: 200, headers: {}, body: encodeJson(answer) }
        })
      const { link: over } = yield* link.linkOver(handlerTransport(reach), { trusting: false })
      for (let attempt = 0; attempt < 3; attempt++) {
        yield* over.identity
        yield* over.roots(1)
      }
      const [one, two] = link.addresses as [string, string]
      expect(asked).toEqual([one, two, one].flatMap((each) => [`${each} identity`, `${each} roots`]))
    })
  )
})

describe("an invitation", () => {
  it.effect("that was used stays good for the root it named, over restarts and later roots", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest({ trust: { invitation, name: null } })
      device.server.roots.push(signRoot(rootOf({ version: 2 })).envelope)
      yield* device.until(() => device.server.polls.at(-1)?.root_version === 2, "the second root", 3_600_000)
      yield* device.stop
      yield* device.start
      const { held, phase } = yield* viewOf(device)
      expect([held?.root.version, phase]).toEqual([2, "accepted"])
    })
  )
})
