/** A device's new encryption key: by its own signature alone, never back to an older one, and no crash loses a key. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted, Result } from "effect"
import { TestClock } from "effect/testing"
import { FileIdentity } from "../../src/adapters/FileIdentity.ts"
import { KeyRotation, NodeKeys } from "../../src/adapters/NodeKeys.ts"
import { judgeWord } from "../../src/adapters/operator/DeviceWord.ts"
import { signDocument } from "../../src/crypto/Documents.ts"
import { cipherEntropyBytes, decryptBytes, encryptBytes } from "../../src/crypto/PackageCipher.ts"
import { CryptoEngine } from "../../src/ports/CryptoEngine.ts"
import { Identity } from "../../src/ports/Identity.ts"
import type { DeviceStatement } from "../../src/schemas/DeviceStatement.ts"
import type { DsseEnvelope } from "../../src/schemas/Dsse.ts"
import type { DeviceId, Recipient } from "../../src/schemas/Ids.ts"
import { Limits } from "../../src/schemas/Limits.ts"
import { SeededEntropy } from "../crypto/SeededEntropy.ts"
import { acceptedFleet, pollBody, send, statementOf } from "../support/fleet.ts"
import { device, deviceRecord, engine, nowMs, otherDevice, server } from "../support/operators.ts"

const id = device.id as DeviceId
const next = otherDevice.recipient

const words = (envelope: DsseEnvelope | null, record = deviceRecord) =>
  judgeWord(engine, record, envelope, nowMs)

describe("a new encryption key, as the operator sees it", () => {
  it("is taken from the device's own signature", () => {
    const judged = words(statementOf({ key_version: 2, recipient: next }))
    assert.deepInclude(judged, { alarms: [] })
    assert.deepInclude(judged.record, { key_version: 2, recipient: next })
  })
  it("is not taken from the server, another device, or who changed it on its way", () => {
    const bySigner = (signer: typeof device, keyid = signer.id) =>
      signDocument(
        engine,
        "device_statement",
        { ...statement, key_version: 2, recipient: next } satisfies DeviceStatement,
        [{ keyId: keyid, seed: Redacted.value(signer.signingSeed) }]
      ).envelope
    const good = statementOf({ key_version: 2, recipient: next })
    const bent = {
      ...good,
      payload: Buffer.from(JSON.stringify({ ...statement, key_version: 3 })).toString("base64")
    }
    for (const envelope of [bySigner(server), bySigner(server, device.id), bySigner(otherDevice), bent]) {
      const judged = words(envelope)
      assert.strictEqual(judged.record, deviceRecord)
      assert.match(judged.alarms.join(), /did not sign/)
    }
  })
  it("does not give way to an older one that is shown again", () => {
    const after = words(statementOf({ key_version: 2, recipient: next })).record
    const judged = words(statementOf({ at_ms: nowMs + 1_000 }), after)
    assert.strictEqual(judged.record, after)
    assert.match(judged.alarms.join(), /version 1 of pi-cellar's encryption key after version 2/)
    const twin = words(statementOf({ key_version: 2, recipient: device.recipient, at_ms: nowMs + 1 }), after)
    assert.strictEqual(twin.record.recipient, next)
    assert.match(twin.alarms.join(), /two different encryption keys/)
  })
})

const statement: DeviceStatement = {
  type: "postern/device-statement/v1",
  device: id,
  incarnation: deviceRecord.incarnation,
  high_water: null,
  last_receipt: 0,
  key_version: 1,
  recipient: device.recipient,
  at_ms: nowMs
}

describe("a new encryption key at the server", () => {
  it.effect("is shown, and an older one that comes later is not put in its place", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const newer = statementOf({ key_version: 2, recipient: next })
      for (const [turn, envelope] of [
        newer,
        statementOf(),
        statementOf({ key_version: 3 }, otherDevice)
      ].entries()) {
        yield* TestClock.adjust("2 minutes")
        yield* send(fleet, "POST", "/poll", { body: pollBody({ turn, statement: envelope }) })
      }
      assert.deepStrictEqual((yield* fleet.store.device(id))?.statement, newer)
    })
  )
})

const withFolder = <A, E, R>(use: (folder: string) => Effect.Effect<A, E, R>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "postern-keys-"))),
    use,
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
  )

/** One life of a device over its state folder. */
const life = <A, E>(
  stateFolder: string,
  use: Effect.Effect<A, E, Identity | NodeKeys | KeyRotation>,
  seed = "life"
) =>
  Effect.provide(
    use,
    FileIdentity({ stateFolder, kind: "device" }).pipe(
      Layer.provide(Layer.merge(SeededEntropy("rotation", seed), Layer.succeed(CryptoEngine, engine))),
      Layer.fresh
    )
  )

const sealTo = (recipient: Recipient) => {
  const sealed = encryptBytes(
    engine,
    { recipients: [recipient], entropyBytes: new Uint8Array(cipherEntropyBytes(1)).fill(7) },
    new Uint8Array([1, 2, 3])
  )
  if (Result.isFailure(sealed)) throw sealed.failure
  return sealed.success
}

const opens = (file: Uint8Array) =>
  Effect.map(NodeKeys, ({ ageIdentities }) => Result.isSuccess(decryptBytes(engine, ageIdentities, file)))

describe("a new encryption key on the device", () => {
  it.effect(
    "is used at once and after a restart; what was sealed to the old one opens still; the id stays",
    () =>
      withFolder((folder) =>
        Effect.gen(function* () {
          const before = yield* life(folder, Identity)
          const old = sealTo(before.recipient)
          const rotated = yield* life(
            folder,
            Effect.gen(function* () {
              const key = yield* (yield* KeyRotation).rotate(nowMs)
              const identity = yield* Identity
              assert.deepStrictEqual(yield* identity.encryption, key)
              assert.isTrue((yield* opens(old)) && (yield* opens(sealTo(key.recipient))))
              return key
            }),
            "second"
          )
          assert.strictEqual(rotated.version, 2)
          yield* life(
            folder,
            Effect.gen(function* () {
              const identity = yield* Identity
              assert.deepStrictEqual(yield* identity.encryption, rotated)
              assert.deepStrictEqual([identity.id, identity.recipient], [before.id, before.recipient])
              assert.isTrue((yield* opens(old)) && (yield* opens(sealTo(rotated.recipient))))
            })
          )
        })
      )
  )
  it.effect("pushes an old one out only when all that was sealed to it has expired", () =>
    withFolder((folder) =>
      life(
        folder,
        Effect.gen(function* () {
          const { rotate } = yield* KeyRotation
          const first = sealTo((yield* Identity).recipient)
          const { recipient } = yield* rotate(nowMs)
          const second = sealTo(recipient)
          yield* rotate(nowMs + Limits.retiredKeyMs - 1)
          assert.isTrue((yield* opens(first)) && (yield* opens(second)))
          yield* rotate(nowMs + Limits.retiredKeyMs)
          assert.deepStrictEqual([yield* opens(first), yield* opens(second)], [false, true])
          const file = readFileSync(join(folder, "keys/node.json"), "utf8")
          assert.strictEqual(JSON.parse(file).decryption_keys.length, 3)
        })
      )
    )
  )
  it.effect("is refused, and nothing lost, when there are too many that may still be needed", () =>
    withFolder((folder) =>
      life(
        folder,
        Effect.gen(function* () {
          const { rotate } = yield* KeyRotation
          for (let n = 1; n < Limits.encryptionKeys; n++) yield* rotate(nowMs)
          const before = readFileSync(join(folder, "keys/node.json"))
          const error = yield* Effect.flip(rotate(nowMs))
          assert.match(error.message, /rotate again later/)
          assert.deepStrictEqual(readFileSync(join(folder, "keys/node.json")), before)
        })
      )
    )
  )
  it.effect(
    "after a power cut there is the file before or the file after, each whole; a mixture is refused",
    () =>
      withFolder((folder) =>
        Effect.gen(function* () {
          const path = join(folder, "keys/node.json")
          yield* life(folder, Effect.void)
          const before = readFileSync(path, "utf8")
          const key = yield* life(
            folder,
            Effect.flatMap(KeyRotation, ({ rotate }) => rotate(nowMs)),
            "second"
          )
          const after = readFileSync(path, "utf8")
          const versionAfter = Effect.flatMap(Identity, ({ encryption }) => encryption)
          writeFileSync(path, before)
          assert.strictEqual((yield* life(folder, versionAfter)).version, 1)
          writeFileSync(path, after)
          assert.deepStrictEqual(yield* life(folder, versionAfter), key)
          const { rotation, ...mixed } = JSON.parse(after)
          for (const broken of [mixed, { ...mixed, rotation: { ...rotation, version: 1 } }]) {
            writeFileSync(path, JSON.stringify(broken))
            const error = yield* Effect.flip(life(folder, versionAfter))
            assert.strictEqual(error._tag, "KeyFileError")
          }
        })
      )
  )
})
