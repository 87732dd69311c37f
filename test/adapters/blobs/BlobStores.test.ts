import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { type Context, Effect, Layer, type Scope, Stream } from "effect"
import { FileBlobStore } from "../../../src/adapters/blobs/FileBlobStore.ts"
import { NativeCrypto, NativeCryptoEngine } from "../../../src/adapters/NativeCrypto.ts"
import { concatBytes, utf8 } from "../../../src/crypto/Bytes.ts"
import { digestOf } from "../../../src/crypto/Documents.ts"
import { BlobStore } from "../../../src/ports/BlobStore.ts"
import { Limits } from "../../../src/schemas/Limits.ts"
import { type BlobMemory, MemoryBlobStore } from "../../support/MemoryBlobStore.ts"
import { orderId } from "../../support/operators.ts"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "postern-blobs-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** A store over something that outlives it: opening it again is a restart. */
const kinds = {
  files: Effect.map(folder, (path) => ({
    path,
    open: Layer.build(FileBlobStore(path).pipe(Layer.provide(NativeCryptoEngine)))
  })),
  memory: Effect.sync(() => {
    const memory: BlobMemory = new Map()
    return { path: "", open: Layer.build(MemoryBlobStore(memory).pipe(Layer.provide(NativeCryptoEngine))) }
  })
}

const use = <A, E>(
  opened: {
    readonly open: Effect.Effect<Context.Context<BlobStore>, unknown, Scope.Scope>
  },
  run: (store: BlobStore["Service"]) => Effect.Effect<A, E>
) => Effect.flatMap(opened.open, (context) => Effect.provide(Effect.flatMap(BlobStore, run), context))

const payloadOf = (bytes: Uint8Array) => ({ kind: "payload", digest: digestOf(NativeCrypto, bytes) }) as const
const artifacts = { kind: "artifacts", order: orderId(1) } as const
const content = utf8("0123456789abcdef")

const readAll = (
  store: BlobStore["Service"],
  name: Parameters<BlobStore["Service"]["read"]>[0],
  offset = 0
) =>
  Effect.gen(function* () {
    const { bytes, sizeBytes } = yield* store.read(name, offset)
    return { sizeBytes, bytes: concatBytes(...(yield* Stream.runCollect(bytes))) }
  })

for (const [kind, make] of Object.entries(kinds)) {
  describe(`a blob store in ${kind}`, () => {
    it.live("grows by blocks, answers repeated ones alike, and is read from any offset", () =>
      Effect.gen(function* () {
        const opened = yield* make
        yield* use(opened, (store) =>
          Effect.gen(function* () {
            const name = payloadOf(content)
            const write = (offset: number, end: number) =>
              store.write(name, offset, content.length, content.subarray(offset, end))
            assert.strictEqual(yield* write(0, 5), 5)
            assert.strictEqual(yield* write(0, 5), 5)
            assert.strictEqual(yield* write(3, 9), 9)
            assert.deepStrictEqual(yield* store.state(name), { receivedBytes: 9, complete: false })
            assert.strictEqual((yield* Effect.flip(store.read(name, 0)))._tag, "BlobMissing")
            assert.strictEqual(yield* write(9, 16), 16)
            assert.strictEqual(yield* write(9, 16), 16)
            assert.deepStrictEqual(yield* store.state(name), { receivedBytes: 16, complete: true })
            assert.deepStrictEqual(yield* readAll(store, name), { sizeBytes: 16, bytes: content })
            assert.deepStrictEqual((yield* readAll(store, name, 12)).bytes, content.subarray(12))
            yield* store.remove(name)
            assert.deepStrictEqual(yield* store.state(name), { receivedBytes: 0, complete: false })
          })
        )
      })
    )

    it.live("refuses gaps, other bytes, wrong totals and wrong digests, each time saying what is there", () =>
      Effect.gen(function* () {
        const opened = yield* make
        yield* use(opened, (store) =>
          Effect.gen(function* () {
            const receivedAfter = (
              offset: number,
              total: number,
              block: Uint8Array,
              name: Parameters<typeof store.write>[0] = artifacts
            ) =>
              Effect.map(Effect.flip(store.write(name, offset, total, block)), (error) =>
                error._tag === "BlobConflict" ? error.receivedBytes : error
              )
            yield* store.write(artifacts, 0, 16, content.subarray(0, 4))
            assert.strictEqual(yield* receivedAfter(6, 16, content.subarray(6)), 4)
            assert.strictEqual(yield* receivedAfter(4, 6, content.subarray(4)), 4)
            assert.strictEqual(yield* receivedAfter(0, 3, content.subarray(0, 3)), 4)
            assert.strictEqual(yield* receivedAfter(0, 2 * Limits.artifactBytes + 1, content), 4)
            assert.strictEqual(
              yield* receivedAfter(0, 2 * Limits.artifactBytes, new Uint8Array(Limits.blockBytes + 1)),
              4
            )
            assert.strictEqual(yield* receivedAfter(2, 16, utf8("XX")), 0)
            assert.deepStrictEqual(yield* store.state(artifacts), { receivedBytes: 0, complete: false })
            yield* store.write(artifacts, 0, 16, content)
            assert.strictEqual(yield* receivedAfter(0, 17, content), 16)
            const wrong = payloadOf(utf8("something else"))
            assert.strictEqual(yield* receivedAfter(0, 16, content, wrong), 0)
            assert.deepStrictEqual(yield* store.state(wrong), { receivedBytes: 0, complete: false })
          })
        )
      })
    )

    it.live("two writers of one blob do not mix their bytes", () =>
      Effect.gen(function* () {
        const opened = yield* make
        yield* use(opened, (store) =>
          Effect.gen(function* () {
            const name = payloadOf(content)
            const upload = Effect.forEach([0, 4, 8, 12], (offset) =>
              store.write(name, offset, 16, content.subarray(offset, offset + 4))
            )
            yield* Effect.all([upload, upload, upload], { concurrency: "unbounded" })
            assert.deepStrictEqual((yield* readAll(store, name)).bytes, content)
          })
        )
      })
    )
  })
}

describe("blob files after a crash", () => {
  it.live("keep what is complete, and do not believe the last block of what is not", () =>
    Effect.gen(function* () {
      const opened = yield* kinds.files
      const large = new Uint8Array(Limits.blockBytes + 1_000).map((_, index) => index % 249)
      const name = payloadOf(large)
      yield* use(opened, (store) =>
        Effect.gen(function* () {
          yield* store.write(payloadOf(content), 0, 16, content)
          yield* store.write(name, 0, large.length, large.subarray(0, Limits.blockBytes))
        })
      )
      const [part] = readdirSync(join(opened.path, "payloads")).filter((file) => file.endsWith(".part"))
      const path = join(opened.path, "payloads", part as string)
      // The next block was being written when the power went: the file has grown, its bytes have not come.
      appendFileSync(path, new Uint8Array(500))
      yield* use(opened, (store) =>
        Effect.gen(function* () {
          assert.deepStrictEqual((yield* readAll(store, payloadOf(content))).bytes, content)
          assert.deepStrictEqual(yield* store.state(name), { receivedBytes: 500, complete: false })
          const error = yield* Effect.flip(
            store.write(name, Limits.blockBytes, large.length, large.subarray(Limits.blockBytes))
          )
          assert.deepInclude(error, { _tag: "BlobConflict", receivedBytes: 500 })
          yield* store.write(name, 500, large.length, large.subarray(500, 500 + Limits.blockBytes))
          yield* store.write(
            name,
            500 + Limits.blockBytes,
            large.length,
            large.subarray(500 + Limits.blockBytes)
          )
          assert.deepStrictEqual((yield* readAll(store, name)).bytes, large)
        })
      )
      assert.deepStrictEqual(
        readdirSync(join(opened.path, "payloads")).filter((file) => file.endsWith(".part")),
        []
      )
    })
  )

  it.live("files are the owner's alone; a folder that is gone is an error of the store", () =>
    Effect.gen(function* () {
      const opened = yield* kinds.files
      yield* use(opened, (store) => store.write(artifacts, 0, 16, content))
      const path = join(opened.path, "artifacts", `${orderId(1)}.tar.zst.age`)
      assert.strictEqual(statSync(path).mode & 0o777, 0o600)
      assert.strictEqual(statSync(join(opened.path, "artifacts")).mode & 0o777, 0o700)
      assert.deepStrictEqual(new Uint8Array(readFileSync(path)), content)
      rmSync(join(opened.path, "payloads"), { recursive: true })
      writeFileSync(join(opened.path, "payloads"), "in the way")
      const error = yield* use(opened, (store) =>
        Effect.flip(store.write(payloadOf(content), 0, 16, content))
      ).pipe(Effect.catch((failed) => Effect.succeed(failed)))
      assert.propertyVal(error, "_tag", "BlobError")
    })
  )
})
