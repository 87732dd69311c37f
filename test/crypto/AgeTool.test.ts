import { spawn, spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, assert, beforeEach, it } from "@effect/vitest"
import { Redacted, Result } from "effect"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { formatIdentity, formatRecipient, x25519Identity } from "../../src/crypto/AgeKeys.ts"
import { concatBytes } from "../../src/crypto/Bytes.ts"
import { openKeyFile, passphraseEntropyBytes, protectedKeyFile } from "../../src/crypto/KeyVault.ts"
import { cipherEntropyBytes, decryptBytes, encryptBytes } from "../../src/crypto/PackageCipher.ts"
import { Limits } from "../../src/schemas/Limits.ts"
import { describeWith } from "../support/requires.ts"

const secret = Redacted.make(NativeCrypto.sha256(Uint8Array.of(1)))
const recipient = formatRecipient(NativeCrypto.x25519.publicKey(Redacted.value(secret)))
const sizes = [0, 1, 65_536, 65_537, 300_000]
const pattern = (length: number) =>
  Uint8Array.from({ length }, (_, index) => (index * 7 + (index >> 8)) & 255)

let folder = ""
const path = (name: string) => join(folder, name)

const setUp = (): void => {
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "postern-age-"))
  })
  afterEach(() => rmSync(folder, { recursive: true, force: true }))
}

const age = (input: Uint8Array, ...args: ReadonlyArray<string>): Buffer => {
  const run = spawnSync("age", args, { input, timeout: 20_000, maxBuffer: 2 ** 24 })
  assert.strictEqual(run.status, 0, run.stderr.toString())
  return run.stdout
}

/** Runs a command on a terminal of its own and types `answer` when it asks for a passphrase. */
const onTerminal = (command: string, answer: string): Promise<number | null> =>
  new Promise((resolve, reject) => {
    const child = spawn("script", ["-qec", command, "/dev/null"], { timeout: 20_000 })
    let asked = false
    child.stdout.on("data", (chunk: Buffer) => {
      if (asked || !chunk.toString().includes("assphrase")) return
      asked = true
      child.stdin.write(`${answer}\r`)
    })
    child.on("error", reject)
    child.on("exit", resolve)
  })

describeWith(["age"], "the age tool", () => {
  setUp()

  it("opens what we encrypt to a whole group", () => {
    writeFileSync(path("identity"), Redacted.value(formatIdentity(secret)), { mode: 0o600 })
    const others = Array.from({ length: Limits.rolloutDevices }, (_, index) =>
      formatRecipient(NativeCrypto.x25519.publicKey(NativeCrypto.sha256(pattern(index + 2))))
    )
    const recipients = [...others, recipient]
    const length = cipherEntropyBytes(recipients.length)
    const entropyBytes = concatBytes(
      ...Array.from({ length: Math.ceil(length / 32) }, (_, index) =>
        NativeCrypto.sha256(pattern(index + 500))
      )
    ).subarray(0, length)
    const file = Result.getOrThrow(encryptBytes(NativeCrypto, { recipients, entropyBytes }, pattern(1_000)))
    assert.isTrue(age(file, "-d", "-i", path("identity")).equals(pattern(1_000)))
  })

  it("opens what we encrypt", () => {
    writeFileSync(path("identity"), Redacted.value(formatIdentity(secret)), { mode: 0o600 })
    for (const size of sizes) {
      const entropyBytes = NativeCrypto.hkdfSha256(
        pattern(size),
        pattern(0),
        pattern(0),
        cipherEntropyBytes(1)
      )
      const options = { recipients: [recipient], entropyBytes }
      const file = Result.getOrThrow(encryptBytes(NativeCrypto, options, pattern(size)))
      assert.isTrue(age(file, "-d", "-i", path("identity")).equals(pattern(size)), `${size} bytes`)
    }
  })

  it("writes what we open", () => {
    for (const size of sizes) {
      const file = Uint8Array.from(age(pattern(size), "-r", recipient))
      const opened = Result.getOrThrow(decryptBytes(NativeCrypto, [x25519Identity(secret)], file))
      assert.isTrue(Buffer.from(opened).equals(pattern(size)), `${size} bytes`)
    }
  })
})

describeWith(["age", "script"], "the age tool on a terminal", () => {
  setUp()

  it("opens a protected key file with its passphrase", async () => {
    const keys = {
      kind: "operator",
      label: "Ann",
      createdAtMs: 1_700_000_000_000,
      signingSeed: secret,
      encryptionSecrets: [secret]
    } as const
    const passphrase = Redacted.make("correct horse")
    const file = protectedKeyFile(NativeCrypto, keys, {
      passphrase,
      entropyBytes: pattern(passphraseEntropyBytes),
      logN: 10
    })
    writeFileSync(path("keys"), file)
    const status = await onTerminal(`age -d -o '${path("opened")}' '${path("keys")}'`, "correct horse")
    assert.strictEqual(status, 0)
    const document = JSON.parse(readFileSync(path("opened"), "utf8"))
    assert.strictEqual(document.type, "postern/keys/v1")
    assert.deepStrictEqual(document.encryption_secrets, [Redacted.value(formatIdentity(secret))])
    const bare = openKeyFile(NativeCrypto, concatBytes(readFileSync(path("opened"))), null)
    assert.strictEqual(Result.isFailure(bare) ? bare.failure.reason : "opened", "exposed")
  })
})
