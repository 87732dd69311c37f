import { readFileSync, symlinkSync } from "node:fs"
import { join } from "node:path"
import { zstdDecompressSync } from "node:zlib"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { create, Parser } from "tar"
import { buildPackage } from "../../../src/adapters/packages/BuildPackage.ts"
import { readSource } from "../../../src/adapters/packages/SourceFiles.ts"
import { type TarEntry, writeTarHeader } from "../../../src/adapters/packages/TarHeader.ts"
import { tarReader } from "../../../src/adapters/packages/TarReader.ts"
import { utf8 } from "../../../src/crypto/Bytes.ts"
import { decryptBytes } from "../../../src/crypto/PackageCipher.ts"
import { temporaryFolder } from "../support/folders.ts"
import { device, draft, engine, manifestOf, openAs, outside, sealTar, tarOf, writeTree } from "./support.ts"

interface PeerEntry {
  readonly path: string
  readonly type: string
  readonly mode: number | undefined
  readonly bytes: Uint8Array
}

/** What `tar` sees in an archive; in its strict mode a warning is an error. */
const readByPeer = async (archive: Uint8Array): Promise<ReadonlyArray<PeerEntry>> => {
  const entries: Array<PeerEntry> = []
  const reading: Array<Promise<void>> = []
  await new Promise<void>((resolve, reject) => {
    const parser = new Parser({
      strict: true,
      onReadEntry: (found) => {
        const { mode, path, type } = found
        reading.push(found.concat().then((bytes) => void entries.push({ path, type, mode, bytes })))
      }
    })
    parser.on("end", resolve)
    parser.on("error", reject)
    parser.end(Buffer.from(archive))
  })
  await Promise.all(reading)
  return entries
}

/** What we see in an archive of headers alone. */
const readByUs = (archive: Uint8Array): ReadonlyArray<TarEntry> => {
  const reader = tarReader()
  const entries = reader.push(archive).flatMap((event) => (event._tag === "Entry" ? [event.entry] : []))
  assert.isTrue(reader.isComplete())
  return entries.map(({ executable, kind, path, sizeBytes }) => ({ executable, kind, path, sizeBytes }))
}

/** Paths of every length around the edges of the name field (100) and the prefix field (155), cut in several ways. */
const edges: ReadonlyArray<string> = [1, 98, 99, 100, 101, 102, 154, 155, 156, 157, 240].flatMap((length) => [
  "x".repeat(length),
  "ü".repeat(Math.ceil(length / 2)),
  `${"d/".repeat(10)}${"x".repeat(length)}`.slice(0, length - 1).concat("x"),
  `${"d".repeat(length)}/x`,
  `${"d".repeat(length)}/${"x".repeat(length)}`,
  `${"d".repeat(length)}/ü/${"x".repeat(length)}`,
  `😀/${"x".repeat(length)}😀`
])

const files = {
  "run.sh": "#!/bin/sh\n",
  "data/a.csv": "1,2\n",
  [`${"a-folder-with-a-long-name/".repeat(5)}stats.py`]: "long",
  empty: ""
}

/** An archive of a folder as `tar` writes it, the manifest first; sealed as it is. */
const sealByPeer = Effect.fnUntraced(function* (folder: string, paths: ReadonlyArray<string>) {
  const cwd = join(folder, "source")
  const file = join(folder, "peer.tar")
  create({ sync: true, portable: true, strict: true, cwd, file }, ["manifest.json", ...paths])
  return yield* sealTar(folder, readFileSync(file))
})

const contentOf = (named: Readonly<Record<string, string>>): Record<string, Uint8Array> =>
  Object.fromEntries(Object.entries(named).map(([path, content]) => [path, utf8(content)]))

describe("with npm's tar as the peer", () => {
  it.effect("a header says the same to it and to us, whatever the length of its path", () =>
    Effect.gen(function* () {
      const entries = edges.flatMap(
        (path): ReadonlyArray<TarEntry> => [
          { kind: "file", path, sizeBytes: 0, executable: path.length % 2 === 0 },
          { kind: "folder", path, sizeBytes: 0, executable: true }
        ]
      )
      const archive = tarOf(...entries.map(writeTarHeader))
      assert.deepStrictEqual(
        readByUs(archive),
        entries.map(({ executable, kind, path, sizeBytes }) => ({ executable, kind, path, sizeBytes }))
      )
      const seen = yield* Effect.promise(() => readByPeer(archive))
      assert.deepStrictEqual(
        seen.map(({ mode, path, type }) => ({ mode, path, type })),
        entries.map(({ executable, kind, path }) =>
          kind === "folder"
            ? { mode: 0o755, path: `${path}/`, type: "Directory" }
            : { mode: executable ? 0o755 : 0o644, path, type: "File" }
        )
      )
    })
  )

  it.effect("a package is sound to it in strict mode, entry by entry", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const all = { ...files, "data/größe.csv": "3,4\n" }
      writeTree(join(folder, "source"), all)
      const source = yield* readSource(join(folder, "source"))
      const target = join(folder, "p.age")
      const built = yield* buildPackage({ source, draft, recipients: [device.recipient], target }).pipe(
        Effect.provide(outside)
      )
      const compressed = yield* Effect.fromResult(
        decryptBytes(engine, [device.identity], readFileSync(built.path))
      )
      const seen = yield* Effect.promise(() => readByPeer(zstdDecompressSync(compressed)))
      assert.strictEqual(seen[0]?.path, "manifest.json")
      assert.strictEqual(seen.length, built.payload.entries)
      const found = seen.filter(({ path, type }) => type === "File" && path !== "manifest.json")
      assert.deepStrictEqual(
        Object.fromEntries(found.map(({ bytes, path }) => [path, new Uint8Array(bytes)])),
        contentOf(all)
      )
    })
  )

  it.effect("an archive that it wrote opens", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const bytes = contentOf(files)
      writeTree(join(folder, "source"), { ...files, "manifest.json": manifestOf(bytes) })
      const sealed = yield* sealByPeer(folder, ["run.sh", "data", "a-folder-with-a-long-name", "empty"])
      yield* openAs(device)({ ...sealed, folder: join(folder, "out") })
      for (const [path, content] of Object.entries(bytes))
        assert.deepStrictEqual(new Uint8Array(readFileSync(join(folder, "out", path))), content)
    })
  )

  // It writes a size into every pax record, and "./" before a single name that fills the name field.
  it.effect.each([
    { what: "a link", name: "link", reason: /"link" is a symbolic link/ },
    { what: "a name that is not ASCII", name: "größe", reason: /a pax header holds "size"/ },
    { what: "a name of 100 bytes", name: "x".repeat(100), reason: /"\.\/x{100}"/ }
  ])("an archive that it wrote is refused when it holds $what", ({ name, reason }) =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      writeTree(join(folder, "source"), { "manifest.json": manifestOf({ [name]: utf8("") }) })
      if (name === "link") symlinkSync("manifest.json", join(folder, "source", name))
      else writeTree(join(folder, "source"), { [name]: "" })
      const sealed = yield* sealByPeer(folder, [name])
      const error = yield* Effect.flip(openAs(device)({ ...sealed, folder: join(folder, "out") }))
      assert.strictEqual(error._tag, "PackageRefused")
      if (error._tag !== "PackageRefused") return
      assert.strictEqual(error.code, "entry_forbidden")
      assert.match(error.detail, reason)
    })
  )
})
