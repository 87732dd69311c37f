import { assert, describe, it } from "@effect/vitest"
import { ed25519, x25519 } from "@noble/curves/ed25519.js"
import { Result } from "effect"
import fc from "fast-check"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { encodeHex } from "../../src/crypto/Hex.ts"
import { parseEd25519PublicKey, parseX25519PublicKey } from "../../src/crypto/Keys.ts"
import { NobleEngine } from "../../src/crypto/NobleEngine.ts"
import { describeWithVectors, hex, wycheproof } from "./vectors.ts"

const { Point } = ed25519
const p = 2n ** 255n - 19n

const littleEndian = (value: bigint): Uint8Array => hex(value.toString(16).padStart(64, "0")).reverse()

/** All eight points of small order, made from one of order eight: nothing is taken from the module under test. */
const smallOrderPoints = (): ReadonlyArray<Uint8Array> => {
  for (let y = 2n; ; y++) {
    let point: InstanceType<typeof Point>
    try {
      point = Point.fromBytes(littleEndian(y), false)
    } catch {
      continue
    }
    const torsion = point.multiplyUnsafe(Point.Fn.ORDER - 1n).add(point)
    if (torsion.double().double().is0()) continue
    const points = [Point.ZERO]
    for (let index = 1; index < 8; index++) points.push((points.at(-1) as typeof torsion).add(torsion))
    return points.map((each) => each.toBytes())
  }
}

const reasonOf = (result: Result.Result<unknown, { reason: string }>): string =>
  Result.isFailure(result) ? result.failure.reason : "accepted"

describe("Ed25519 public keys", () => {
  it("accepts those of any seed, and copies them", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (seed) => {
        const key = NativeCrypto.ed25519.publicKey(seed)
        const parsed = Result.getOrThrow(parseEd25519PublicKey(key))
        assert.deepStrictEqual(Uint8Array.from(parsed), key)
        assert.notStrictEqual<unknown>(parsed.buffer, key.buffer)
      }),
      { numRuns: 30 }
    )
  })

  it("refuses all eight points of small order, under both engines too", () => {
    const points = smallOrderPoints()
    assert.strictEqual(new Set(points.map(encodeHex)).size, 8)
    for (const point of points) {
      assert.strictEqual(reasonOf(parseEd25519PublicKey(point)), "small_order", encodeHex(point))
      // R = point, S = 0 would verify for one message in eight, or for all.
      const forged = new Uint8Array(64)
      forged.set(points[0] as Uint8Array)
      for (let message = 0; message < 16; message++) {
        assert.isFalse(NobleEngine.ed25519.verify(forged, Uint8Array.of(message), point))
        assert.isFalse(NativeCrypto.ed25519.verify(forged, Uint8Array.of(message), point))
      }
    }
  })

  it("refuses the small-order points' other spellings", () => {
    for (const y of [1n, p - 1n]) {
      const bytes = littleEndian(y)
      bytes[31] = (bytes[31] as number) | 0x80
      assert.strictEqual(reasonOf(parseEd25519PublicKey(bytes)), "small_order")
    }
  })

  it("refuses coordinates from p up", () => {
    for (let above = 0n; above < 19n; above++) {
      for (const sign of [0, 0x80]) {
        const bytes = littleEndian(p + above)
        bytes[31] = (bytes[31] as number) | sign
        assert.strictEqual(reasonOf(parseEd25519PublicKey(bytes)), "not_canonical")
      }
    }
  })

  it("refuses wrong lengths and what is not on the curve", () => {
    assert.strictEqual(reasonOf(parseEd25519PublicKey(new Uint8Array(31))), "length")
    assert.strictEqual(reasonOf(parseEd25519PublicKey(new Uint8Array(33))), "length")
    assert.strictEqual(reasonOf(parseEd25519PublicKey(littleEndian(2n))), "not_on_curve")
  })
})

describe("signatures on which engines are known to differ", () => {
  const mixedOrder = () => {
    const torsion = Point.fromBytes(smallOrderPoints()[1] as Uint8Array, false)
    const secret = 7n ** 80n % Point.Fn.ORDER
    return { torsion, secret, key: Point.BASE.multiply(secret).add(torsion).toBytes() }
  }

  it("a key with a small-order part: both engines check the plain equation", () => {
    const { key, secret } = mixedOrder()
    const verdicts = new Set<boolean>()
    for (let index = 0; index < 64; index++) {
      const message = Uint8Array.of(index)
      const r = BigInt(index + 5) ** 50n % Point.Fn.ORDER
      const encodedR = Point.BASE.multiply(r).toBytes()
      const digest = NobleEngine.sha512(Uint8Array.from([...encodedR, ...key, ...message]))
      const k = BigInt(`0x${encodeHex(digest.reverse())}`) % Point.Fn.ORDER
      const signature = Uint8Array.from([...encodedR, ...littleEndian((r + k * secret) % Point.Fn.ORDER)])
      const noble = NobleEngine.ed25519.verify(signature, message, key)
      assert.strictEqual(NativeCrypto.ed25519.verify(signature, message, key), noble)
      assert.isTrue(
        ed25519.verify(signature, message, key, { zip215: false }),
        "the cofactored equation holds"
      )
      assert.strictEqual(noble, k % 8n === 0n)
      verdicts.add(noble)
    }
    assert.deepStrictEqual([...verdicts].sort(), [false, true])
  })

  it("an R with a small-order part is refused by both", () => {
    const { torsion, secret } = mixedOrder()
    const key = Point.BASE.multiply(secret).toBytes()
    const r = 11n ** 60n % Point.Fn.ORDER
    const encodedR = Point.BASE.multiply(r).add(torsion).toBytes()
    const digest = NobleEngine.sha512(Uint8Array.from([...encodedR, ...key]))
    const k = BigInt(`0x${encodeHex(digest.reverse())}`) % Point.Fn.ORDER
    const signature = Uint8Array.from([...encodedR, ...littleEndian((r + k * secret) % Point.Fn.ORDER)])
    assert.isTrue(ed25519.verify(signature, new Uint8Array(0), key, { zip215: false }))
    assert.isFalse(NobleEngine.ed25519.verify(signature, new Uint8Array(0), key))
    assert.isFalse(NativeCrypto.ed25519.verify(signature, new Uint8Array(0), key))
  })
})

describe("X25519 public keys", () => {
  it("accepts those of any secret", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (secret) => {
        const key = NativeCrypto.x25519.publicKey(secret)
        assert.deepStrictEqual(Uint8Array.from(Result.getOrThrow(parseX25519PublicKey(key))), key)
      }),
      { numRuns: 30 }
    )
  })

  it("refuses the images of the small-order points", () => {
    let seen = 0
    for (const point of smallOrderPoints()) {
      if (Point.fromBytes(point, false).is0()) continue
      const u = ed25519.utils.toMontgomery(point)
      assert.strictEqual(reasonOf(parseX25519PublicKey(u)), "small_order", encodeHex(u))
      seen++
    }
    assert.strictEqual(seen, 7)
    assert.strictEqual(reasonOf(parseX25519PublicKey(littleEndian(p - 1n))), "small_order")
  })

  it("refuses a set top bit and coordinates from p up", () => {
    const key = x25519.getPublicKey(new Uint8Array(32).fill(3))
    key[31] = (key[31] as number) | 0x80
    assert.strictEqual(reasonOf(parseX25519PublicKey(key)), "not_canonical")
    assert.strictEqual(reasonOf(parseX25519PublicKey(littleEndian(p))), "not_canonical")
    assert.strictEqual(reasonOf(parseX25519PublicKey(littleEndian(p + 9n))), "not_canonical")
  })

  it("refuses nothing else: random bytes below p are points of the curve or of its twist", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (bytes) => {
        bytes[31] = (bytes[31] as number) & 0x3f
        fc.pre(bytes.some((byte) => byte > 1))
        assert.strictEqual(reasonOf(parseX25519PublicKey(bytes)), "accepted")
      })
    )
  })

  it("refuses wrong lengths", () => {
    assert.strictEqual(reasonOf(parseX25519PublicKey(new Uint8Array(0))), "length")
  })
})

describeWithVectors("keys of Wycheproof", () => {
  it("X25519: no key that is of small order or not canonical passes, and every other one does", () => {
    for (const test of wycheproof("x25519")) {
      const isBad = test.flags.includes("LowOrderPublic") || test.flags.includes("NonCanonicalPublic")
      const key = test.hex("public")
      const hasTopBit = (key[31] as number) > 0x7f
      const reason = reasonOf(parseX25519PublicKey(key))
      assert.strictEqual(reason === "accepted", !isBad && !hasTopBit, `case ${test.tcId} ${reason}`)
    }
  })

  it("Ed25519: all are good keys", () => {
    for (const test of wycheproof("ed25519")) {
      assert.strictEqual(reasonOf(parseEd25519PublicKey(test.publicKey)), "accepted", `case ${test.tcId}`)
    }
  })
})
