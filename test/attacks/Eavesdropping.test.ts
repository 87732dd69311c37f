/** Eavesdropping: what travels and what the server stores can be read by device and operators alone. */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { buildPackage } from "../../src/adapters/packages/BuildPackage.ts"
import { openPackage } from "../../src/adapters/packages/OpenPackage.ts"
import { sourceBytes } from "../../src/adapters/packages/SourceFiles.ts"
import { utf8 } from "../../src/crypto/Bytes.ts"
import { invitationProofFits, proveInvitation } from "../../src/crypto/Invitations.ts"
import { decryptBytes } from "../../src/crypto/PackageCipher.ts"
import type { DeviceId, ServerId } from "../../src/schemas/Ids.ts"
import { device as deviceId, firstRootEnvelope, server as serverId } from "../actors/support/Parties.ts"
import { deviceUnderTest } from "../actors/support/TestDevice.ts"
import { device, draft, engine, operator, outside, stranger } from "../adapters/packages/support.ts"
import { temporaryFolder } from "../adapters/support/folders.ts"

const secret = "the gate opens from inside only"

describe("eavesdropping", () => {
  it.effect("eavesdropping: a payload shows nothing of its files, and opens for those it names alone", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const built = yield* buildPackage({
        source: { files: [sourceBytes("secret", utf8(secret))], folders: [] },
        draft: { ...draft, environment: { TOKEN: secret } },
        recipients: [device.recipient, operator.recipient],
        target: join(folder, "p.age")
      }).pipe(Effect.provide(outside))
      const bytes = readFileSync(built.path)
      assert.isFalse(bytes.includes(secret))
      assert.isFalse(bytes.includes("manifest.json"))
      for (const reader of [device, operator]) {
        assert.strictEqual(decryptBytes(engine, [reader.identity], bytes)._tag, "Success")
      }
      const asStranger = openPackage({
        engine,
        identities: [stranger.identity],
        ciphertext: built.path,
        payload: built.payload,
        folder: join(folder, "out")
      })
      const error = yield* Effect.flip(asStranger)
      assert.strictEqual(error._tag === "PackageRefused" ? error.code : error._tag, "payload_not_for_us")
    })
  )
  it.effect(
    "eavesdropping: an invitation's secret does not travel, only what is bound to device, server and root",
    () =>
      Effect.gen(function* () {
        const text = "b".repeat(32)
        const rootDigest = firstRootEnvelope.digest
        const { server } = yield* deviceUnderTest({
          accepted: false,
          trust: { invitation: { server: serverId, rootDigest, secret: Redacted.make(text) }, name: null }
        }).pipe(
          Effect.tap((besieged) => besieged.until(() => besieged.server.enrolments.length > 0, "the request"))
        )
        const payload = Buffer.from(server.enrolments[0]?.payload ?? "", "base64").toString()
        assert.isFalse(payload.includes(text))
        const bound = { device: deviceId, server: serverId, rootDigest }
        const proof = JSON.parse(payload).invitation
        assert.deepStrictEqual(proof, proveInvitation(engine, text, bound))
        const elsewhere = [
          { ...bound, device: `dev_${"a".repeat(52)}` as DeviceId },
          { ...bound, server: `srv_${"a".repeat(52)}` as ServerId },
          { ...bound, rootDigest: `sha256:${"0".repeat(64)}` as typeof rootDigest }
        ].map((other) => invitationProofFits(engine, other, proof))
        assert.isFalse(elsewhere.includes(true))
      })
  )
})
