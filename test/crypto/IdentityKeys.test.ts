import { createHash } from "node:crypto"
import { assert, describe, it } from "@effect/vitest"
import { Redacted, Schema } from "effect"
import fc from "fast-check"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { claimCode, deriveId, makeSecretKeys, publicKeysOf } from "../../src/crypto/IdentityKeys.ts"
import { NobleEngine } from "../../src/crypto/NobleEngine.ts"
import { DeviceId, type Digest, ServerId } from "../../src/schemas/Ids.ts"
import { flipBit, hex } from "./vectors.ts"

const signingKey = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
const encryptionKey = hex("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079")

describe("ids", () => {
  it("are what any other program computes from the description", () => {
    const digest = createHash("sha256")
      .update("postern/device-id/v1\0")
      .update(signingKey)
      .update(encryptionKey)
      .digest()
    const bits = [...digest]
      .map((byte) => byte.toString(2).padStart(8, "0"))
      .join("")
      .padEnd(260, "0")
    const text = (bits.match(/.{5}/g) ?? []).map(
      (five) => "abcdefghijklmnopqrstuvwxyz234567"[Number.parseInt(five, 2)]
    )
    assert.strictEqual(deriveId(NativeCrypto, "device", signingKey, encryptionKey), `dev_${text.join("")}`)
  })

  it("are of the schema's form, and the same under both engines", () => {
    const device = deriveId(NobleEngine, "device", signingKey, encryptionKey)
    const server = deriveId(NobleEngine, "server", signingKey, encryptionKey)
    assert.isTrue(Schema.is(DeviceId)(device))
    assert.isTrue(Schema.is(ServerId)(server))
    assert.notStrictEqual(
      device.slice(4),
      server.slice(4),
      "one pair of keys is not the same number in both kinds"
    )
    assert.strictEqual(deriveId(NativeCrypto, "device", signingKey, encryptionKey), device)
  })

  it("change with every bit of either key", () => {
    const id = deriveId(NativeCrypto, "device", signingKey, encryptionKey)
    fc.assert(
      fc.property(fc.nat(255), (bit) => {
        assert.notStrictEqual(deriveId(NativeCrypto, "device", flipBit(signingKey, bit), encryptionKey), id)
        assert.notStrictEqual(deriveId(NativeCrypto, "device", signingKey, flipBit(encryptionKey, bit)), id)
      })
    )
    assert.notStrictEqual(deriveId(NativeCrypto, "device", encryptionKey, signingKey), id)
    assert.throws(() => deriveId(NativeCrypto, "device", signingKey.subarray(1), encryptionKey), RangeError)
    assert.throws(() => deriveId(NativeCrypto, "device", signingKey, new Uint8Array(33)), RangeError)
  })
})

describe("new keys", () => {
  it("come from the entropy given and print as redacted", () => {
    const entropy = Uint8Array.from({ length: 64 }, (_, index) => index)
    const keys = makeSecretKeys(entropy)
    entropy.fill(0)
    assert.strictEqual(Redacted.value(keys.signingSeed)[5], 5)
    assert.strictEqual(Redacted.value(keys.encryptionSecret)[0], 32)
    assert.notInclude(JSON.stringify(keys), "33")
    assert.include(String(keys.signingSeed), "redacted")
    const publicKeys = publicKeysOf(NativeCrypto, keys)
    assert.deepStrictEqual(publicKeysOf(NobleEngine, keys), publicKeys)
    assert.throws(() => makeSecretKeys(new Uint8Array(63)), RangeError)
  })
})

describe("claim codes", () => {
  const claim = {
    device: deriveId(NativeCrypto, "device", signingKey, encryptionKey),
    server: deriveId(NativeCrypto, "server", signingKey, encryptionKey),
    rootDigest: `sha256:${"ab".repeat(32)}` as Digest
  }

  it("are four groups of four, and follow from device, root and server", () => {
    const code = claimCode(NativeCrypto, claim)
    assert.match(code, /^[A-Z2-7]{4}(-[A-Z2-7]{4}){3}$/)
    assert.strictEqual(claimCode(NobleEngine, claim), code)
    const other = hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    for (const change of [
      { device: deriveId(NativeCrypto, "device", other, encryptionKey) },
      { server: deriveId(NativeCrypto, "server", other, encryptionKey) },
      { rootDigest: `sha256:${"ac".repeat(32)}` as Digest }
    ]) {
      assert.notStrictEqual(claimCode(NativeCrypto, { ...claim, ...change }), code)
    }
  })
})
