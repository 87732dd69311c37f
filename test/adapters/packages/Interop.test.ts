import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { buildPackage, packFiles } from "../../../src/adapters/packages/BuildPackage.ts"
import { readSource, sourceBytes } from "../../../src/adapters/packages/SourceFiles.ts"
import { utf8 } from "../../../src/crypto/Bytes.ts"
import { digestOf } from "../../../src/crypto/Documents.ts"
import { describeWith } from "../../support/requires.ts"
import { temporaryFolder } from "../support/folders.ts"
import {
  device,
  draft,
  engine,
  manifestOf,
  openAs,
  operator,
  outside,
  run,
  treeOf,
  writeTree
} from "./support.ts"

const long = `${"a-folder-with-a-long-name/".repeat(6)}${"x".repeat(70)}`
const files = { "run.sh": "#!/bin/sh\n", "data/größe.csv": "1,2\n", [long]: "long", empty: "" }
const folders = [
  ...new Set(
    Object.keys(files).flatMap((path) => {
      const parts = path.split("/").slice(0, -1)
      return parts.map((_, index) => `${parts.slice(0, index + 1).join("/")}/`)
    })
  )
]

describeWith(["age", "tar", "zstd"], "with Debian's tools, a package", () => {
  it.effect("opens by `age -d p | tar --zstd -t`, the manifest first", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      writeTree(join(folder, "source"), files)
      const recipients = [device.recipient, operator.recipient]
      const source = yield* readSource(join(folder, "source"))
      const built = yield* buildPackage({ source, draft, recipients, target: join(folder, "p.age") }).pipe(
        Effect.provide(outside)
      )
      writeFileSync(join(folder, "key"), operator.identityText)
      const plain = run("age", ["-d", "-i", join(folder, "key"), built.path])
      const names = run("tar", ["--zstd", "-t", "--quoting-style=literal"], plain)
        .toString()
        .trimEnd()
        .split("\n")
      assert.strictEqual(names[0], "manifest.json")
      assert.deepStrictEqual(new Set(names), new Set(["manifest.json", ...Object.keys(files), ...folders]))
      assert.strictEqual(names.length, built.payload.entries)
      mkdirSync(join(folder, "out"))
      run("tar", ["--zstd", "-x", "-C", join(folder, "out")], plain)
      const found = treeOf(join(folder, "out"))
      for (const [path, content] of Object.entries(files))
        assert.deepStrictEqual(found[path]?.bytes, utf8(content))
    })
  )

  it.effect("can be built by them, in POSIX ustar and pax", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const bytes = Object.fromEntries(Object.entries(files).map(([path, content]) => [path, utf8(content)]))
      writeTree(join(folder, "source"), files)
      writeFileSync(join(folder, "source/manifest.json"), manifestOf(bytes))
      for (const format of ["ustar", "pax"]) {
        const list = ["manifest.json", "run.sh", "data", "a-folder-with-a-long-name", "empty"]
        const tar = run("tar", ["-c", "--zstd", `--format=${format}`, "-C", join(folder, "source"), ...list])
        const sealed = run("age", ["-r", device.recipient], tar)
        const ciphertext = join(folder, `${format}.age`)
        writeFileSync(ciphertext, sealed)
        const payload = {
          digest: digestOf(engine, sealed),
          size_bytes: sealed.length,
          unpacked_bytes: 10_000,
          entries: 12
        }
        yield* openAs(device)({ ciphertext, payload, folder: join(folder, format) })
        for (const [path, content] of Object.entries(bytes)) {
          assert.deepStrictEqual(new Uint8Array(readFileSync(join(folder, format, path))), content)
        }
      }
    })
  )

  it.effect("of artifacts opens by them too", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const target = join(folder, "a.age")
      yield* packFiles({
        files: [sourceBytes("out/stats.json", utf8("{}"))],
        recipients: [operator.recipient],
        target,
        maximumBytes: 100_000
      }).pipe(Effect.provide(outside))
      writeFileSync(join(folder, "key"), operator.identityText)
      const plain = run("age", ["-d", "-i", join(folder, "key"), target])
      assert.strictEqual(run("tar", ["--zstd", "-xO", "out/stats.json"], plain).toString(), "{}")
    })
  )
})
