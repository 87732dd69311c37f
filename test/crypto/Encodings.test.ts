import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import { decodeBase32, encodeBase32 } from "../../src/crypto/Base32.ts"
import {
  decodeBase64,
  decodeBase64Unpadded,
  decodeBase64Url,
  encodeBase64,
  encodeBase64Unpadded,
  encodeBase64Url
} from "../../src/crypto/Base64.ts"
import { decodeBech32, encodeBech32 } from "../../src/crypto/Bech32.ts"
import { concatBytes, equalBytes, fromUtf8, utf8 } from "../../src/crypto/Bytes.ts"
import { decodeHex, encodeHex } from "../../src/crypto/Hex.ts"

const anyBytes = fc.uint8Array({ maxLength: 100 })

const codecs = [
  ["hex", encodeHex, decodeHex, "0123456789abcdefAF g"],
  ["base32", encodeBase32, decodeBase32, "abcdefghijklmnopqrstuvwxyz234567A018="],
  ["base64", encodeBase64, decodeBase64, "ABCXYZabcxyz0189+/==-_ \n"],
  ["unpadded base64", encodeBase64Unpadded, decodeBase64Unpadded, "ABCXYZabcxyz0189+/=-_ \n"],
  ["base64url", encodeBase64Url, decodeBase64Url, "ABCXYZabcxyz0189-_=+/ \n"]
] as const

for (const [name, encode, decode, characters] of codecs) {
  describe(name, () => {
    it("brings back every byte string", () => {
      fc.assert(fc.property(anyBytes, (bytes) => assert.deepStrictEqual(decode(encode(bytes)), bytes)))
    })

    it("reads nothing but its own spelling", () => {
      const text = fc.array(fc.constantFrom(...characters), { maxLength: 12 }).map((each) => each.join(""))
      fc.assert(
        fc.property(text, (candidate) => {
          const bytes = decode(candidate)
          if (bytes !== undefined) assert.strictEqual(encode(bytes), candidate)
        }),
        { numRuns: 2000 }
      )
    })

    it("refuses characters outside ASCII", () => {
      assert.isUndefined(decode("é\u{1f600}ab"))
    })
  })
}

describe("known spellings", () => {
  it("base32 (RFC 4648, 10)", () => {
    const expected = {
      f: "my",
      fo: "mzxq",
      foo: "mzxw6",
      foob: "mzxw6yq",
      fooba: "mzxw6ytb",
      foobar: "mzxw6ytboi"
    }
    for (const [text, encoded] of Object.entries(expected)) {
      assert.strictEqual(encodeBase32(utf8(text)), encoded)
      assert.deepStrictEqual(decodeBase32(encoded), utf8(text))
    }
  })

  it("base32 refuses impossible lengths, upper case, padding and bits left over", () => {
    for (const text of ["a", "abc", "abcdef", "MY", "my======", "mz", "1", "m8"])
      assert.isUndefined(decodeBase32(text))
  })

  it("base64 (RFC 4648, 10), padded, unpadded and for URLs", () => {
    assert.strictEqual(encodeBase64(utf8("fooba")), "Zm9vYmE=")
    assert.strictEqual(encodeBase64(utf8("foob")), "Zm9vYg==")
    assert.strictEqual(encodeBase64Unpadded(utf8("foob")), "Zm9vYg")
    assert.strictEqual(encodeBase64Url(Uint8Array.of(0xfb, 0xff)), "-_8")
  })

  it("base64 refuses missing or surplus padding, spaces and bits left over", () => {
    for (const text of [
      "Zm9vYg",
      "Zm9vYg=",
      "Zm9vYg===",
      "Zm9vYmE==",
      "Zm9v====",
      "Zm9v Yg==",
      "Zm9vYh==",
      "=",
      "-_8="
    ]) {
      assert.isUndefined(decodeBase64(text), text)
    }
    assert.isUndefined(decodeBase64Unpadded("Zm9vYg=="))
    assert.isUndefined(decodeBase64Unpadded("Zm9vYh"))
    assert.isUndefined(decodeBase64Unpadded("Zm9vY"))
  })

  it("hex refuses upper case and odd lengths", () => {
    assert.isUndefined(decodeHex("AB"))
    assert.isUndefined(decodeHex("abc"))
  })
})

describe("bech32", () => {
  const recipient = "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z"

  it("reads and writes a recipient of the age specification", () => {
    const bytes = decodeBech32("age", recipient)
    assert.strictEqual(bytes?.length, 32)
    assert.strictEqual(encodeBech32("age", bytes as Uint8Array), recipient)
    assert.deepStrictEqual(decodeBech32("age", recipient.toUpperCase()), bytes)
  })

  it("brings back every byte string", () => {
    fc.assert(
      fc.property(anyBytes, (bytes) =>
        assert.deepStrictEqual(decodeBech32("x-y", encodeBech32("x-y", bytes)), bytes)
      )
    )
  })

  it("refuses another prefix, mixed case and every single wrong character", () => {
    assert.isUndefined(decodeBech32("ag", recipient))
    assert.isUndefined(decodeBech32("age", `A${recipient.slice(1)}`))
    assert.isUndefined(decodeBech32("age", "age1"))
    assert.isUndefined(decodeBech32("age", recipient.slice(0, -1)))
    for (let index = 4; index < recipient.length; index++) {
      for (const wrong of "qpzry9x8gf2tvdw0s3jn54khce6mua7lb1") {
        if (wrong === recipient[index]) continue
        const text = recipient.slice(0, index) + wrong + recipient.slice(index + 1)
        assert.isUndefined(decodeBech32("age", text), text)
      }
    }
  })
})

describe("bytes", () => {
  it("joins, compares and reads strict UTF-8", () => {
    assert.deepStrictEqual(
      concatBytes(Uint8Array.of(1), Uint8Array.of(), Uint8Array.of(2, 3)),
      Uint8Array.of(1, 2, 3)
    )
    assert.isTrue(equalBytes(Uint8Array.of(1, 2), Uint8Array.of(1, 2)))
    assert.isFalse(equalBytes(Uint8Array.of(1, 2), Uint8Array.of(1, 3)))
    assert.isFalse(equalBytes(Uint8Array.of(1, 2), Uint8Array.of(1)))
    assert.strictEqual(fromUtf8(utf8("\ufeffä\u{1f600}")), "\ufeffä\u{1f600}")
    assert.isUndefined(fromUtf8(Uint8Array.of(0xff)))
    assert.isUndefined(fromUtf8(Uint8Array.of(0xed, 0xa0, 0x80)))
    assert.isUndefined(fromUtf8(Uint8Array.of(0xc0, 0xaf)))
  })
})
