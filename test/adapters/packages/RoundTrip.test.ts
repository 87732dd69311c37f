import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { zstdDecompressSync } from "node:zlib"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import fc from "fast-check"
import { buildPackage, packFiles } from "../../../src/adapters/packages/BuildPackage.ts"
import { openArtifacts } from "../../../src/adapters/packages/OpenPackage.ts"
import { isSafePath } from "../../../src/adapters/packages/PackageContent.ts"
import { readSource, sourceBytes } from "../../../src/adapters/packages/SourceFiles.ts"
import { utf8 } from "../../../src/crypto/Bytes.ts"
import { decryptBytes } from "../../../src/crypto/PackageCipher.ts"
import { temporaryFolder } from "../support/folders.ts"
import { property } from "../support/properties.ts"
import { device, draft, engine, openAs, operator, outside, stranger, treeOf, writeTree } from "./support.ts"

const build = (source: Parameters<typeof buildPackage>[0]["source"], target: string) =>
  buildPackage({ source, draft, recipients: [device.recipient, operator.recipient], target }).pipe(
    Effect.provide(outside)
  )

const segment = fc
  .string({ unit: "grapheme", minLength: 1, maxLength: 12 })
  .map((name) => name.replace(/[/\\\p{Cc}\p{Cf}\p{Cs}]/gu, "_"))
  .filter((name) => name !== "." && name !== ".." && name !== "__proto__")
const path = fc.array(segment, { minLength: 1, maxLength: 5 }).map((parts) => parts.join("/"))

/** A tree without two paths that collide. */
const tree = fc
  .array(fc.tuple(path, fc.uint8Array({ maxLength: 3000 }), fc.boolean()), { maxLength: 12 })
  .map((entries) => {
    const taken = new Set(["manifest.json"])
    const key = (text: string) => text.normalize("NFC").toLowerCase().normalize("NFC")
    return entries.filter(([name]) => {
      const parts = name.split("/").map((_, index, all) => all.slice(0, index + 1).join("/"))
      if (!isSafePath(name) || parts.some((each) => taken.has(key(each)))) return false
      for (const each of parts) taken.add(key(each))
      return true
    })
  })

describe("a package", () => {
  it.effect("opens to what was built, for any tree", () =>
    property(tree, 60, (entries) =>
      Effect.gen(function* () {
        const folder = yield* temporaryFolder
        const files = entries.map(([name, bytes, executable]) => sourceBytes(name, bytes, executable))
        const built = yield* build({ files, folders: [] }, join(folder, "p.age"))
        const target = join(folder, "out")
        const opened = yield* openAs(device)({
          ciphertext: built.path,
          payload: built.payload,
          folder: target
        })
        assert.deepStrictEqual(opened.manifest, built.manifest)
        assert.strictEqual(opened.entries, built.payload.entries)
        assert.strictEqual(opened.unpackedBytes, built.payload.unpacked_bytes)
        const found = treeOf(target)
        for (const [name, bytes, executable] of entries) {
          assert.deepStrictEqual(found[name], {
            mode: executable ? 0o700 : 0o600,
            bytes: new Uint8Array(bytes)
          })
        }
        assert.strictEqual(Object.keys(found).length, built.payload.entries)
      })
    )
  )

  it.effect("is the same archive whenever and from whatever it is built", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const archives: Array<Uint8Array> = []
      for (const order of [
        ["b.txt", "a/z", "a-b", "a/a"],
        ["a/a", "a-b", "a/z", "b.txt"]
      ]) {
        const root = join(folder, `source-${archives.length}`)
        writeTree(root, Object.fromEntries(order.map((name) => [name, `content of ${name}`])))
        chmodSync(join(root, "a-b"), archives.length === 0 ? 0o755 : 0o710)
        const built = yield* build(yield* readSource(root), join(folder, "p.age"))
        const compressed = yield* Effect.fromResult(
          decryptBytes(engine, [device.identity], readFileSync(built.path))
        )
        archives.push(zstdDecompressSync(compressed))
      }
      assert.deepStrictEqual(archives[0], archives[1])
    })
  )

  it.effect("keeps empty folders, deep and long paths and many blocks", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const root = join(folder, "source")
      const deep = Array.from({ length: 15 }, (_, level) => `level-${level}-of-it`).join("/")
      const long = `${"é".repeat(110)}/${"x".repeat(120)}`
      const large = Buffer.alloc(3_000_001, "postern ")
      writeTree(root, { [`${deep}/f`]: "deep", [long]: "long", large })
      mkdirSync(join(root, "empty/inner"), { recursive: true })
      const built = yield* build(yield* readSource(root), join(folder, "p.age"))
      const opened = yield* openAs(operator)({
        ciphertext: built.path,
        payload: built.payload,
        folder: join(folder, "out")
      })
      const found = treeOf(join(folder, "out"))
      assert.deepStrictEqual(found["empty/inner"], { mode: 0o700, bytes: null })
      assert.deepStrictEqual(found[long]?.bytes, utf8("long"))
      assert.deepStrictEqual(found[`${deep}/f`]?.bytes, utf8("deep"))
      assert.isTrue(Buffer.from(found["large"]?.bytes ?? []).equals(large))
      assert.strictEqual(opened.entries, Object.keys(found).length)
      assert.strictEqual(statSync(join(folder, "out")).mode & 0o777, 0o700)
      assert.strictEqual(statSync(built.path).mode & 0o777, 0o600)
    })
  )

  it.effect("is proved without being unpacked when no folder is given", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const built = yield* build({ files: [sourceBytes("a", utf8("a"))], folders: [] }, join(folder, "p.age"))
      const opened = yield* openAs(operator)({ ciphertext: built.path, payload: built.payload, folder: null })
      assert.deepStrictEqual(Object.keys(opened.manifest.files), ["a"])
      assert.deepStrictEqual(readdirSync(folder), ["p.age"])
    })
  )

  it.effect("is not opened by a stranger, nor into a folder that is there", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const built = yield* build({ files: [], folders: [] }, join(folder, "p.age"))
      const options = { ciphertext: built.path, payload: built.payload, folder: join(folder, "out") }
      const refusal = yield* Effect.flip(openAs(stranger)(options))
      assert.strictEqual(
        refusal._tag === "PackageRefused" ? refusal.code : refusal._tag,
        "payload_not_for_us"
      )
      writeTree(folder, { "out/mine": "mine" })
      assert.strictEqual((yield* Effect.flip(openAs(device)(options)))._tag, "StorageError")
      assert.deepStrictEqual(Object.keys(treeOf(join(folder, "out"))), ["mine"])
    })
  )

  it.effect("leaves nothing when it is interrupted", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const files = Array.from({ length: 400 }, (_, index) =>
        sourceBytes(`f${index}`, new Uint8Array(20_000).fill(index))
      )
      const building = yield* Effect.forkChild(build({ files, folders: [] }, join(folder, "half.age")))
      yield* Effect.yieldNow
      yield* Fiber.interrupt(building)
      assert.deepStrictEqual(readdirSync(folder), [])
      const built = yield* build({ files, folders: [] }, join(folder, "p.age"))
      const options = { ciphertext: built.path, payload: built.payload, folder: join(folder, "out") }
      const opening = yield* Effect.forkChild(openAs(device)(options))
      while (!readdirSync(folder).includes("out")) yield* Effect.promise(() => new Promise(setImmediate))
      yield* Fiber.interrupt(opening)
      assert.deepStrictEqual(readdirSync(folder), ["p.age"])
    })
  )
})

describe("building a package", () => {
  it.effect("refuses what no package may hold, by name", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const failure = (setUp: (root: string) => void) =>
        Effect.gen(function* () {
          const root = join(folder, String(readdirSync(folder).length))
          mkdirSync(root)
          setUp(root)
          return (yield* Effect.flip(readSource(root))).message
        })
      assert.match(
        yield* failure((root) => symlinkSync("/etc/passwd", join(root, "link"))),
        /link: it is neither a plain file/
      )
      assert.match(
        yield* failure((root) => writeFileSync(join(root, "a\nb"), "")),
        /this name cannot stand in a package/
      )
      assert.match(
        yield* failure((root) => writeFileSync(join(root, "a\\b"), "")),
        /this name cannot stand in a package/
      )
      assert.match(
        yield* failure((root) => writeFileSync(join(root, "__proto__"), "")),
        /this name cannot stand/
      )
      assert.match(
        yield* failure((root) => writeFileSync(join(root, "manifest.json"), "")),
        /give the file another name/
      )
      assert.match((yield* Effect.flip(readSource(join(folder, "none")))).message, /ENOENT/)
    })
  )

  it.effect("leaves out what is excluded", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      writeTree(folder, { "postern.toml": "", "manifest.json": "", run: "" })
      const source = yield* readSource(folder, { exclude: ["postern.toml", "manifest.json"] })
      assert.deepStrictEqual(
        source.files.map((file) => file.path),
        ["run"]
      )
    })
  )

  it.effect("fails, and leaves nothing, when a file changes meanwhile or two names collide", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      writeTree(folder, { "source/f": "1234" })
      const source = yield* readSource(join(folder, "source"))
      const target = join(folder, "p.age")
      writeTree(folder, { "source/f": "12345" })
      assert.match((yield* Effect.flip(build(source, target))).message, /its size changed/)
      const both = { files: [sourceBytes("Read", utf8("")), sourceBytes("read", utf8(""))], folders: [] }
      assert.match((yield* Effect.flip(build(both, target))).message, /collides with Read/)
      const inside = { files: [sourceBytes("a", utf8("")), sourceBytes("a/b", utf8(""))], folders: [] }
      assert.match((yield* Effect.flip(build(inside, target))).message, /collides with a/)
      assert.deepStrictEqual(readdirSync(folder), ["source"])
    })
  )
})

describe("artifacts", () => {
  it.effect("come back whole into a new or empty folder, and never over anything", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const files = [
        sourceBytes("stats/daily.csv", utf8("1,2\n")),
        sourceBytes("manifest.json", utf8("{}"), true)
      ]
      const packed = yield* packFiles({
        files,
        recipients: [operator.recipient],
        target: join(folder, "a.age"),
        maximumBytes: 10_000
      }).pipe(Effect.provide(outside))
      const summary = {
        digest: packed.digest,
        size_bytes: packed.sizeBytes,
        entries: packed.entries,
        unpacked_bytes: packed.unpackedBytes
      }
      const options = { engine, identities: [operator.identity], ciphertext: join(folder, "a.age"), summary }
      for (const target of ["new", "empty"]) {
        if (target === "empty") mkdirSync(join(folder, target))
        const found = yield* openArtifacts({ ...options, folder: join(folder, target) })
        assert.deepStrictEqual(found, { entries: 3, unpackedBytes: 6 })
        assert.deepStrictEqual(treeOf(join(folder, target)), {
          stats: { mode: 0o700, bytes: null },
          "stats/daily.csv": { mode: 0o600, bytes: utf8("1,2\n") },
          "manifest.json": { mode: 0o700, bytes: utf8("{}") }
        })
      }
      writeTree(folder, { "mine/precious": "x" })
      const error = yield* Effect.flip(openArtifacts({ ...options, folder: join(folder, "mine") }))
      assert.strictEqual(error._tag, "TargetNotEmpty")
      const tooMany = { ...options, summary: { ...summary, entries: 2 }, folder: join(folder, "other") }
      assert.strictEqual((yield* Effect.flip(openArtifacts(tooMany)))._tag, "PackageRefused")
      assert.deepStrictEqual(readdirSync(folder).sort(), ["a.age", "empty", "mine", "new"])
      assert.deepStrictEqual(readdirSync(join(folder, "mine")), ["precious"])
    })
  )
})
