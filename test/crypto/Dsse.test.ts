import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import fc from "fast-check"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { encodeBase32 } from "../../src/crypto/Base32.ts"
import { decodeBase64, encodeBase64 } from "../../src/crypto/Base64.ts"
import { utf8 } from "../../src/crypto/Bytes.ts"
import {
  type EnvelopeVerifier,
  hasThreshold,
  parseEnvelope,
  preAuthentication,
  signEnvelope,
  verifyEnvelope
} from "../../src/crypto/Dsse.ts"
import { NobleEngine } from "../../src/crypto/NobleEngine.ts"
import type { DsseEnvelope } from "../../src/schemas/Dsse.ts"
import { Limits } from "../../src/schemas/Limits.ts"
import { flipBit } from "./vectors.ts"

const payloadType = "application/vnd.postern.order+json"
const keyPair = (label: string) => {
  const seed = NativeCrypto.sha256(utf8(label))
  const publicKey = NativeCrypto.ed25519.publicKey(seed)
  return { keyId: `key_${encodeBase32(NativeCrypto.sha256(publicKey))}`, seed, publicKey }
}
const [ann, ben, eve] = [keyPair("ann"), keyPair("ben"), keyPair("eve")] as const
const signed = (...keys: ReadonlyArray<typeof ann>) =>
  signEnvelope(NativeCrypto, payloadType, utf8('{"a":1}'), keys)
const signersOf = (envelope: DsseEnvelope, verifiers: ReadonlyArray<EnvelopeVerifier>) => [
  ...verifyEnvelope(NativeCrypto, envelope, verifiers)
]

describe("DSSE", () => {
  it("encodes type and payload as the protocol's document says", () => {
    assert.deepStrictEqual(
      preAuthentication("http://example.com/HelloWorld", utf8("hello world")),
      utf8("DSSEv1 29 http://example.com/HelloWorld 11 hello world")
    )
    assert.deepStrictEqual(preAuthentication("ä", new Uint8Array(0)), utf8("DSSEv1 2 ä 0 "))
  })

  it("brings back who signed, under both engines, for every payload", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (payload) => {
        const envelope = signEnvelope(NobleEngine, payloadType, payload, [ann, ben])
        assert.deepStrictEqual(decodeBase64(envelope.payload), payload)
        for (const engine of [NobleEngine, NativeCrypto]) {
          assert.deepStrictEqual(
            [...verifyEnvelope(engine, envelope, [ann, ben, eve])],
            [ann.keyId, ben.keyId]
          )
        }
      }),
      { numRuns: 10 }
    )
  })

  it("counts a key once, however often it signed and under however many ids it is listed", () => {
    const envelope = signed(ann, ann)
    assert.deepStrictEqual(signersOf(envelope, [ann, ann]), [ann.keyId])
    const alias = { ...ann, keyId: ben.keyId }
    assert.deepStrictEqual(signersOf(signed(ann, alias), [ann, alias]), [ann.keyId])
    assert.isTrue(hasThreshold(NativeCrypto, envelope, [ann, ben], 1))
    assert.isFalse(hasThreshold(NativeCrypto, envelope, [ann, ben], 2))
    assert.isTrue(hasThreshold(NativeCrypto, signed(ann, ben), [ann, ben], 2))
    assert.isFalse(hasThreshold(NativeCrypto, signed(ann), [ann], 0), "no threshold at all is never met")
  })

  it("passes over strangers, and a bad signature beside a good one", () => {
    assert.deepStrictEqual(signersOf(signed(eve), [ann, ben]), [])
    assert.deepStrictEqual(signersOf(signed(eve, ann), [ann]), [ann.keyId])
    const forged = signed({ ...eve, keyId: ann.keyId })
    assert.deepStrictEqual(signersOf(forged, [ann, eve]), [])
    const both = { ...forged, signatures: [...forged.signatures, ...signed(ann).signatures] }
    assert.deepStrictEqual(signersOf(both, [ann]), [ann.keyId])
  })

  it("has no signer once any bit of type, payload or signature is turned", () => {
    const envelope = signed(ann)
    const payload = decodeBase64(envelope.payload) as Uint8Array
    const signature = decodeBase64(envelope.signatures[0]?.sig as string) as Uint8Array
    for (let bit = 0; bit < payload.length * 8; bit++) {
      assert.isEmpty(signersOf({ ...envelope, payload: encodeBase64(flipBit(payload, bit)) }, [ann]))
    }
    for (let bit = 0; bit < signature.length * 8; bit++) {
      const signatures = [{ keyid: ann.keyId as never, sig: encodeBase64(flipBit(signature, bit)) }]
      assert.isEmpty(signersOf({ ...envelope, signatures }, [ann]))
    }
    assert.isEmpty(signersOf({ ...envelope, payloadType: "application/vnd.postern.cancel+json" }, [ann]))
  })

  it("takes no envelope with too many signatures, and no sloppy base64", () => {
    const many = signed(...Array.from({ length: Limits.envelopeSignatures }, () => ann))
    assert.deepStrictEqual(signersOf(many, [ann]), [ann.keyId])
    const more = { ...many, signatures: [...many.signatures, ...many.signatures.slice(0, 1)] }
    assert.isEmpty(signersOf(more, [ann]))
    const envelope = signed(ann)
    assert.isEmpty(signersOf({ ...envelope, payload: envelope.payload.replace(/=+$/, "") }, [ann]))
    const sloppy = envelope.signatures.map(({ keyid, sig }) => ({ keyid, sig: sig.replace(/=+$/, "") }))
    assert.isEmpty(signersOf({ ...envelope, signatures: sloppy }, [ann]))
  })
})

describe("reading an envelope", () => {
  const read = (value: unknown) =>
    parseEnvelope(utf8(typeof value === "string" ? value : JSON.stringify(value)))

  it("takes what was written", () => {
    const envelope = signed(ann, ben)
    assert.deepStrictEqual(Result.getOrThrow(read(envelope)), envelope)
  })

  it("refuses unknown, missing, doubled and misshapen members", () => {
    const envelope = signed(ann)
    const [signature] = envelope.signatures
    for (const broken of [
      { ...envelope, extra: 1 },
      { payload: envelope.payload, signatures: envelope.signatures },
      { ...envelope, payloadType: "text/plain" },
      { ...envelope, payload: "a" },
      { ...envelope, signatures: [{ ...signature, extra: 1 }] },
      { ...envelope, signatures: [{ ...signature, keyid: "ann" }] },
      { ...envelope, signatures: [{ ...signature, sig: "AAAA" }] },
      { ...envelope, signatures: Array.from({ length: Limits.envelopeSignatures + 1 }, () => signature) },
      [],
      JSON.stringify(envelope).replace("{", '{"payload":"",'),
      `${JSON.stringify(envelope)}x`
    ]) {
      const result = read(broken)
      assert.isTrue(Result.isFailure(result), JSON.stringify(broken))
      if (Result.isFailure(result)) assert.strictEqual(result.failure._tag, "InvalidEnvelope")
    }
  })
})
