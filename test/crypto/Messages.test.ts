import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import fc from "fast-check"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { encodeBase64 } from "../../src/crypto/Base64.ts"
import { parseStrict } from "../../src/crypto/CanonicalJson.ts"
import type { Engine } from "../../src/crypto/Engine.ts"
import {
  checkSigner,
  checkTimes,
  openSealed,
  readDelivery,
  readMessage,
  readSealed,
  sealMessage,
  toWire
} from "../../src/crypto/Messages.ts"
import { NobleEngine } from "../../src/crypto/NobleEngine.ts"
import { isSignedByItsKey, signJson } from "../../src/crypto/SignedJson.ts"
import type { Name } from "../../src/schemas/Ids.ts"
import { type Delivery, type Message, MessageLimits } from "../../src/schemas/Message.ts"
import { flipBit } from "./vectors.ts"

const engine: Engine = NativeCrypto
const filled = (value: number) => new Uint8Array(32).fill(value)
const signerOf = (seed: Uint8Array) => ({ seed, signingKey: encodeBase64(engine.ed25519.publicKey(seed)) })
const pairOf = (secret: Uint8Array) => ({ secret, public: engine.x25519.publicKey(secret) })

const alice = signerOf(filled(1))
const mallory = signerOf(filled(2))
const bobKeys = pairOf(filled(3))
const bobKey = encodeBase64(bobKeys.public)
const keyFor = (key: string) => (key === bobKey ? bobKeys : undefined)

const name = (text: string) => text as Name
const header = {
  id: "aaaaaaaaaaaaaaaaaaaaaaaaaa" as Message["id"],
  from: name("alice"),
  issued_at_ms: 1_000,
  expires_at_ms: 61_000
}
const unsigned = (body: Message["body"]) =>
  ({
    type: "postern/message/v1",
    ...header,
    level: "private",
    to: [name("bob")],
    subject: "",
    body
  }) as const
const message = (body: Message["body"]) => signJson<Message>(engine, alice, unsigned(body))
const sealed = (body: Message["body"], entropy = filled(9)) =>
  Result.getOrThrow(
    sealMessage(
      engine,
      alice,
      { ...header, level: "private", to: name("bob") },
      message(body),
      bobKey,
      entropy
    )
  )

/** JSON as JavaScript makes it: what JSON.stringify writes and reads back the same. */
const json = fc
  .jsonValue({ maxDepth: 4 })
  .map((value) => JSON.parse(JSON.stringify(value)) as Message["body"])
  // Whole numbers beyond 2^53 - 1 are no interoperable JSON (RFC 7493): the sender is told so.
  .filter((value) => Result.isSuccess(parseStrict(new TextEncoder().encode(JSON.stringify(value)))))

const codeOf = (judged: Result.Result<unknown, { readonly code: string }>): string =>
  Result.isFailure(judged) ? judged.failure.code : "taken"

describe("messages", () => {
  it("carry any JSON value, signed and sealed", () => {
    fc.assert(
      fc.property(json, fc.uint8Array({ minLength: 32, maxLength: 32 }), (body, entropy) => {
        const wire = toWire(sealed(body, entropy))
        const outside = Result.getOrThrow(readSealed(wire))
        assert.isTrue(isSignedByItsKey(engine, outside))
        const inside = Result.getOrThrow(openSealed(engine, keyFor, outside))
        const read = Result.getOrThrow(readMessage(inside))
        assert.isTrue(Result.isSuccess(checkSigner(engine, read, alice.signingKey)))
        assert.deepStrictEqual(read.body, body)
      })
    )
  })

  it("are the same bytes and verdicts on both engines", () => {
    const [native, noble] = [NativeCrypto, NobleEngine].map((each) =>
      Result.getOrThrow(
        sealMessage(
          each,
          alice,
          { ...header, level: "private", to: name("bob") },
          signJson<Message>(each, alice, unsigned({ reading: 21.5 })),
          bobKey,
          filled(9)
        )
      )
    )
    assert.deepStrictEqual(native, noble)
  })

  it("are refused when any bit of them was turned", () => {
    const clear = toWire(message({ reading: 21.5 }))
    const box = toWire(sealed({ reading: 21.5 }))
    fc.assert(
      fc.property(fc.nat({ max: box.length * 8 - 1 }), (bit) => {
        const bentMessage = readMessage(flipBit(clear, bit))
        if (Result.isSuccess(bentMessage))
          assert.strictEqual(
            codeOf(checkSigner(engine, bentMessage.success, alice.signingKey)),
            "bad_signature"
          )
        const bentBox = readSealed(flipBit(box, bit))
        if (Result.isSuccess(bentBox))
          assert.strictEqual(codeOf(checkSigner(engine, bentBox.success, alice.signingKey)), "bad_signature")
      })
    )
  })

  it("do not open when they are signed anew by another, or under another name", () => {
    const { signature: _, signing_key: _key, ...taken } = sealed("secret")
    const stolen = signJson<ReturnType<typeof sealed>>(engine, mallory, taken)
    assert.isTrue(isSignedByItsKey(engine, stolen))
    assert.strictEqual(codeOf(checkSigner(engine, stolen, alice.signingKey)), "bad_signature")
    assert.strictEqual(codeOf(openSealed(engine, keyFor, stolen)), "not_opened")
    for (const bent of [
      { from: name("carol") },
      { to: name("carol") },
      { level: "end_to_end" as const },
      { expires_at_ms: 62_000 }
    ]) {
      const renamed = signJson<ReturnType<typeof sealed>>(engine, alice, { ...taken, ...bent })
      assert.strictEqual(codeOf(openSealed(engine, keyFor, renamed)), "not_opened")
    }
  })

  it("say when they are sealed to a key that is not held", () => {
    assert.strictEqual(codeOf(openSealed(engine, () => undefined, sealed(1))), "not_for_this_key")
  })

  it("are sealed to no key of small order", () => {
    const weak = encodeBase64(new Uint8Array(32))
    const to = { ...header, level: "private" as const, to: name("bob") }
    assert.strictEqual(
      codeOf(sealMessage(engine, alice, to, message(1), weak, filled(9))),
      "unknown_recipient"
    )
  })

  it("are held to their times", () => {
    const times = (issued_at_ms: number, expires_at_ms: number, nowMs: number) =>
      codeOf(checkTimes({ issued_at_ms, expires_at_ms }, nowMs))
    assert.strictEqual(times(1_000, 2_000, 1_999), "taken")
    assert.strictEqual(times(1_000, 2_000, 2_000), "expired")
    assert.strictEqual(times(100_000, 200_000, 100_000 - MessageLimits.futureMs), "taken")
    assert.strictEqual(times(100_000, 200_000, 99_999 - MessageLimits.futureMs), "from_the_future")
    assert.strictEqual(times(0, MessageLimits.lifetimeMs + 1, 1), "lives_too_long")
  })

  it("are read strictly: no kind for another, no member too many, not too large, nothing throws", () => {
    const clear = message(1)
    assert.strictEqual(codeOf(readSealed(toWire(clear))), "malformed")
    assert.strictEqual(codeOf(readMessage(toWire({ ...clear, more: 1 } as never))), "malformed")
    assert.strictEqual(codeOf(readMessage(new Uint8Array(MessageLimits.wireBytes + 1))), "too_large")
    assert.strictEqual(
      codeOf(readMessage(new TextEncoder().encode(JSON.stringify(clear, null, 1)))),
      "malformed"
    )
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        for (const read of [readMessage, readSealed, readDelivery])
          assert.strictEqual(codeOf(read(bytes)), "malformed")
      })
    )
  })

  it("are delivered with the word of who verified them, and keep their sender's own", () => {
    const delivery = signJson<Delivery>(engine, mallory, {
      type: "postern/delivery/v1",
      to: name("bob"),
      content: message("hello"),
      delivered_at_ms: 5
    })
    const read = Result.getOrThrow(readDelivery(toWire(delivery)))
    assert.isTrue(Result.isSuccess(checkSigner(engine, read, mallory.signingKey)))
    assert.isTrue(Result.isSuccess(checkSigner(engine, read.content, alice.signingKey)))
  })
})
