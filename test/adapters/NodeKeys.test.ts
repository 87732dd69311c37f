import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { FileIdentity } from "../../src/adapters/FileIdentity.ts"
import { NativeCryptoEngine } from "../../src/adapters/NativeCrypto.ts"
import { loadNodeKeys, NodeKeys, type NodeKind } from "../../src/adapters/NodeKeys.ts"
import { SystemEntropy } from "../../src/adapters/SystemEntropy.ts"
import { utf8 } from "../../src/crypto/Bytes.ts"
import { cipherEntropyBytes, decryptBytes, encryptBytes } from "../../src/crypto/PackageCipher.ts"
import { CryptoEngine } from "../../src/ports/CryptoEngine.ts"
import { Entropy } from "../../src/ports/Entropy.ts"
import { Identity } from "../../src/ports/Identity.ts"
import { requires } from "../support/requires.ts"
import { temporaryFolder } from "./support/folders.ts"

const outside = Layer.merge(NativeCryptoEngine, SystemEntropy)

const load = (stateFolder: string, kind: NodeKind = "device") =>
  loadNodeKeys({ stateFolder, kind }).pipe(Effect.provide(outside))

const withKeys = Effect.gen(function* () {
  const folder = join(yield* temporaryFolder, "state")
  const ring = yield* load(folder)
  return { folder, file: join(folder, "keys/node.json"), ring }
})

describe("keys of a node", () => {
  it.effect("are made on the first start, private, and the same ever after", () =>
    Effect.gen(function* () {
      const { file, folder, ring } = yield* withKeys
      assert.match(ring.id, /^dev_[a-z2-7]{52}$/)
      assert.strictEqual(statSync(folder).mode & 0o777, 0o700)
      assert.strictEqual(statSync(join(folder, "keys")).mode & 0o777, 0o700)
      assert.strictEqual(statSync(file).mode & 0o777, 0o600)
      assert.deepStrictEqual(readdirSync(join(folder, "keys")), ["node.json"])
      const again = yield* load(folder)
      assert.strictEqual(again.id, ring.id)
      assert.deepStrictEqual(Redacted.value(again.signingSeed), Redacted.value(ring.signingSeed))
      assert.strictEqual(again.recipient, ring.recipient)
    })
  )

  it.effect("open what is encrypted to them, and sign in the node's name", () =>
    Effect.gen(function* () {
      const stateFolder = join(yield* temporaryFolder, "state")
      yield* Effect.gen(function* () {
        const { ageIdentities } = yield* NodeKeys
        const identity = yield* Identity
        const engine = yield* CryptoEngine
        const entropyBytes = yield* (yield* Entropy).bytes(cipherEntropyBytes(1))
        const sealed = encryptBytes(engine, { recipients: [identity.recipient], entropyBytes }, utf8("hello"))
        const file = yield* Effect.fromResult(sealed)
        assert.deepStrictEqual(
          yield* Effect.fromResult(decryptBytes(engine, ageIdentities, file)),
          utf8("hello")
        )
        const { envelope } = yield* identity.sign("receipt", { type: "postern/receipt/v1" })
        assert.strictEqual(envelope.signatures[0]?.keyid, identity.id)
      }).pipe(Effect.provide(FileIdentity({ stateFolder, kind: "server" }).pipe(Layer.provideMerge(outside))))
    })
  )

  it.effect("are refused when any bit of the file is flipped, and never replaced", () =>
    Effect.gen(function* () {
      const { file, folder, ring } = yield* withKeys
      const sound = readFileSync(file)
      for (let index = 0; index < sound.length; index += 3) {
        const flipped = Buffer.from(sound)
        flipped[index] = (flipped[index] as number) ^ (1 << (index % 7))
        writeFileSync(file, flipped)
        const outcome = yield* Effect.result(load(folder))
        // A flipped blank may become another kind of blank; then the keys must be the same.
        if (outcome._tag === "Success") assert.strictEqual(outcome.success.id, ring.id)
        else assert.strictEqual(outcome.failure._tag, "KeyFileError")
        assert.deepStrictEqual(readFileSync(file), flipped)
      }
      for (const length of [0, 1, sound.length >> 1, sound.length - 4]) {
        writeFileSync(file, sound.subarray(0, length))
        const error = yield* Effect.flip(load(folder))
        assert.match(error.message, /damaged/)
        assert.notInclude(error.message, "AGE-SECRET-KEY")
      }
    })
  )

  it.effect("are refused when others can read them", () =>
    Effect.gen(function* () {
      const { file, folder } = yield* withKeys
      chmodSync(file, 0o640)
      assert.match(
        (yield* Effect.flip(load(folder))).message,
        /open to other users \(mode 0640\): run chmod 0600/
      )
      chmodSync(file, 0o600)
      chmodSync(join(folder, "keys"), 0o750)
      assert.match((yield* Effect.flip(load(folder))).message, /keys is open to other users \(mode 0750\)/)
      chmodSync(join(folder, "keys"), 0o700)
      chmodSync(folder, 0o755)
      assert.match((yield* Effect.flip(load(folder))).message, /state is open to other users/)
      assert.isTrue(existsSync(file))
    })
  )

  it.effect("are refused when they are another kind of node's, a link, or a folder", () =>
    Effect.gen(function* () {
      const { folder } = yield* withKeys
      assert.match((yield* Effect.flip(load(folder, "server"))).message, /keys of a device, not of a server/)
      const other = join(yield* temporaryFolder, "state")
      mkdirSync(join(other, "keys"), { recursive: true, mode: 0o700 })
      symlinkSync(join(folder, "keys/node.json"), join(other, "keys/node.json"))
      assert.match((yield* Effect.flip(load(other))).message, /is a link/)
      const third = join(yield* temporaryFolder, "state")
      mkdirSync(join(third, "keys/node.json"), { recursive: true, mode: 0o700 })
      assert.match((yield* Effect.flip(load(third))).message, /not a plain file/)
      const linked = join(yield* temporaryFolder, "linked")
      symlinkSync(folder, linked)
      assert.match((yield* Effect.flip(load(linked))).message, /is not a folder/)
    })
  )

  it.effect("survive a start that was cut off while it wrote them", () =>
    Effect.gen(function* () {
      const folder = join(yield* temporaryFolder, "state")
      mkdirSync(join(folder, "keys"), { recursive: true, mode: 0o700 })
      writeFileSync(join(folder, "keys/node.json.new"), "half of a")
      const ring = yield* load(folder)
      assert.deepStrictEqual(readdirSync(join(folder, "keys")), ["node.json"])
      assert.strictEqual((yield* load(folder)).id, ring.id)
    })
  )

  it.effect.skipIf(!requires("root"))("are refused when they belong to another user", () =>
    Effect.gen(function* () {
      const { file, folder } = yield* withKeys
      chownSync(file, 12_345, 12_345)
      assert.match((yield* Effect.flip(load(folder))).message, /belongs to uid 12345/)
    })
  )
})
