import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import type { Engine } from "../../src/crypto/Engine.ts"
import { hpkeOverheadBytes, openHpke, sealHpke } from "../../src/crypto/Hpke.ts"
import { NobleEngine } from "../../src/crypto/NobleEngine.ts"
import { describeWithVectors, flipBit, hex, readVectorText } from "./vectors.ts"

const engines: ReadonlyArray<Engine> = [NobleEngine, NativeCrypto]
const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })
const message = fc.uint8Array({ maxLength: 300 })

/** RFC 9180, A.2.1: base mode, the first encryption. */
const rfc = {
  ephemeral: hex("f4ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381600"),
  enc: hex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a"),
  recipient: {
    secret: hex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb"),
    public: hex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a")
  },
  info: hex("4f6465206f6e2061204772656369616e2055726e"),
  aad: hex("436f756e742d30"),
  plaintext: hex("4265617574792069732074727574682c20747275746820626561757479"),
  ciphertext: hex(
    "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"
  )
}
const smallOrder = [
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"
].map(hex)

for (const engine of engines) {
  describe(`HPKE on the ${engine.name} engine`, () => {
    const { aad, ciphertext, enc, ephemeral, info, plaintext, recipient } = rfc

    it("gives the values of RFC 9180, A.2.1, both ways", () => {
      assert.deepStrictEqual(sealHpke(engine, recipient.public, { info, aad }, plaintext, ephemeral), {
        enc,
        ciphertext
      })
      assert.deepStrictEqual(openHpke(engine, recipient, { info, aad }, { enc, ciphertext }), plaintext)
    })

    it("seals nothing to a key of small order, and opens nothing that was sealed with one", () => {
      for (const key of smallOrder) {
        assert.isUndefined(sealHpke(engine, key, { info, aad }, plaintext, ephemeral))
        assert.isUndefined(openHpke(engine, recipient, { info, aad }, { enc: key, ciphertext }))
      }
    })

    it("opens nothing of which a bit was turned, in key, text, info or aad", () => {
      for (let bit = 0; bit < 256; bit += 7) {
        const bent = [
          openHpke(engine, recipient, { info, aad }, { enc: flipBit(enc, bit), ciphertext }),
          openHpke(engine, recipient, { info, aad }, { enc, ciphertext: flipBit(ciphertext, bit) }),
          openHpke(engine, recipient, { info: flipBit(info, bit), aad }, { enc, ciphertext }),
          openHpke(engine, recipient, { info, aad: flipBit(aad, bit) }, { enc, ciphertext })
        ]
        // The highest bit of a public key is ignored by X25519, but bound as it was sent.
        assert.deepStrictEqual(bent, [undefined, undefined, undefined, undefined])
      }
    })

    it("never throws on keys and texts of any length", () => {
      fc.assert(
        fc.property(message, message, (first, second) => {
          assert.isUndefined(openHpke(engine, recipient, { info, aad }, { enc: first, ciphertext: second }))
        })
      )
    })
  })
}

describe("HPKE", () => {
  it("opens on either engine what either sealed, with the same bytes", () => {
    fc.assert(
      fc.property(
        bytes(32),
        bytes(32),
        message,
        message,
        message,
        (secret, entropy, info, aad, plaintext) => {
          const keys = { secret, public: NativeCrypto.x25519.publicKey(secret) }
          const boxes = engines.map((engine) =>
            sealHpke(engine, keys.public, { info, aad }, plaintext, entropy)
          )
          assert.deepStrictEqual(boxes[0], boxes[1])
          const box = boxes[0] as NonNullable<(typeof boxes)[0]>
          assert.strictEqual(box.ciphertext.length, plaintext.length + hpkeOverheadBytes)
          for (const engine of engines)
            assert.deepStrictEqual(openHpke(engine, keys, { info, aad }, box), plaintext)
        }
      ),
      { numRuns: 40 }
    )
  })
})

describeWithVectors("HPKE: the published vectors", () => {
  const { vectors } = JSON.parse(readVectorText("hpke/rfc9180-x25519-sha256-chacha20poly1305.json"))
  const base = vectors.find((vector: { setup: string }) => vector.setup === "Base")

  it("seals and opens the first encryption of the base mode", () => {
    const first = base.encryptions.find(({ seq }: { seq: number }) => seq === 0)
    const binding = { info: hex(base.info), aad: hex(first.aad) }
    for (const engine of engines) {
      const box = sealHpke(engine, hex(base.pkRm), binding, hex(first.pt), hex(base.skEm))
      assert.deepStrictEqual(box, { enc: hex(base.enc), ciphertext: hex(first.ct) })
    }
  })
})
