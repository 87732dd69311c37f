import { assert, describe, it } from "@effect/vitest"
import { ed25519 } from "@noble/curves/ed25519.js"
import fc from "fast-check"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { concatBytes } from "../../src/crypto/Bytes.ts"
import type { Engine } from "../../src/crypto/Engine.ts"
import { engineFlaw } from "../../src/crypto/EngineCheck.ts"
import { NobleEngine } from "../../src/crypto/NobleEngine.ts"
import { hex } from "./vectors.ts"

const { Point } = ed25519
const order = Point.Fn.ORDER
const prime = 2n ** 255n - 19n

const littleEndian = (value: bigint): Uint8Array =>
  Uint8Array.from({ length: 32 }, (_, index) => Number((value >> BigInt(8 * index)) & 255n))
const numberOf = (bytes: Uint8Array): bigint =>
  bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n)

/** A generator of the eight points of small order, and all of them. */
const eighth = Point.fromHex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
const small = Array.from({ length: 8 }, (_, index) =>
  index === 0 ? Point.ZERO : eighth.multiplyUnsafe(BigInt(index))
)
const smallAt = (index: number) => small[index % 8] ?? Point.ZERO

/** All spellings that 32 bytes have for a point: y and y + p where that fits, with either sign. */
const spellings = (y: bigint): ReadonlyArray<Uint8Array> =>
  [y, y + prime]
    .filter((value) => value < 2n ** 255n)
    .flatMap((value) => [littleEndian(value), littleEndian(value | (2n ** 255n))])
const hostileKeys = [
  ...new Set([
    ...small.map((point) => point.toAffine().y),
    ...Array.from({ length: 19 }, (_, y) => BigInt(y))
  ])
].flatMap(spellings)

const bothVerify = (signature: Uint8Array, message: Uint8Array, key: Uint8Array): boolean => {
  const [noble, native] = [NobleEngine, NativeCrypto].map((engine) =>
    engine.ed25519.verify(signature, message, key)
  )
  assert.strictEqual(native, noble, `signature ${Buffer.from(signature).toString("hex")}`)
  return noble === true
}

/** What a signer with bad intent can make: a key and an R with parts of small order, and the S that goes with them. */
const forge = (
  secret: bigint,
  nonce: bigint,
  [inKey, inR]: readonly [number, number],
  message: Uint8Array
) => {
  const key = Point.BASE.multiply(secret).add(smallAt(inKey)).toBytes()
  const r = (nonce === 0n ? Point.ZERO : Point.BASE.multiply(nonce)).add(smallAt(inR)).toBytes()
  const k = numberOf(NobleEngine.sha512(concatBytes(r, key, message))) % order
  return { key, signature: concatBytes(r, littleEndian((nonce + k * secret) % order)) }
}

const scalar = fc.bigInt({ min: 1n, max: order - 1n })
const message = fc.uint8Array({ maxLength: 40 })
const part = fc.nat(7)

describe("both engines judge alike", () => {
  it("signatures with parts of small order in key and R, and take none whose R is of small order", () => {
    let good = 0
    fc.assert(
      fc.property(
        scalar,
        fc.oneof(fc.constant(0n), scalar),
        fc.tuple(part, part),
        message,
        (secret, nonce, parts, text) => {
          const { key, signature } = forge(secret, nonce, parts, text)
          const isGood = bothVerify(signature, text, key)
          if (nonce === 0n) assert.isFalse(isGood)
          if (isGood) good++
        }
      ),
      { numRuns: 150 }
    )
    assert.isAbove(good, 0)
  })

  it("every spelling of keys and of R that is small, or not canonical", () => {
    const text = Uint8Array.of(1, 2, 3)
    const secret = new Uint8Array(32).fill(3)
    const own = NobleEngine.ed25519.publicKey(secret)
    const signature = NobleEngine.ed25519.sign(text, secret)
    for (const bytes of hostileKeys) {
      bothVerify(signature, text, bytes)
      bothVerify(concatBytes(bytes, signature.subarray(32)), text, own)
      // S = 0 and R = key: what a key of small order would make of any message.
      bothVerify(concatBytes(bytes, new Uint8Array(32)), text, bytes)
      bothVerify(concatBytes(bytes, new Uint8Array(32)), text, own)
    }
    assert.isAbove(hostileKeys.length, 60)
  })

  it("signatures whose S is raised by the order as often as it fits", () => {
    fc.assert(
      fc.property(scalar, scalar, fc.integer({ min: 1, max: 15 }), message, (secret, nonce, times, text) => {
        const { key, signature } = forge(secret, nonce, [0, 0], text)
        assert.isTrue(bothVerify(signature, text, key))
        const raised = numberOf(signature.subarray(32)) + BigInt(times) * order
        if (raised < 2n ** 256n)
          assert.isFalse(bothVerify(concatBytes(signature.subarray(0, 32), littleEndian(raised)), text, key))
      }),
      { numRuns: 40 }
    )
  })

  it("any bytes as signature, message and key", () => {
    const any = fc.uint8Array({ minLength: 31, maxLength: 33 })
    fc.assert(
      fc.property(any, any, message, any, (r, s, text, key) => {
        assert.isFalse(bothVerify(concatBytes(r, s), text, key))
      }),
      { numRuns: 200 }
    )
  })

  it("HMAC of keys and data of any length", () => {
    const length = fc.oneof(fc.nat(130), fc.constantFrom(0, 63, 64, 65, 4_095, 4_096, 4_097, 10_000))
    fc.assert(
      fc.property(length, length, fc.nat(255), (keyBytes, dataBytes, seed) => {
        const [key, data] = [keyBytes, dataBytes].map((bytes) =>
          Uint8Array.from({ length: bytes }, (_, index) => (index * 31 + seed) & 255)
        ) as [Uint8Array, Uint8Array]
        assert.deepStrictEqual(NativeCrypto.hmacSha256(key, data), NobleEngine.hmacSha256(key, data))
      }),
      { numRuns: 60 }
    )
  })

  it("more keys than the native one remembers, each time as if it saw them first", () => {
    const message = Uint8Array.of(7)
    const pairs = Array.from({ length: 1_100 }, (_, index) => {
      const seed = NativeCrypto.sha256(Uint8Array.of(index >> 8, index & 255))
      return {
        key: NativeCrypto.ed25519.publicKey(seed),
        signature: NativeCrypto.ed25519.sign(message, seed)
      }
    })
    for (const round of [1, 2])
      for (const [index, { key, signature }] of pairs.entries()) {
        assert.isTrue(NativeCrypto.ed25519.verify(signature, message, key.slice()), `${round} ${index}`)
        const other = pairs[(index + 1) % pairs.length]?.key ?? key
        assert.isFalse(NativeCrypto.ed25519.verify(signature, message, other.slice()), `${round} ${index}`)
      }
  })

  it("X25519 with keys of small order, on the twist, and not canonical", () => {
    const smallU = [0n, 1n, prime - 1n].concat(
      [
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"
      ].map((text) => numberOf(hex(text)))
    )
    const agree = (secret: Uint8Array, key: Uint8Array) => {
      const shared = NobleEngine.x25519.sharedSecret(secret, key)
      assert.deepStrictEqual(NativeCrypto.x25519.sharedSecret(secret, key), shared)
      return shared
    }
    const keys = fc.oneof(
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      fc.constantFrom(...[...smallU, ...Array.from({ length: 19 }, (_, u) => BigInt(u))].flatMap(spellings))
    )
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        keys,
        (secret, key) => void agree(secret, key)
      ),
      { numRuns: 150 }
    )
    for (const u of smallU)
      for (const key of spellings(u)) assert.isUndefined(agree(new Uint8Array(32).fill(9), key))
  })
})

/** An engine with one operation that is wrong. */
const bent = (change: (engine: Engine) => Partial<Engine>): Engine => ({
  ...NativeCrypto,
  ...change(NativeCrypto)
})
const turned = (bytes: Uint8Array): Uint8Array => bytes.map((byte, at) => (at === 0 ? byte ^ 1 : byte))
const wrong: Readonly<Record<string, Engine>> = {
  sha256: bent((engine) => ({ sha256: (data) => turned(engine.sha256(data)) })),
  sha512: bent((engine) => ({ sha512: (data) => turned(engine.sha512(data)) })),
  hmac: bent((engine) => ({ hmacSha256: (key, data) => turned(engine.hmacSha256(key, data)) })),
  hkdf: bent((engine) => ({ hkdfSha256: (...all) => turned(engine.hkdfSha256(...all)) })),
  scrypt: bent((engine) => ({ scrypt: (...all) => turned(engine.scrypt(...all)) })),
  sign: bent(({ ed25519 }) => ({ ed25519: { ...ed25519, sign: (...all) => turned(ed25519.sign(...all)) } })),
  "takes every signature": bent(({ ed25519 }) => ({ ed25519: { ...ed25519, verify: () => true } })),
  "takes no signature": bent(({ ed25519 }) => ({ ed25519: { ...ed25519, verify: () => false } })),
  "takes the equation with the cofactor": bent((engine) => ({
    ed25519: {
      ...engine.ed25519,
      verify: (signature, text, key) => {
        try {
          return ed25519.verify(signature, text, key, { zip215: true })
        } catch {
          return false
        }
      }
    }
  })),
  "agrees with keys of small order": bent(({ x25519 }) => ({
    x25519: { ...x25519, sharedSecret: (...all) => x25519.sharedSecret(...all) ?? new Uint8Array(32) }
  })),
  "opens every box": bent(({ chacha20poly1305 }) => ({
    chacha20poly1305: {
      ...chacha20poly1305,
      open: (...all) => chacha20poly1305.open(...all) ?? new Uint8Array(7)
    }
  })),
  "has no X25519": bent(({ x25519 }) => ({
    x25519: {
      ...x25519,
      sharedSecret: () => {
        throw new Error("unsupported")
      }
    }
  }))
}

describe("the test at the start", () => {
  it("is passed by both engines", () => {
    assert.isUndefined(engineFlaw(NativeCrypto))
    assert.isUndefined(engineFlaw(NobleEngine))
  })

  it("finds an engine that is wrong in one thing", () => {
    const passed = Object.entries(wrong).filter(([, engine]) => engineFlaw(engine) === undefined)
    assert.deepStrictEqual(
      passed.map(([name]) => name),
      []
    )
  })
})
