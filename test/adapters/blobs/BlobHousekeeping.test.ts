import { statSync, utimesSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { FileBlobStore } from "../../../src/adapters/blobs/FileBlobStore.ts"
import { NativeCrypto, NativeCryptoEngine } from "../../../src/adapters/NativeCrypto.ts"
import { utf8 } from "../../../src/crypto/Bytes.ts"
import { digestOf } from "../../../src/crypto/Documents.ts"
import { BlobStore } from "../../../src/ports/BlobStore.ts"
import { orderId } from "../../support/operators.ts"
import { temporaryFolder } from "../support/folders.ts"
import { hasSmallDisk, smallDisk } from "../support/smallDisk.ts"

const payloadOf = (bytes: Uint8Array) => ({ kind: "payload", digest: digestOf(NativeCrypto, bytes) }) as const
const artifacts = { kind: "artifacts", order: orderId(1) } as const

const storeIn = (path: string, minimumFreeBytes = 0) =>
  Effect.map(
    Layer.build(FileBlobStore(path, minimumFreeBytes).pipe(Layer.provide(NativeCryptoEngine))),
    (context) => Effect.provide(BlobStore, context)
  ).pipe(Effect.flatten)

describe("the files of a blob store", () => {
  it.effect("are listed whole or not, and nothing else is", () =>
    Effect.gen(function* () {
      const path = yield* temporaryFolder
      const store = yield* storeIn(path)
      const bytes = utf8("payload")
      yield* store.write(payloadOf(bytes), 0, bytes.length, bytes)
      yield* store.write(artifacts, 0, 100, utf8("begun"))
      writeFileSync(join(path, "payloads", "notes.txt"), "mine")
      writeFileSync(join(path, "artifacts", "x.tar.zst.age"), "no order")
      const [payload] = yield* store.list("payload")
      assert.deepInclude(payload, { name: payloadOf(bytes), sizeBytes: bytes.length })
      assert.deepStrictEqual(
        (yield* store.list("artifacts")).map(({ name, sizeBytes }) => [name, sizeBytes]),
        [[artifacts, 5]]
      )
      assert.isAbove((yield* store.freeBytes) ?? 0, 0)
    })
  )

  it.effect("are kept when somebody asked for them anew since", () =>
    Effect.gen(function* () {
      const path = yield* temporaryFolder
      const store = yield* storeIn(path)
      const bytes = utf8("payload")
      const name = payloadOf(bytes)
      yield* store.write(name, 0, bytes.length, bytes)
      const file = join(path, "payloads", `${name.digest.slice(7)}.age`)
      utimesSync(file, 1_000, 1_000)
      // An upload of what is there already touches it.
      yield* store.write(name, 0, bytes.length, bytes)
      const { mtimeMs } = statSync(file)
      assert.isAbove(mtimeMs, 1_000_000)
      yield* store.remove(name, mtimeMs - 1)
      assert.isTrue((yield* store.state(name)).complete)
      yield* store.remove(name, mtimeMs)
      assert.isFalse((yield* store.state(name)).complete)
    })
  )
})

describe.skipIf(!hasSmallDisk())("a disk without room", () => {
  it.effect("refuses blocks that would leave too little, says so, and takes them once there is room", () =>
    Effect.gen(function* () {
      const path = yield* smallDisk(yield* temporaryFolder, 1_024)
      const store = yield* storeIn(path, 512 * 1_024)
      const large = new Uint8Array(300 * 1_024).fill(7)
      yield* store.write(payloadOf(large), 0, large.length, large)
      const more = new Uint8Array(300 * 1_024).fill(8)
      const refused = yield* Effect.flip(store.write(payloadOf(more), 0, more.length, more))
      assert.deepInclude(refused, { _tag: "BlobError", full: true })
      yield* store.remove(payloadOf(large))
      assert.strictEqual(yield* store.write(payloadOf(more), 0, more.length, more), more.length)
    })
  )

  it.effect(
    "without a reserve the system's own refusal is told as one, and nothing half-written is believed",
    () =>
      Effect.gen(function* () {
        const path = yield* smallDisk(yield* temporaryFolder, 512)
        const store = yield* storeIn(path)
        const bytes = new Uint8Array(1_024 * 1_024).fill(9)
        const refused = yield* Effect.flip(store.write(payloadOf(bytes), 0, bytes.length, bytes))
        assert.deepInclude(refused, { _tag: "BlobError", full: true })
        assert.isFalse((yield* store.state(payloadOf(bytes))).complete)
      })
  )
})
