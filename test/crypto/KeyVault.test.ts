import { assert, describe, it } from "@effect/vitest"
import { Decrypter } from "age-encryption"
import { Redacted, Result } from "effect"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { concatBytes, utf8 } from "../../src/crypto/Bytes.ts"
import { makeSecretKeys } from "../../src/crypto/IdentityKeys.ts"
import {
  isProtectedKeyFile,
  openKeyFile,
  passphraseEntropyBytes,
  protectedKeyFile,
  type StoredKeys,
  unprotectedKeyFile
} from "../../src/crypto/KeyVault.ts"
import { passphraseEncryptor } from "../../src/crypto/PackageCipher.ts"
import { Limits } from "../../src/schemas/Limits.ts"
import { flipBit } from "./vectors.ts"

const secrets = makeSecretKeys(Uint8Array.from({ length: 64 }, (_, index) => index + 1))
const keys: StoredKeys = {
  kind: "operator",
  label: "Ann's keys",
  createdAtMs: 1_700_000_000_000,
  signingSeed: secrets.signingSeed,
  encryptionSecrets: [secrets.encryptionSecret]
}
const passphrase = Redacted.make("correct horse battery stäple")
const entropyBytes = Uint8Array.from({ length: passphraseEntropyBytes }, (_, index) => 255 - index)
const cheap = { passphrase, entropyBytes, logN: 8 }
const plain = (stored: StoredKeys) => ({
  ...stored,
  signingSeed: Redacted.value(stored.signingSeed),
  encryptionSecrets: stored.encryptionSecrets.map((secret) => Redacted.value(secret))
})

const open = (file: Uint8Array, with_: Redacted.Redacted | null = null) =>
  openKeyFile(NativeCrypto, file, with_)
const reasonOf = (file: Uint8Array, with_: Redacted.Redacted | null = null) => {
  const result = open(file, with_)
  return Result.isFailure(result) ? result.failure.reason : "opened"
}

/** What a protected file looks like with any text inside. */
const wrap = (text: string) => {
  const running = passphraseEncryptor(NativeCrypto, { ...cheap })
  return concatBytes(running.header, running.push(utf8(text)), running.end())
}

describe("a protected key file", () => {
  it("opens with its passphrase and no other, and has nothing readable in it", () => {
    const file = protectedKeyFile(NativeCrypto, keys, cheap)
    assert.isTrue(isProtectedKeyFile(file))
    assert.deepStrictEqual(plain(Result.getOrThrow(open(file, passphrase))), plain(keys))
    assert.strictEqual(reasonOf(file, Redacted.make("wrong")), "passphrase_wrong")
    assert.strictEqual(reasonOf(file), "passphrase_needed")
    assert.notInclude(Buffer.from(file).toString("latin1"), "AGE-SECRET")
  })

  it("is opened by age itself", async () => {
    const decrypter = new Decrypter()
    decrypter.addPassphrase(Redacted.value(passphrase))
    const document = JSON.parse(await decrypter.decrypt(protectedKeyFile(NativeCrypto, keys, cheap), "text"))
    assert.strictEqual(document.type, "postern/keys/v1")
    assert.match(document.encryption_secrets[0], /^AGE-SECRET-KEY-1/)
  })

  it("costs 2^17 steps unless told otherwise", () => {
    const file = protectedKeyFile(NativeCrypto, keys, { passphrase, entropyBytes })
    assert.match(Buffer.from(file).toString("latin1"), /^age-encryption\.org\/v1\n-> scrypt \S{22} 17\n/)
    assert.strictEqual(reasonOf(file, passphrase), "opened")
  })

  it("is damaged by every turned bit behind its first line, and by every cut", () => {
    const file = protectedKeyFile(NativeCrypto, keys, { ...cheap, logN: 1 })
    for (let bit = 0; bit < file.length * 8; bit += 3) {
      assert.notStrictEqual(reasonOf(flipBit(file, bit), passphrase), "opened", `bit ${bit}`)
    }
    for (let length = 0; length < file.length; length += 5) {
      assert.notStrictEqual(reasonOf(file.subarray(0, length), passphrase), "opened", `${length} bytes`)
    }
  })

  it("that asks for too much work is refused without doing it", () => {
    const file = Buffer.from(protectedKeyFile(NativeCrypto, keys, cheap)).toString("latin1")
    const greedy = Uint8Array.from(
      Buffer.from(file.replace(" 8\n", ` ${Limits.scryptMaximumLogN + 1}\n`), "latin1")
    )
    assert.strictEqual(reasonOf(greedy, passphrase), "damaged")
  })

  it("is not made with an empty passphrase or too little entropy", () => {
    assert.throws(
      () => protectedKeyFile(NativeCrypto, keys, { ...cheap, passphrase: Redacted.make("") }),
      RangeError
    )
    const short = { ...cheap, entropyBytes: entropyBytes.subarray(1) }
    assert.throws(() => protectedKeyFile(NativeCrypto, keys, short), RangeError)
  })

  it("holding something else is damaged", () => {
    const inner = Buffer.from(unprotectedKeyFile(keys)).toString()
    assert.strictEqual(reasonOf(wrap("{}"), passphrase), "damaged")
    assert.strictEqual(
      reasonOf(wrap(inner), passphrase),
      "damaged",
      "the unprotected form does not belong in there"
    )
    const good = inner.replace("postern/unprotected-keys/v1", "postern/keys/v1")
    assert.strictEqual(reasonOf(wrap(good), passphrase), "opened")
  })
})

describe("an unprotected key file", () => {
  const text = Buffer.from(unprotectedKeyFile(keys)).toString()
  const changed = (from: string | RegExp, to: string) => {
    const next = text.replace(from, to)
    assert.notStrictEqual(next, text)
    return reasonOf(utf8(next))
  }

  it("opens without a passphrase, for keys that only sign too", () => {
    assert.isFalse(isProtectedKeyFile(utf8(text)))
    assert.deepStrictEqual(plain(Result.getOrThrow(open(utf8(text)))), plain(keys))
    assert.deepStrictEqual(plain(Result.getOrThrow(open(utf8(text), passphrase))), plain(keys))
    const recovery: StoredKeys = { ...keys, kind: "recovery", encryptionSecrets: [] }
    assert.deepStrictEqual(plain(Result.getOrThrow(open(unprotectedKeyFile(recovery)))), plain(recovery))
  })

  it("says what it is; a protected file that was decrypted is refused", () => {
    assert.include(text, '"type":"postern/unprotected-keys/v1"')
    assert.strictEqual(changed("postern/unprotected-keys/v1", "postern/keys/v1"), "exposed")
  })

  it("is refused with broken keys, unknown or missing members, or as anything else", () => {
    assert.strictEqual(changed(/"signing_seed":"[^"]*"/, '"signing_seed":"AAAA"'), "damaged")
    assert.strictEqual(changed(/"signing_seed":"../, '"signing_seed":"!!'), "damaged")
    assert.strictEqual(changed(/AGE-SECRET-KEY-1./, "AGE-SECRET-KEY-1B"), "damaged")
    assert.strictEqual(changed('"kind":"operator"', '"kind":"nobody"'), "damaged")
    assert.strictEqual(changed("{", '{"extra":1,'), "damaged")
    assert.strictEqual(changed("{", '{"kind":"device",'), "damaged")
    for (const bytes of ["", "hello", "[]", "null"])
      assert.strictEqual(reasonOf(utf8(bytes)), "damaged", bytes)
  })
})

describe("secrets", () => {
  it("do not show when keys or errors are printed", () => {
    const stored = Result.getOrThrow(open(unprotectedKeyFile(keys)))
    const seed = Redacted.value(stored.signingSeed).join(",")
    assert.notInclude(JSON.stringify(stored), seed)
    assert.include(JSON.stringify(stored), "redacted")
    const failure = open(utf8(Buffer.from(unprotectedKeyFile(keys)).toString().replace("operator", "nobody")))
    assert.isTrue(Result.isFailure(failure))
    if (Result.isFailure(failure)) assert.notInclude(JSON.stringify(failure.failure), "AGE-SECRET-KEY")
  })
})
