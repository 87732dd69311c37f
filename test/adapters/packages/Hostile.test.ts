import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { constants, zstdCompressSync } from "node:zlib"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { concatBytes, utf8 } from "../../../src/crypto/Bytes.ts"
import type { Manifest } from "../../../src/schemas/Manifest.ts"
import type { RefusalCode } from "../../../src/schemas/Refusals.ts"
import { temporaryFolder } from "../support/folders.ts"
import {
  device,
  entry,
  forgedHeader,
  hello,
  linkEntry,
  manifestOf,
  openAs,
  sealRaw,
  sealTar,
  sound,
  tarOf
} from "./support.ts"

const pax = (record: string): Uint8Array =>
  concatBytes(
    forgedHeader("pax", record.length, [[156, "x"]]),
    Buffer.from(record.padEnd(512, "\0"), "latin1")
  )

/** Opens it as the device and expects the refusal, with the folder gone. */
const expectRefusal = Effect.fnUntraced(function* (
  code: RefusalCode,
  sealing: (folder: string) => ReturnType<typeof sealTar>
) {
  const folder = yield* temporaryFolder
  const { ciphertext, payload } = yield* sealing(folder)
  const target = join(folder, "out")
  const error = yield* Effect.flip(openAs(device)({ ciphertext, payload, folder: target }))
  assert.strictEqual(error._tag, "PackageRefused")
  if (error._tag === "PackageRefused") {
    assert.strictEqual(error.code, code, error.detail)
    assert.notStrictEqual(error.detail, "")
  }
  assert.isFalse(existsSync(target))
})

/** Archives behind a sound beginning; each must be refused before anything of it is believed. */
const hostileEntries: ReadonlyArray<readonly [what: string, code: RefusalCode, archive: Uint8Array]> = [
  ["a symbolic link", "entry_forbidden", tarOf(...sound, linkEntry("l", "2", "/etc/passwd"))],
  ["a hard link", "entry_forbidden", tarOf(...sound, linkEntry("l", "1", "hello"))],
  ["a character device", "entry_forbidden", tarOf(...sound, linkEntry("d", "3", ""))],
  ["a block device", "entry_forbidden", tarOf(...sound, linkEntry("d", "4", ""))],
  ["a named pipe", "entry_forbidden", tarOf(...sound, linkEntry("p", "6", ""))],
  ["a contiguous file", "entry_forbidden", tarOf(...sound, linkEntry("c", "7", ""))],
  ["a sparse file", "entry_forbidden", tarOf(...sound, linkEntry("s", "S", ""))],
  ["a GNU long name", "entry_forbidden", tarOf(...sound, linkEntry("././@LongLink", "L", ""))],
  ["a GNU long link", "entry_forbidden", tarOf(...sound, linkEntry("././@LongLink", "K", ""))],
  ["a global pax header", "entry_forbidden", tarOf(...sound, linkEntry("g", "g", ""))],
  ["an unknown kind", "entry_forbidden", tarOf(...sound, linkEntry("u", "Z", ""))],
  [
    "a file that names a link's target",
    "entry_forbidden",
    tarOf(...sound, linkEntry("f", "0", "/etc/passwd"))
  ],
  ["an absolute path", "entry_forbidden", tarOf(...sound, entry("/etc/cron.d/x", hello))],
  ["a path that climbs", "entry_forbidden", tarOf(...sound, entry("../x", hello))],
  ["a path that climbs in the middle", "entry_forbidden", tarOf(...sound, entry("a/../../x", hello))],
  ["a path with a dot", "entry_forbidden", tarOf(...sound, entry("./x", hello))],
  ["a path with an empty part", "entry_forbidden", tarOf(...sound, entry("a//x", hello))],
  ["an empty path", "entry_forbidden", tarOf(...sound, forgedHeader("", 0, []))],
  ["a folder that climbs", "entry_forbidden", tarOf(...sound, entry("..", "folder"))],
  ["the root as a folder", "entry_forbidden", tarOf(...sound, entry("", "folder"))],
  ["a file named like a folder", "entry_forbidden", tarOf(...sound, entry("x/", hello))],
  [
    "a folder with content",
    "entry_forbidden",
    tarOf(...sound, forgedHeader("x/", 6, [[156, "5"]]), new Uint8Array(512))
  ],
  ["a backslash", "entry_forbidden", tarOf(...sound, entry("a\\b", hello))],
  ["a line feed in a path", "entry_forbidden", tarOf(...sound, entry("a\nb", hello))],
  ["an escape sequence in a path", "entry_forbidden", tarOf(...sound, entry("\u001b[2Jx", hello))],
  ["a right-to-left override in a path", "entry_forbidden", tarOf(...sound, entry("a\u202etxt.exe", hello))],
  ["a path that is not UTF-8", "entry_forbidden", tarOf(...sound, forgedHeader("x", 0, [[0, "\xff\xfe"]]))],
  [
    "a path deeper than allowed",
    "entry_forbidden",
    tarOf(...sound, entry(Array(17).fill("d").join("/"), hello))
  ],
  [
    "a path longer than allowed",
    "entry_forbidden",
    tarOf(...sound, entry(`${"d".repeat(200)}/${"e".repeat(80)}`, hello))
  ],
  ["a name longer than file systems take", "entry_forbidden", tarOf(...sound, entry("ü".repeat(200), hello))],
  ["a path in other case", "entry_forbidden", tarOf(...sound, entry("HELLO", hello))],
  ["a file inside a file", "entry_forbidden", tarOf(...sound, entry("hello/inner", hello))],
  ["a folder in the place of a file", "entry_forbidden", tarOf(...sound, entry("hello", "folder"))],
  ["a folder twice", "entry_forbidden", tarOf(...sound, entry("d", "folder"), entry("d", "folder"))],
  [
    "a pax header with a link's target",
    "entry_forbidden",
    tarOf(...sound, pax("17 linkpath=/etc\n"), entry("x", hello))
  ],
  ["a pax header with a size", "entry_forbidden", tarOf(...sound, pax("12 size=999\n"), entry("x", hello))],
  [
    "a pax header with a climbing path",
    "entry_forbidden",
    tarOf(...sound, pax("15 path=../abc\n"), entry("x", hello))
  ],
  [
    "a pax header with a wrong length",
    "entry_forbidden",
    tarOf(...sound, pax("99 path=abc\n"), entry("x", hello))
  ],
  [
    "a pax header with a NUL in the path",
    "entry_forbidden",
    tarOf(...sound, pax("13 path=a\0bc\n"), entry("x", hello))
  ],
  [
    "two pax headers",
    "entry_forbidden",
    tarOf(...sound, pax("12 path=abc\n"), pax("12 path=abd\n"), entry("x", hello))
  ],
  ["a pax header with nothing behind it", "entry_forbidden", tarOf(...sound, pax("12 path=abc\n"))],
  ["a wrong checksum", "entry_forbidden", tarOf(...sound, entry("x", hello).fill(0x39, 100, 101))],
  ["another format's magic", "entry_forbidden", tarOf(...sound, forgedHeader("x", 0, [[257, "ustar  \0"]]))],
  [
    "a size in base 256",
    "entry_forbidden",
    tarOf(...sound, forgedHeader("x", 0, [[124, "\x80\0\0\0\0\0\0\0\0\0\0\x01"]]))
  ],
  ["a negative size", "entry_forbidden", tarOf(...sound, forgedHeader("x", 0, [[124, "-0000000001\0"]]))],
  ["bytes behind the end", "entry_forbidden", concatBytes(tarOf(...sound), hello)],
  ["an archive behind the end", "entry_forbidden", concatBytes(tarOf(...sound), entry("x", hello))],
  ["an endless tail of zeros", "entry_forbidden", concatBytes(tarOf(...sound), new Uint8Array(1_000_000))],
  ["bytes in the padding", "entry_forbidden", tarOf(sound[0], entry("hello", hello).fill(1, 1000))],
  ["the same file twice", "file_unlisted", tarOf(...sound, entry("hello", hello))],
  ["the manifest twice", "file_unlisted", tarOf(...sound, sound[0])],
  ["a file that is not listed", "file_unlisted", tarOf(...sound, entry("extra", hello))],
  ["a file named like a property", "file_unlisted", tarOf(...sound, entry("constructor", hello))],
  ["a file named __proto__", "file_unlisted", tarOf(...sound, entry("__proto__", hello))],
  ["a listed file missing", "file_missing", tarOf(sound[0])],
  ["a listed file as a folder only", "file_missing", tarOf(sound[0], entry("hello", "folder"))],
  ["a file with other content", "file_digest", tarOf(sound[0], entry("hello", utf8("hallo\n")))],
  ["a file with another size", "file_digest", tarOf(sound[0], entry("hello", utf8("hello")))],
  ["the manifest not first", "manifest_missing", tarOf(sound[1], sound[0])],
  ["a folder first", "manifest_missing", tarOf(entry("d", "folder"), ...sound)],
  ["the manifest as a folder", "manifest_missing", tarOf(entry("manifest.json", "folder"), sound[1])],
  ["no manifest at all", "manifest_missing", tarOf(sound[1])],
  ["an empty archive", "manifest_missing", tarOf()],
  ["half an end", "payload_decompress", concatBytes(...sound, new Uint8Array(512))],
  ["no end", "payload_decompress", concatBytes(...sound)],
  ["a cut header", "payload_decompress", concatBytes(...sound, entry("x", hello).subarray(0, 300))],
  ["nothing", "payload_decompress", new Uint8Array(0)]
]

const manifest = (change: (manifest: Manifest) => unknown): Uint8Array =>
  tarOf(entry("manifest.json", manifestOf({ hello }, change)), sound[1])
const rawManifest = (text: string): Uint8Array => tarOf(entry("manifest.json", utf8(text)), sound[1])
const plainText = new TextDecoder().decode(manifestOf({ hello }))

const hostileManifests: ReadonlyArray<readonly [what: string, archive: Uint8Array]> = [
  ["is empty", rawManifest("")],
  ["is no JSON", rawManifest("hello")],
  ["has a byte order mark", rawManifest(`\ufeff${plainText}`)],
  [
    "has a number that cannot be held",
    rawManifest(plainText.replace(`"grace_ms":5000`, `"grace_ms":9007199254740993`))
  ],
  ["names a member twice", rawManifest(plainText.replace("{", `{"name":"x",`))],
  ["has a member nobody knows", manifest((known) => ({ ...known, run_as: "root" }))],
  ["lacks a member", manifest(({ grants: _, ...rest }) => rest)],
  ["is of another type", manifest((known) => ({ ...known, type: "postern/manifest/v2" }))],
  ["has no command", manifest((known) => ({ ...known, command: [] }))],
  ["has a NUL in an argument", manifest((known) => ({ ...known, command: ["true", "a\0b"] }))],
  [
    "asks for a limit of zero",
    manifest((known) => ({ ...known, limits: { ...known.limits, timeout_ms: 0 } }))
  ],
  [
    "asks for a limit beyond all",
    manifest((known) => ({ ...known, limits: { ...known.limits, memory_bytes: 2 ** 50 } }))
  ],
  [
    "lists a path that climbs",
    manifest((known) => ({ ...known, files: { "../hello": known.files["hello"] } }))
  ],
  [
    "lists itself",
    manifest((known) => ({ ...known, files: { ...known.files, "manifest.json": known.files["hello"] } }))
  ],
  [
    "lists a digest in another spelling",
    manifest((known) => ({ ...known, files: { hello: { ...known.files["hello"], digest: "SHA256:AA" } } }))
  ],
  ["expects an artifact outside", manifest((known) => ({ ...known, artifacts: ["/etc/shadow"] }))],
  ["is too large", tarOf(entry("manifest.json", new Uint8Array(2 * 1024 * 1024 + 1).fill(0x20)), sound[1])]
]

describe("a hostile package", () => {
  it.effect("is told from a sound one: the beginning used here opens", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const sealed = yield* sealTar(folder, tarOf(...sound))
      yield* openAs(device)({ ...sealed, folder: join(folder, "out") })
      assert.deepStrictEqual(new Uint8Array(readFileSync(join(folder, "out/hello"))), hello)
    })
  )

  it.effect.each(hostileEntries.map(([what, code, archive]) => ({ what, code, archive })))(
    "with $what is refused as $code",
    ({ archive, code }) =>
      expectRefusal(code, (folder) => sealTar(folder, archive, { unpacked_bytes: 10_000_000, entries: 1000 }))
  )

  it.effect.each(hostileManifests.map(([what, archive]) => ({ what, archive })))(
    "whose manifest $what is refused",
    ({ archive }) =>
      expectRefusal("manifest_malformed", (folder) =>
        sealTar(folder, archive, { unpacked_bytes: 10_000_000, entries: 1000 })
      )
  )

  it.effect("that unpacks to more bytes or entries than its order says is refused", () =>
    Effect.gen(function* () {
      const bytes = manifestOf({ hello }).length + hello.length
      const archive = tarOf(...sound)
      const exact = { unpacked_bytes: bytes, entries: 2 }
      yield* expectRefusal("payload_unpacked_size", (folder) =>
        sealTar(folder, archive, { ...exact, unpacked_bytes: bytes - 1 })
      )
      yield* expectRefusal("payload_entries", (folder) => sealTar(folder, archive, { ...exact, entries: 1 }))
      // Folders that no entry names count too.
      const nested = tarOf(entry("manifest.json", manifestOf({ "a/b/c": hello })), entry("a/b/c", hello))
      yield* expectRefusal("payload_entries", (folder) =>
        sealTar(folder, nested, { unpacked_bytes: 10_000, entries: 3 })
      )
      const folder = yield* temporaryFolder
      yield* openAs(device)({ ...(yield* sealTar(folder, archive, exact)), folder: join(folder, "out") })
    })
  )

  it.effect("that is a zstd bomb is refused early, in little memory", () =>
    Effect.gen(function* () {
      const many = new Uint8Array(300 * 1024 * 1024)
      const bomb = zstdCompressSync(
        concatBytes(entry("manifest.json", manifestOf({ hello })), entry("hello", many))
      )
      assert.isBelow(bomb.length, 100_000)
      yield* expectRefusal("payload_unpacked_size", (folder) => sealRaw(folder, bomb))
      const zeros = zstdCompressSync(many)
      yield* expectRefusal("entry_forbidden", (folder) => sealRaw(folder, zeros))
    })
  )

  it.effect("in other than one zstd frame of modest window is refused", () =>
    Effect.gen(function* () {
      const archive = tarOf(...sound)
      const good = zstdCompressSync(archive)
      const wide = zstdCompressSync(concatBytes(archive, new Uint8Array(20_000_000)), {
        params: { [constants.ZSTD_c_windowLog]: 25 }
      })
      const bad: ReadonlyArray<Uint8Array> = [
        archive,
        good.subarray(0, good.length - 1),
        good.subarray(0, 3),
        concatBytes(good, Uint8Array.of(0)),
        concatBytes(good, good),
        concatBytes(good, zstdCompressSync(new Uint8Array(0))),
        // A skippable frame before the real one.
        concatBytes(Uint8Array.of(0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4), good),
        wide
      ]
      for (const bytes of bad) yield* expectRefusal("payload_decompress", (folder) => sealRaw(folder, bytes))
    })
  )
})
