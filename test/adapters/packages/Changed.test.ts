import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import fc from "fast-check"
import { packFiles } from "../../../src/adapters/packages/BuildPackage.ts"
import { openArtifacts } from "../../../src/adapters/packages/OpenPackage.ts"
import { sourceBytes } from "../../../src/adapters/packages/SourceFiles.ts"
import { tarReader } from "../../../src/adapters/packages/TarReader.ts"
import { concatBytes, utf8 } from "../../../src/crypto/Bytes.ts"
import { digestOf } from "../../../src/crypto/Documents.ts"
import { temporaryFolder } from "../support/folders.ts"
import { property } from "../support/properties.ts"
import {
  device,
  engine,
  entry,
  hello,
  linkEntry,
  manifestOf,
  openAs,
  operator,
  outside,
  sealTar,
  sound,
  tarOf,
  treeOf
} from "./support.ts"

describe("a payload that was changed", () => {
  it.effect("is refused by its length or digest before it is decrypted", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const { ciphertext, payload } = yield* sealTar(folder, tarOf(...sound))
      const good = readFileSync(ciphertext)
      const codeOf = (bytes: Uint8Array) =>
        Effect.gen(function* () {
          writeFileSync(ciphertext, bytes)
          const error = yield* Effect.flip(
            openAs(device)({ ciphertext, payload, folder: join(folder, "out") })
          )
          return error._tag === "PackageRefused" ? error.code : error._tag
        })
      assert.strictEqual(yield* codeOf(good.subarray(0, -1)), "payload_size")
      assert.strictEqual(yield* codeOf(concatBytes(good, Uint8Array.of(0))), "payload_size")
      for (let index = 0; index < good.length; index += 7) {
        const flipped = Uint8Array.from(good)
        flipped[index] = (flipped[index] as number) ^ 0x10
        assert.strictEqual(yield* codeOf(flipped), "payload_digest")
      }
    })
  )

  it.effect("before it was signed is refused too, whichever bit it is", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const { ciphertext, payload } = yield* sealTar(folder, tarOf(...sound))
      const good = readFileSync(ciphertext)
      yield* property(fc.nat(good.length * 8 - 1), 150, (bit) =>
        Effect.gen(function* () {
          const flipped = Uint8Array.from(good)
          flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7))
          writeFileSync(ciphertext, flipped)
          const signed = { ...payload, digest: digestOf(engine, flipped) }
          const error = yield* Effect.flip(
            openAs(device)({ ciphertext, payload: signed, folder: join(folder, "out") })
          )
          if (error._tag !== "PackageRefused") throw error
          assert.include(["payload_decrypt", "payload_not_for_us"], error.code)
          assert.isFalse(existsSync(join(folder, "out")))
        })
      )
    })
  )

  it.effect("inside the archive never opens as something else", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const archive = tarOf(...sound)
      yield* property(fc.nat(archive.length * 8 - 1), 200, (bit) =>
        Effect.gen(function* () {
          const flipped = Uint8Array.from(archive)
          flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7))
          const sealed = yield* sealTar(folder, flipped)
          const target = join(folder, "out")
          const outcome = yield* Effect.result(openAs(device)({ ...sealed, folder: target }))
          if (outcome._tag === "Success") {
            // The blank that ends a header's checksum may be a zero too: the same archive in another spelling.
            assert.deepStrictEqual(treeOf(target)["hello"]?.bytes, hello)
            assert.strictEqual(Object.keys(treeOf(target)).length, 2)
            rmSync(target, { recursive: true })
          } else {
            assert.strictEqual(outcome.failure._tag, "PackageRefused")
            assert.isFalse(existsSync(target))
          }
        })
      )
    })
  )

  it.effect("that is missing altogether is a storage error, not a refusal", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const { payload } = yield* sealTar(folder, tarOf(...sound))
      const error = yield* Effect.flip(
        openAs(device)({ ciphertext: join(folder, "none"), payload, folder: join(folder, "out") })
      )
      assert.strictEqual(error._tag, "StorageError")
    })
  )
})

describe("the tar reader", () => {
  it("gives the same events however its input is cut", () => {
    const archive = tarOf(
      ...sound,
      entry("d", "folder"),
      entry(`${"d".repeat(99)}/${"e".repeat(120)}`, new Uint8Array(2000))
    )
    const read = (cuts: ReadonlyArray<number>): string => {
      const reader = tarReader()
      const seen: Array<string> = []
      let start = 0
      for (const end of [...cuts, archive.length]) {
        for (const event of reader.push(archive.subarray(start, end))) {
          if (event._tag === "Entry") seen.push(JSON.stringify(event.entry), "")
          else if (event._tag === "Data")
            seen.push(`${seen.pop()}${Buffer.from(event.bytes).toString("hex")}`)
        }
        start = end
      }
      assert.isTrue(reader.isComplete())
      return seen.join("\n")
    }
    const whole = read([])
    fc.assert(
      fc.property(fc.array(fc.nat(archive.length), { maxLength: 40 }), (cuts) => {
        assert.strictEqual(read(cuts.sort((left, right) => left - right)), whole)
      })
    )
  })
})

describe("hostile artifacts", () => {
  it.effect("touch nothing outside their folder", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const archives = [
        entry("../x", hello),
        linkEntry("l", "2", "/etc/passwd"),
        entry("/etc/x", hello),
        entry("a\u001bb", hello)
      ]
      for (const hostile of archives) {
        const { ciphertext, payload } = yield* sealTar(folder, tarOf(entry("ok", hello), hostile))
        const summary = { ...payload, digest: payload.digest }
        const options = {
          engine,
          identities: [device.identity],
          ciphertext,
          summary,
          folder: join(folder, "out")
        }
        const error = yield* Effect.flip(openArtifacts(options))
        assert.strictEqual(error._tag === "PackageRefused" ? error.code : error._tag, "entry_forbidden")
        assert.isFalse(existsSync(join(folder, "out")))
        assert.isFalse(existsSync(join(folder, "x")))
      }
    })
  )

  it.effect("larger than allowed are not packed", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const error = yield* packFiles({
        files: [sourceBytes("noise", crypto.getRandomValues(new Uint8Array(20_000)))],
        recipients: [operator.recipient],
        target: join(folder, "a.age"),
        maximumBytes: 10_000
      }).pipe(Effect.provide(outside), Effect.flip)
      assert.match(error.message, /larger than 10000 bytes/)
      assert.isFalse(existsSync(join(folder, "a.age")) || existsSync(join(folder, "a.age.part")))
    })
  )
})

it.effect("a manifest may be written for people: strict JSON in any form", () =>
  Effect.gen(function* () {
    const folder = yield* temporaryFolder
    const pretty = utf8(JSON.stringify(JSON.parse(new TextDecoder().decode(manifestOf({ hello }))), null, 2))
    const sealed = yield* sealTar(folder, tarOf(entry("manifest.json", pretty), sound[1]))
    const { manifest } = yield* openAs(device)({ ...sealed, folder: null })
    assert.deepStrictEqual(Object.keys(manifest.files), ["hello"])
  })
)
