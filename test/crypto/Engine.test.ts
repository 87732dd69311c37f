import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import type { Engine } from "../../src/crypto/Engine.ts"
import { NobleEngine } from "../../src/crypto/NobleEngine.ts"
import { describeWithVectors, flipBit, hex, wycheproof } from "./vectors.ts"

const engines: ReadonlyArray<Engine> = [NobleEngine, NativeCrypto]
const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })
const text = (value: string) => new TextEncoder().encode(value)

for (const engine of engines) {
  describe(`the ${engine.name} engine: RFC values`, () => {
    it("SHA-256 and SHA-512 of abc (FIPS 180-4)", () => {
      const abc256 = hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
      assert.deepStrictEqual(engine.sha256(text("abc")), abc256)
      assert.deepStrictEqual(engine.sha512(text("abc")).subarray(0, 8), hex("ddaf35a193617aba"))
      const hasher = engine.hasher()
      hasher.update(text("a"))
      hasher.update(text("bc"))
      assert.deepStrictEqual(hasher.digest(), abc256)
    })

    it("HMAC-SHA256 (RFC 4231, case 2)", () => {
      assert.deepStrictEqual(
        engine.hmacSha256(text("Jefe"), text("what do ya want for nothing?")),
        hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
      )
    })

    it("HKDF-SHA256 (RFC 5869, A.1 and A.3)", () => {
      const secret = new Uint8Array(22).fill(0x0b)
      assert.deepStrictEqual(
        engine.hkdfSha256(secret, hex("000102030405060708090a0b0c"), hex("f0f1f2f3f4f5f6f7f8f9"), 42),
        hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
      )
      assert.deepStrictEqual(
        engine.hkdfSha256(secret, new Uint8Array(0), new Uint8Array(0), 42),
        hex("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8")
      )
    })

    it("Ed25519 (RFC 8032, 7.1, tests 1 and 2)", () => {
      const seed = hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
      const publicKey = hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
      const signature = hex(`92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da
        085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00`)
      assert.deepStrictEqual(engine.ed25519.publicKey(seed), publicKey)
      assert.deepStrictEqual(engine.ed25519.sign(hex("72"), seed), signature)
      assert.isTrue(engine.ed25519.verify(signature, hex("72"), publicKey))
      assert.isFalse(engine.ed25519.verify(signature, hex("73"), publicKey))
      const empty = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
      assert.deepStrictEqual(
        engine.ed25519.publicKey(empty),
        hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
      )
    })

    it("X25519 (RFC 7748, 5.2)", () => {
      assert.deepStrictEqual(
        engine.x25519.sharedSecret(
          hex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
          hex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
        ),
        hex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552")
      )
      const nine = new Uint8Array(32)
      nine[0] = 9
      assert.deepStrictEqual(
        engine.x25519.publicKey(nine),
        hex("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079")
      )
    })

    it("ChaCha20-Poly1305 (RFC 8439, 2.8.2)", () => {
      const key = hex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f")
      const nonce = hex("070000004041424344454647")
      const aad = hex("50515253c0c1c2c3c4c5c6c7")
      const plaintext = text(
        "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."
      )
      const box = engine.chacha20poly1305.seal(key, nonce, plaintext, aad)
      assert.deepStrictEqual(box.subarray(-16), hex("1ae10b594f09e26a7e902ecbd0600691"))
      assert.deepStrictEqual(box.subarray(0, 8), hex("d31a8d34648e60db"))
      assert.deepStrictEqual(engine.chacha20poly1305.open(key, nonce, box, aad), plaintext)
      assert.isUndefined(engine.chacha20poly1305.open(key, nonce, box))
    })

    it("scrypt (RFC 7914, 12)", () => {
      assert.deepStrictEqual(
        engine.scrypt(text("password"), text("NaCl"), { logN: 10, r: 8, p: 16 }, 64).subarray(0, 16),
        hex("fdbabe1c9d3472007856e7190d01e9fe")
      )
    })
  })

  describe(`the ${engine.name} engine: contracts`, () => {
    const short = new Uint8Array(31)
    const right = new Uint8Array(32).fill(9)

    it("never throws on what came from outside", () => {
      assert.isFalse(engine.ed25519.verify(new Uint8Array(63), right, right))
      assert.isFalse(engine.ed25519.verify(new Uint8Array(64), right, short))
      assert.isFalse(engine.ed25519.verify(new Uint8Array(64), right, new Uint8Array(32)))
      assert.isUndefined(engine.x25519.sharedSecret(right, short))
      assert.isUndefined(engine.x25519.sharedSecret(right, new Uint8Array(32)))
      assert.isUndefined(engine.chacha20poly1305.open(right, new Uint8Array(12), new Uint8Array(15)))
    })

    it("throws RangeError for our own arguments of a wrong size", () => {
      assert.throws(() => engine.ed25519.publicKey(short), RangeError)
      assert.throws(() => engine.ed25519.sign(right, short), RangeError)
      assert.throws(() => engine.x25519.publicKey(short), RangeError)
      assert.throws(() => engine.x25519.sharedSecret(short, right), RangeError)
      assert.throws(() => engine.chacha20poly1305.seal(short, new Uint8Array(12), right), RangeError)
      assert.throws(() => engine.chacha20poly1305.seal(right, new Uint8Array(11), right), RangeError)
      assert.throws(() => engine.chacha20poly1305.open(short, new Uint8Array(12), right), RangeError)
      assert.throws(() => engine.chacha20poly1305.open(right, new Uint8Array(8), right), RangeError)
      assert.throws(() => engine.hkdfSha256(right, right, new Uint8Array(1025), 32), RangeError)
      assert.throws(() => engine.hkdfSha256(right, right, right, 0), RangeError)
      assert.throws(() => engine.hkdfSha256(right, right, right, 8161), RangeError)
    })
  })

  describeWithVectors(`the ${engine.name} engine: Wycheproof`, () => {
    it("Ed25519", () => {
      for (const test of wycheproof("ed25519")) {
        const verdict = engine.ed25519.verify(test.hex("sig"), test.hex("msg"), test.publicKey)
        assert.strictEqual(verdict, test.result === "valid", `case ${test.tcId} ${test.comment}`)
      }
    })

    it("X25519", () => {
      for (const test of wycheproof("x25519")) {
        const shared = engine.x25519.sharedSecret(test.hex("private"), test.hex("public"))
        const expected = test.flags.includes("ZeroSharedSecret") ? undefined : test.hex("shared")
        assert.deepStrictEqual(shared, expected, `case ${test.tcId} ${test.comment}`)
      }
    })

    it("ChaCha20-Poly1305", () => {
      for (const test of wycheproof("chacha20_poly1305")) {
        const [key, nonce, aad] = [test.hex("key"), test.hex("iv"), test.hex("aad")]
        const box = Uint8Array.from([...test.hex("ct"), ...test.hex("tag")])
        const open = () => engine.chacha20poly1305.open(key, nonce, box, aad)
        if (test.flags.includes("InvalidNonceSize")) {
          assert.throws(open, RangeError)
        } else if (test.result === "valid") {
          assert.deepStrictEqual(open(), test.hex("msg"), `case ${test.tcId}`)
          assert.deepStrictEqual(engine.chacha20poly1305.seal(key, nonce, test.hex("msg"), aad), box)
        } else {
          assert.isUndefined(open(), `case ${test.tcId}`)
        }
      }
    })

    it("HKDF-SHA256", () => {
      for (const test of wycheproof("hkdf_sha256")) {
        const derive = () =>
          engine.hkdfSha256(test.hex("ikm"), test.hex("salt"), test.hex("info"), test.number("size"))
        if (test.result === "valid") assert.deepStrictEqual(derive(), test.hex("okm"), `case ${test.tcId}`)
        else assert.throws(derive, RangeError)
      }
    })
  })
}

describe("the native engine, which remembers imported keys by their arrays", () => {
  /** Each step signs and verifies with keys that stand in the same two arrays, written over before or not. */
  const steps = fc.array(
    fc.record({
      seed: fc.option(bytes(32), { nil: null }),
      publicKey: fc.option(bytes(32), { nil: null }),
      message: fc.uint8Array({ maxLength: 40 })
    }),
    { minLength: 1, maxLength: 12 }
  )

  it("gives the same bytes and verdicts as with arrays it never saw", () => {
    fc.assert(
      fc.property(bytes(32), steps, (first, all) => {
        const seed = Uint8Array.from(first)
        const publicKey = NativeCrypto.ed25519.publicKey(seed)
        for (const step of all) {
          if (step.seed !== null) {
            seed.set(step.seed)
            publicKey.set(NativeCrypto.ed25519.publicKey(step.seed))
          }
          const signature = NativeCrypto.ed25519.sign(step.message, seed)
          assert.deepStrictEqual(signature, NativeCrypto.ed25519.sign(step.message, seed.slice()))
          assert.isTrue(NativeCrypto.ed25519.verify(signature, step.message, publicKey))
          if (step.publicKey !== null) publicKey.set(step.publicKey)
          assert.strictEqual(
            NativeCrypto.ed25519.verify(signature, step.message, publicKey),
            NativeCrypto.ed25519.verify(signature, step.message, publicKey.slice())
          )
          publicKey.set(NativeCrypto.ed25519.publicKey(seed))
        }
      })
    )
  })
})

describe("both engines agree", () => {
  it("on everything they make", () => {
    fc.assert(
      fc.property(bytes(32), bytes(32), fc.uint8Array({ maxLength: 300 }), (seed, other, message) => {
        for (const make of [
          (engine: Engine) => engine.ed25519.publicKey(seed),
          (engine: Engine) => engine.ed25519.sign(message, seed),
          (engine: Engine) => engine.x25519.publicKey(seed),
          (engine: Engine) => engine.x25519.sharedSecret(seed, other),
          (engine: Engine) => engine.sha512(message),
          (engine: Engine) => engine.hmacSha256(message, other),
          (engine: Engine) => engine.hkdfSha256(message, other, seed, 77),
          (engine: Engine) => engine.chacha20poly1305.seal(seed, other.subarray(0, 12), message, other)
        ]) {
          assert.deepStrictEqual(make(NativeCrypto), make(NobleEngine))
        }
      }),
      { numRuns: 40 }
    )
  })

  it("on scrypt", () => {
    const cost = { logN: 8, r: 8, p: 2 }
    assert.deepStrictEqual(
      NativeCrypto.scrypt(text("correct horse"), text("salt"), cost, 32),
      NobleEngine.scrypt(text("correct horse"), text("salt"), cost, 32)
    )
  })

  it("that a signature with one turned bit in key, signature or message is false", () => {
    fc.assert(
      fc.property(
        bytes(32),
        fc.uint8Array({ minLength: 1, maxLength: 64 }),
        fc.nat(),
        (seed, message, bit) => {
          const publicKey = NativeCrypto.ed25519.publicKey(seed)
          const signature = NativeCrypto.ed25519.sign(message, seed)
          for (const engine of engines) {
            assert.isTrue(engine.ed25519.verify(signature, message, publicKey))
            assert.isFalse(engine.ed25519.verify(flipBit(signature, bit), message, publicKey))
            assert.isFalse(engine.ed25519.verify(signature, flipBit(message, bit), publicKey))
            assert.isFalse(engine.ed25519.verify(signature, message, flipBit(publicKey, bit)))
          }
        }
      ),
      { numRuns: 40 }
    )
  })

  it("that a box with one turned bit is undefined", () => {
    fc.assert(
      fc.property(
        bytes(32),
        bytes(12),
        fc.uint8Array({ maxLength: 99 }),
        fc.nat(),
        (key, nonce, plaintext, bit) => {
          const box = NobleEngine.chacha20poly1305.seal(key, nonce, plaintext)
          for (const engine of engines) {
            assert.deepStrictEqual(engine.chacha20poly1305.open(key, nonce, box), plaintext)
            assert.isUndefined(engine.chacha20poly1305.open(key, nonce, flipBit(box, bit)))
            assert.isUndefined(engine.chacha20poly1305.open(flipBit(key, bit), nonce, box))
            assert.isUndefined(engine.chacha20poly1305.open(key, flipBit(nonce, bit), box))
            assert.isUndefined(engine.chacha20poly1305.open(key, nonce, box, Uint8Array.of(1)))
          }
        }
      )
    )
  })
})

describeWithVectors("both engines agree on mutations of Wycheproof", () => {
  const index = fc.nat()
  const flips = fc.array(fc.nat(), { maxLength: 3 })
  const mutate = (bytes: Uint8Array, bits: ReadonlyArray<number>) =>
    bytes.length === 0 ? bytes : bits.reduce<Uint8Array>(flipBit, bytes)

  it("Ed25519", () => {
    const cases = wycheproof("ed25519")
    fc.assert(
      fc.property(index, flips, flips, flips, (at, inSignature, inMessage, inKey) => {
        const test = cases[at % cases.length] as (typeof cases)[number]
        const signature = mutate(test.hex("sig"), inSignature)
        const [message, key] = [mutate(test.hex("msg"), inMessage), mutate(test.publicKey, inKey)]
        assert.strictEqual(
          NativeCrypto.ed25519.verify(signature, message, key),
          NobleEngine.ed25519.verify(signature, message, key)
        )
      }),
      { numRuns: 200 }
    )
  })

  it("X25519", () => {
    const cases = wycheproof("x25519")
    fc.assert(
      fc.property(index, flips, flips, (at, inSecret, inKey) => {
        const test = cases[at % cases.length] as (typeof cases)[number]
        const [secret, key] = [mutate(test.hex("private"), inSecret), mutate(test.hex("public"), inKey)]
        assert.deepStrictEqual(
          NativeCrypto.x25519.sharedSecret(secret, key),
          NobleEngine.x25519.sharedSecret(secret, key)
        )
      }),
      { numRuns: 200 }
    )
  })

  it("ChaCha20-Poly1305", () => {
    const cases = wycheproof("chacha20_poly1305").filter((test) => test.hex("iv").length === 12)
    fc.assert(
      fc.property(index, flips, flips, (at, inBox, inNonce) => {
        const test = cases[at % cases.length] as (typeof cases)[number]
        const box = mutate(Uint8Array.from([...test.hex("ct"), ...test.hex("tag")]), inBox)
        const open = (engine: Engine) =>
          engine.chacha20poly1305.open(test.hex("key"), mutate(test.hex("iv"), inNonce), box, test.hex("aad"))
        assert.deepStrictEqual(open(NativeCrypto), open(NobleEngine))
      }),
      { numRuns: 200 }
    )
  })
})
