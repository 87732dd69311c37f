import { createHash } from "node:crypto"
import { inflateSync } from "node:zlib"
import { assert, describe, it } from "@effect/vitest"
import * as Typage from "age-encryption"
import * as testKit from "cctv-age"
import { Redacted, Result } from "effect"
import fc from "fast-check"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { DecryptError } from "../../src/crypto/AgeHeader.ts"
import {
  type AgeIdentity,
  formatIdentity,
  formatRecipient,
  parseIdentity,
  parseRecipient,
  passphraseIdentity,
  x25519Identity
} from "../../src/crypto/AgeKeys.ts"
import { concatBytes, utf8 } from "../../src/crypto/Bytes.ts"
import { NobleEngine } from "../../src/crypto/NobleEngine.ts"
import {
  cipherChunkBytes,
  cipherEntropyBytes,
  ciphertextBytes,
  decryptBytes,
  decryptor,
  encryptBytes,
  encryptor,
  passphraseEncryptor,
  passphraseEntropyBytes
} from "../../src/crypto/PackageCipher.ts"
import { Limits } from "../../src/schemas/Limits.ts"
import { flipBit } from "./vectors.ts"

/** Bytes that differ from call to call and never from run to run. */
const fixedBytes = (label: string, length: number): Uint8Array => {
  const pieces = Array.from({ length: Math.ceil(length / 8_000) }, (_, index) =>
    NativeCrypto.hkdfSha256(utf8(label), new Uint8Array(0), utf8(`test${index}`), 8_000)
  )
  return concatBytes(...pieces).subarray(0, length)
}

const secretOf = (label: string) => Redacted.make(fixedBytes(label, 32))
const alice = secretOf("alice")
const bob = secretOf("bob")
const recipientOf = (secret: Redacted.Redacted<Uint8Array>) =>
  formatRecipient(NativeCrypto.x25519.publicKey(Redacted.value(secret)))

const encryptFor = (
  secrets: ReadonlyArray<Redacted.Redacted<Uint8Array>>,
  plaintext: Uint8Array,
  label = "entropy"
) =>
  Result.getOrThrow(
    encryptBytes(
      NativeCrypto,
      {
        recipients: secrets.map(recipientOf),
        entropyBytes: fixedBytes(label, cipherEntropyBytes(secrets.length))
      },
      plaintext
    )
  )

const reasonOf = (result: Result.Result<unknown, { readonly reason: string }>): string =>
  Result.isFailure(result) ? result.failure.reason : "success"

/** A plaintext without visible period, cheap to make. */
const pattern = (length: number): Uint8Array =>
  Uint8Array.from({ length }, (_, index) => (index * 31 + (index >> 8)) & 255)

interface KitCase {
  readonly expect: string
  readonly payload: string | undefined
  readonly identities: ReadonlyArray<AgeIdentity>
  readonly file: Uint8Array
  readonly armored: boolean
}

const identityOf = (name: string, value: string): ReadonlyArray<AgeIdentity> => {
  if (name === "passphrase") return [passphraseIdentity(Redacted.make(value))]
  const secret = name === "identity" ? parseIdentity(value) : undefined
  return secret === undefined ? [] : [x25519Identity(secret)]
}

const readKit = (bytes: Uint8Array): KitCase => {
  const end = Buffer.from(bytes).indexOf("\n\n")
  const members = Buffer.from(bytes.subarray(0, end))
    .toString()
    .split("\n")
    .map((line) => [line.slice(0, line.indexOf(": ")), line.slice(line.indexOf(": ") + 2)] as const)
  const member = (name: string) => members.find(([each]) => each === name)?.[1]
  const body = bytes.subarray(end + 2)
  return {
    expect: member("expect") as string,
    payload: member("payload"),
    identities: members.flatMap(([name, value]) => identityOf(name, value)),
    file: member("compressed") === "zlib" ? Uint8Array.from(inflateSync(body)) : body,
    armored: member("armored") === "yes"
  }
}

const kitReasons: Record<string, ReadonlyArray<string>> = {
  success: ["success"],
  "no match": ["no_match"],
  "HMAC failure": ["header_mac"],
  "header failure": ["header_malformed", "work_factor", "payload_truncated"],
  "payload failure": ["payload_truncated", "payload_corrupt"]
}

describe("age's test kit", () => {
  const kit = Object.entries(testKit as unknown as Record<string, Uint8Array>)
    .map(([name, bytes]) => [name, readKit(bytes)] as const)
    // Armor and post-quantum recipients are not part of the package format.
    .filter(([name, test]) => !test.armored && !name.startsWith("hybrid"))

  it("has the cases this test is about", () => {
    assert.isAbove(kit.length, 70)
  })

  for (const engine of [NativeCrypto, NobleEngine]) {
    for (const [name, test] of kit) {
      it(`${name} under the ${engine.name} engine: ${test.expect}`, () => {
        const whole = decryptBytes(engine, test.identities, test.file)
        assert.include(kitReasons[test.expect] ?? [], reasonOf(whole))
        if (Result.isSuccess(whole)) {
          assert.strictEqual(createHash("sha256").update(whole.success).digest("hex"), test.payload)
        }
      })
    }
  }

  it("judges the same when the file comes in small pieces, and gives whole chunks only before a break", () => {
    for (const [name, test] of kit) {
      if (test.file.length > 200_000) continue
      const running = decryptor(NativeCrypto, test.identities)
      const hash = createHash("sha256")
      let outcome = "success"
      const given = 0
      try {
        for (let at = 0; at < test.file.length; at += 7)
          hash.update(running.push(test.file.subarray(at, at + 7)))
        hash.update(running.end())
      } catch (error) {
        assert.instanceOf(error, DecryptError)
        outcome = (error as DecryptError).reason
        assert.throws(() => running.push(new Uint8Array(1)), DecryptError)
        assert.throws(() => running.end(), DecryptError)
      }
      assert.include(kitReasons[test.expect] ?? [], outcome, name)
      // How much the reference gives out before a break is its own affair; ours gives whole proved chunks.
      if (outcome === "success") assert.strictEqual(hash.digest("hex"), test.payload, name)
      else assert.strictEqual(given % cipherChunkBytes, 0, name)
    }
  })
})

describe("the writer", () => {
  const sizes = [
    0,
    1,
    cipherChunkBytes - 1,
    cipherChunkBytes,
    cipherChunkBytes + 1,
    3 * cipherChunkBytes,
    200_000
  ]

  it("makes what both engines and the reader open, for every recipient, and of the promised size", () => {
    for (const size of sizes) {
      const plaintext = pattern(size)
      const file = encryptFor([alice, bob], plaintext)
      assert.strictEqual(file.length, ciphertextBytes(size, 2))
      for (const engine of [NativeCrypto, NobleEngine]) {
        for (const secret of [alice, bob]) {
          const opened = Result.getOrThrow(decryptBytes(engine, [x25519Identity(secret)], file))
          assert.isTrue(Buffer.from(opened).equals(plaintext), `${size} bytes`)
        }
      }
      assert.strictEqual(
        reasonOf(decryptBytes(NativeCrypto, [x25519Identity(secretOf("eve"))], file)),
        "no_match"
      )
    }
  })

  it("gives the same bytes whatever the engine and however the input is cut", () => {
    const cuts = fc.array(fc.integer({ min: 0, max: 90_000 }), { maxLength: 6 })
    fc.assert(
      fc.property(cuts, fc.integer({ min: 0, max: 200_000 }), (lengths, size) => {
        const plaintext = pattern(size)
        const whole = encryptFor([alice], plaintext)
        const running = Result.getOrThrow(
          encryptor(NobleEngine, {
            recipients: [recipientOf(alice)],
            entropyBytes: fixedBytes("entropy", 64)
          })
        )
        const parts = [running.header]
        let at = 0
        for (const length of lengths) {
          parts.push(running.push(plaintext.subarray(at, at + length)))
          at += length
        }
        parts.push(running.push(plaintext.subarray(at)), running.end())
        assert.isTrue(Buffer.from(concatBytes(...parts)).equals(whole))
      }),
      { numRuns: 12 }
    )
  })

  it("does not reuse its input's memory", () => {
    const running = Result.getOrThrow(
      encryptor(NativeCrypto, { recipients: [recipientOf(alice)], entropyBytes: fixedBytes("entropy", 64) })
    )
    const chunk = pattern(1000)
    running.push(chunk)
    chunk.fill(0)
    const file = concatBytes(running.header, running.end())
    assert.deepStrictEqual(
      Result.getOrThrow(decryptBytes(NativeCrypto, [x25519Identity(alice)], file)),
      pattern(1000)
    )
  })

  it("refuses broken recipients, missing ones, a wrong amount of entropy and use after the end", () => {
    const good = recipientOf(alice)
    const entropyBytes = fixedBytes("entropy", 64)
    const tryRecipient = (recipient: string) =>
      reasonOf(encryptor(NativeCrypto, { recipients: [recipient], entropyBytes }))
    assert.strictEqual(tryRecipient(`${good.slice(0, -1)}q`), "encoding")
    assert.strictEqual(tryRecipient(good.toUpperCase()), "encoding")
    assert.strictEqual(tryRecipient(formatRecipient(new Uint8Array(32))), "small_order")
    assert.strictEqual(tryRecipient(formatRecipient(new Uint8Array(31).fill(3))), "length")
    assert.throws(
      () => encryptor(NativeCrypto, { recipients: [], entropyBytes: fixedBytes("e", 32) }),
      RangeError
    )
    assert.throws(
      () => encryptor(NativeCrypto, { recipients: [good], entropyBytes: fixedBytes("e", 63) }),
      RangeError
    )
    const running = Result.getOrThrow(encryptor(NativeCrypto, { recipients: [good], entropyBytes }))
    running.end()
    assert.throws(() => running.end(), RangeError)
    assert.throws(() => running.push(new Uint8Array(1)), RangeError)
  })
})

describe("a file changed on its way", () => {
  it("is refused at every single bit", () => {
    const file = encryptFor([alice], utf8("short"))
    const identities = [x25519Identity(alice)]
    for (let bit = 0; bit < file.length * 8; bit++) {
      const outcome = reasonOf(decryptBytes(NativeCrypto, identities, flipBit(file, bit)))
      assert.notStrictEqual(outcome, "success", `bit ${bit}`)
    }
  })

  it("is refused at every cut, and with anything behind it", () => {
    const file = encryptFor([alice], utf8("short"))
    const identities = [x25519Identity(alice)]
    for (let length = 0; length < file.length; length++) {
      const outcome = reasonOf(decryptBytes(NativeCrypto, identities, file.subarray(0, length)))
      assert.include(["payload_truncated", "payload_corrupt"], outcome, `${length} bytes`)
    }
    for (const surplus of [1, 16, 70_000]) {
      const longer = concatBytes(file, new Uint8Array(surplus))
      assert.strictEqual(reasonOf(decryptBytes(NativeCrypto, identities, longer)), "payload_corrupt")
    }
  })

  it("is refused with chunks swapped, dropped or doubled", () => {
    const file = encryptFor([alice], pattern(3 * cipherChunkBytes + 5))
    const start = ciphertextBytes(0, 1) - 16
    const sealed = cipherChunkBytes + 16
    const chunk = (index: number) => file.subarray(start + index * sealed, start + (index + 1) * sealed)
    const head = file.subarray(0, start)
    for (const order of [[1, 0, 2, 3], [0, 2, 3], [0, 1, 1, 2, 3], [0, 1, 2], [3]]) {
      const changed = concatBytes(head, ...order.map(chunk))
      assert.strictEqual(
        reasonOf(decryptBytes(NativeCrypto, [x25519Identity(alice)], changed)),
        "payload_corrupt"
      )
    }
  })
})

describe("as many recipients as a rollout has", () => {
  it("open one file, the first and the last alike; it does not show who they are", () => {
    const secrets = Array.from({ length: Limits.rolloutDevices + Limits.resultRecipients }, (_, index) =>
      secretOf(`device ${index}`)
    )
    const file = encryptFor(secrets, pattern(100))
    for (const secret of [secrets[0], secrets.at(-1)]) {
      const opened = decryptBytes(NativeCrypto, [x25519Identity(secret ?? alice)], file)
      assert.deepStrictEqual(Result.getOrThrow(opened), pattern(100))
    }
    assert.strictEqual(reasonOf(decryptBytes(NativeCrypto, [x25519Identity(alice)], file)), "no_match")
    const text = Buffer.from(file).toString("latin1")
    for (const secret of secrets.slice(0, 20)) assert.notInclude(text, recipientOf(secret).slice(4, 50))
  })
})

describe("a header out of bounds", () => {
  const read = (text: string) => reasonOf(decryptBytes(NativeCrypto, [x25519Identity(alice)], utf8(text)))

  it("is refused before it is whole", () => {
    const { ageHeaderBytes } = Limits
    assert.strictEqual(
      read(`age-encryption.org/v1\n${"-> x y\n\n".repeat(ageHeaderBytes / 8)}`),
      "header_too_large"
    )
    assert.strictEqual(read(`age-encryption.org/v1\n${"a".repeat(ageHeaderBytes)}`), "header_too_large")
  })

  it("is refused with too many stanzas, with none, and at the first wrong byte of its version", () => {
    const mac = `--- ${"A".repeat(43)}\n${"n".repeat(16)}`
    const tooMany = "-> x y\n\n".repeat(Limits.ageStanzas + 1)
    assert.strictEqual(read(`age-encryption.org/v1\n${tooMany}${mac}`), "header_too_large")
    assert.strictEqual(read(`age-encryption.org/v1\n${mac}`), "header_malformed")
    assert.throws(() => decryptor(NativeCrypto, []).push(utf8("age-e!")), DecryptError)
  })
})

describe("peers", () => {
  it("the age-encryption package opens ours and we open its", async () => {
    for (const size of [0, 5, cipherChunkBytes, 150_000]) {
      const plaintext = pattern(size)
      const decrypter = new Typage.Decrypter()
      decrypter.addIdentity(Redacted.value(formatIdentity(bob)))
      const opened = await decrypter.decrypt(encryptFor([alice, bob], plaintext))
      assert.isTrue(Buffer.from(opened).equals(plaintext))

      const encrypter = new Typage.Encrypter()
      encrypter.addRecipient(recipientOf(alice))
      encrypter.addRecipient(recipientOf(bob))
      const file = await encrypter.encrypt(plaintext)
      assert.isTrue(
        Buffer.from(Result.getOrThrow(decryptBytes(NativeCrypto, [x25519Identity(bob)], file))).equals(
          plaintext
        )
      )
    }
  })

  it("the age-encryption package opens our passphrase files and we open its", async () => {
    const passphrase = Redacted.make("correct horse battery staple")
    const running = passphraseEncryptor(NativeCrypto, {
      passphrase,
      logN: 10,
      entropyBytes: fixedBytes("entropy", passphraseEntropyBytes)
    })
    const file = concatBytes(running.header, running.push(utf8("key")), running.end())
    const decrypter = new Typage.Decrypter()
    decrypter.addPassphrase(Redacted.value(passphrase))
    assert.strictEqual(await decrypter.decrypt(file, "text"), "key")

    const encrypter = new Typage.Encrypter()
    encrypter.setPassphrase(Redacted.value(passphrase))
    encrypter.setScryptWorkFactor(10)
    const theirs = await encrypter.encrypt("key")
    assert.deepStrictEqual(
      Result.getOrThrow(decryptBytes(NativeCrypto, [passphraseIdentity(passphrase)], theirs)),
      utf8("key")
    )
    const wrong = decryptBytes(NativeCrypto, [passphraseIdentity(Redacted.make("wrong"))], theirs)
    assert.strictEqual(reasonOf(wrong), "no_match")
  })

  it("keys have the same texts as theirs", async () => {
    const text = await Typage.generateX25519Identity()
    const secret = parseIdentity(text)
    assert.isDefined(secret)
    assert.strictEqual(Redacted.value(formatIdentity(secret as Redacted.Redacted<Uint8Array>)), text)
    assert.strictEqual(
      recipientOf(secret as Redacted.Redacted<Uint8Array>),
      await Typage.identityToRecipient(text)
    )
    assert.isUndefined(parseIdentity(text.toLowerCase()))
    assert.isUndefined(parseIdentity(`${text.slice(0, -1)}!`))
    assert.strictEqual(reasonOf(parseRecipient("age1")), "encoding")
  })
})
