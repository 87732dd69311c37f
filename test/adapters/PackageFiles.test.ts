import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Stream } from "effect"
import { NodeKeys, nodeKeyRingFrom } from "../../src/adapters/NodeKeys.ts"
import { PackageFiles } from "../../src/adapters/PackageFiles.ts"
import { buildPackage } from "../../src/adapters/packages/BuildPackage.ts"
import { sourceBytes } from "../../src/adapters/packages/SourceFiles.ts"
import { utf8 } from "../../src/crypto/Bytes.ts"
import { decryptBytes } from "../../src/crypto/PackageCipher.ts"
import { PackageStore } from "../../src/ports/PackageStore.ts"
import { type DeviceId, OrderId } from "../../src/schemas/Ids.ts"
import type { WorkOrder } from "../../src/schemas/WorkOrder.ts"
import { draft, engine, operator, outside, treeOf } from "./packages/support.ts"
import { temporaryFolder } from "./support/folders.ts"
import { hasSmallDisk, smallDisk } from "./support/smallDisk.ts"

const ring = nodeKeyRingFrom(engine, "device", crypto.getRandomValues(new Uint8Array(64)))
const orderId = (last: number) => OrderId.make(`01890000-0000-7000-8000-${String(last).padStart(12, "0")}`)

const storeIn = (stateFolder: string) =>
  Effect.map(
    Layer.build(
      PackageFiles({ stateFolder }).pipe(
        Layer.provideMerge(Layer.merge(Layer.succeed(NodeKeys, ring), outside))
      )
    ),
    (context) => context
  ).pipe(Effect.flatMap((context) => Effect.provideContext(PackageStore, context)))

/** A built payload of random content, an order for it and a store. */
const prepared = Effect.gen(function* () {
  const folder = yield* temporaryFolder
  const content = crypto.getRandomValues(new Uint8Array(200_000).subarray(0, 60_000))
  const built = yield* buildPackage({
    source: {
      files: [sourceBytes("data/noise", content), sourceBytes("run", utf8("#!/bin/sh\n"), true)],
      folders: []
    },
    draft,
    recipients: [ring.recipient],
    target: join(folder, "p.age")
  }).pipe(Effect.provide(outside))
  const order: WorkOrder = {
    type: "postern/order/v1",
    id: orderId(1),
    device: ring.id as DeviceId,
    lane: "job",
    counter: 1,
    previous: null,
    root_version: 1,
    issued_at_ms: 1,
    expires_at_ms: 2,
    deadline_at_ms: 2,
    payload: built.payload,
    results_to: [operator.recipient]
  }
  const state = join(folder, "state")
  return { folder, state, content, order, ciphertext: readFileSync(built.path), store: yield* storeIn(state) }
})

const pieces = (bytes: Uint8Array, size: number): ReadonlyArray<Uint8Array> =>
  Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
    bytes.slice(index * size, (index + 1) * size)
  )

const noProgress = () => Effect.void

describe("package files", () => {
  it.effect("download, stage, and leave nothing when removed", () =>
    Effect.gen(function* () {
      const { ciphertext, content, order, state, store } = yield* prepared
      const seen: Array<number> = []
      assert.strictEqual(yield* store.downloaded(order.id), 0)
      yield* store.download(order, 0, Stream.fromIterable(pieces(ciphertext, 7000)), (done) =>
        Effect.sync(() => void seen.push(done))
      )
      assert.strictEqual(seen.at(-1), ciphertext.length)
      assert.deepStrictEqual(
        seen,
        [...seen].sort((left, right) => left - right)
      )
      const staged = yield* store.stage(order)
      assert.deepStrictEqual(staged.manifest.command, ["true"])
      const found = treeOf(staged.folder)
      assert.deepStrictEqual(found["data/noise"]?.bytes, content)
      assert.strictEqual(found["run"]?.mode, 0o700)
      assert.strictEqual(statSync(state).mode & 0o777, 0o700)
      // Staging again, as after a crash, begins afresh.
      writeFileSync(join(staged.folder, "left-over"), "x")
      yield* store.stage(order)
      assert.isFalse(existsSync(join(staged.folder, "left-over")))
      yield* store.remove(order.id, false)
      assert.deepStrictEqual(readdirSync(join(state, "packages")), [])
    })
  )

  it.effect("go on with a download after it broke off, whatever was lost", () =>
    Effect.gen(function* () {
      const { ciphertext, order, state, store } = yield* prepared
      const half = pieces(ciphertext, 9000).slice(0, 3)
      const broken = Stream.concat(Stream.fromIterable(half), Stream.fail("the line was cut" as const))
      assert.strictEqual(yield* Effect.flip(store.download(order, 0, broken, noProgress)), "the line was cut")
      assert.strictEqual(yield* store.downloaded(order.id), 27_000)
      // Bytes that are there already may come again.
      const rest = Stream.fromIterable(pieces(ciphertext.subarray(20_000), 5000))
      const fresh = yield* storeIn(state)
      yield* fresh.download(order, 20_000, rest, noProgress)
      yield* fresh.stage(order)
    })
  )

  it.effect("keep what came when a download is interrupted", () =>
    Effect.gen(function* () {
      const { ciphertext, order, store } = yield* prepared
      const endless = Stream.concat(Stream.make(ciphertext.subarray(0, 1234)), Stream.never)
      const arrived = yield* Effect.sync(() => Promise.withResolvers<void>())
      const downloading = yield* Effect.forkChild(
        store.download(order, 0, endless, () => Effect.sync(() => arrived.resolve()))
      )
      yield* Effect.promise(() => arrived.promise)
      yield* Fiber.interrupt(downloading)
      assert.strictEqual(yield* store.downloaded(order.id), 1234)
    })
  )

  it.effect("refuse endless data as soon as it is too much", () =>
    Effect.gen(function* () {
      const { order, state, store } = yield* prepared
      let sent = 0
      const endless = Stream.forever(
        Stream.fromEffect(
          Effect.sync(() => {
            sent += 10_000
            return new Uint8Array(10_000)
          })
        )
      )
      const error = yield* Effect.flip(store.download(order, 0, endless, noProgress))
      assert.strictEqual(error._tag === "PackageRefused" ? error.code : error._tag, "payload_size")
      assert.isBelow(sent, order.payload.size_bytes + 30_000)
      assert.deepStrictEqual(readdirSync(join(state, "packages")), [])
    })
  )

  it.effect("drop a refused payload whole, and take the next good one", () =>
    Effect.gen(function* () {
      const { ciphertext, order, state, store } = yield* prepared
      const bad = Uint8Array.from(ciphertext)
      bad[bad.length >> 1] = (bad[bad.length >> 1] as number) ^ 1
      yield* store.download(order, 0, Stream.make(bad), noProgress)
      const error = yield* Effect.flip(store.stage(order))
      assert.strictEqual(error._tag === "PackageRefused" ? error.code : error._tag, "payload_digest")
      assert.deepStrictEqual(readdirSync(join(state, "packages")), [])
      yield* store.download(order, 0, Stream.make(new Uint8Array(ciphertext)), noProgress)
      yield* store.stage(order)
    })
  )

  it.effect("pack artifacts for their recipients, read them back in blocks and drop them", () =>
    Effect.gen(function* () {
      const { folder, order, state, store } = yield* prepared
      mkdirSync(join(folder, "out"))
      writeFileSync(join(folder, "out/stats.json"), `{"mean":1}`)
      const artifact = {
        path: "stats.json",
        size_bytes: 10,
        executable: false,
        host_path: join(folder, "out/stats.json")
      }
      const limits = { bytes: 10, entries: 1 }
      assert.isNull(yield* store.packArtifacts(order.id, [], order.results_to, limits))
      const packed = yield* store.packArtifacts(order.id, [artifact], order.results_to, limits)
      if (packed === null) throw new Error("nothing was packed")
      assert.strictEqual(packed.summary.entries, 1)
      const blocks: Array<Uint8Array> = []
      for (let offset = 0; ; ) {
        const block = yield* store.readBlock(packed.path, offset, 100)
        if (block.length === 0) break
        blocks.push(block)
        offset += block.length
      }
      const whole = Buffer.concat(blocks)
      assert.strictEqual(whole.length, packed.summary.size_bytes)
      yield* Effect.fromResult(decryptBytes(engine, [operator.identity], whole))
      const codeOf = (change: object, bounds = limits) =>
        store.packArtifacts(order.id, [{ ...artifact, ...change }], order.results_to, bounds).pipe(
          Effect.flip,
          Effect.map((error) => (error._tag === "PackageRefused" ? error.code : error._tag))
        )
      assert.strictEqual(yield* codeOf({}, { bytes: 9, entries: 1 }), "payload_unpacked_size")
      assert.strictEqual(yield* codeOf({}, { bytes: 10, entries: 0 }), "payload_entries")
      assert.strictEqual(yield* codeOf({ size_bytes: 9 }), "entry_forbidden")
      assert.strictEqual(yield* codeOf({ path: "../x" }), "entry_forbidden")
      assert.strictEqual(yield* codeOf({ host_path: join(folder, "none") }), "StorageError")
      yield* store.remove(order.id, false)
      assert.lengthOf(readdirSync(join(state, "spool")), 1)
      yield* store.remove(order.id, true)
      yield* store.removeSpooled(packed.path)
      assert.deepStrictEqual(readdirSync(join(state, "spool")), [])
      assert.strictEqual(
        (yield* Effect.flip(store.removeSpooled(join(folder, "p.age"))))._tag,
        "StorageError"
      )
    })
  )

  it.effect("seal a chunk of output as an age file of its own", () =>
    Effect.gen(function* () {
      const { order, store } = yield* prepared
      const first = yield* store.sealChunk(utf8("hello"), order.results_to)
      const second = yield* store.sealChunk(utf8("hello"), order.results_to)
      assert.notStrictEqual(first.digest, second.digest)
      assert.deepStrictEqual(
        yield* Effect.fromResult(decryptBytes(engine, [operator.identity], first.bytes)),
        utf8("hello")
      )
    })
  )

  it.effect("give scratch room for as long as a scope lasts, and sweep what nobody keeps", () =>
    Effect.gen(function* () {
      const { ciphertext, order, state, store } = yield* prepared
      const scratch = yield* Effect.scoped(
        Effect.tap(store.scratch(order.id), (folder) =>
          Effect.sync(() => writeFileSync(join(folder, "x"), "x"))
        )
      )
      assert.isFalse(existsSync(scratch))
      yield* store.download(order, 0, Stream.make(new Uint8Array(ciphertext)), noProgress)
      yield* store.download(
        { ...order, id: orderId(2) },
        0,
        Stream.make(new Uint8Array(ciphertext)),
        noProgress
      )
      writeFileSync(join(state, "spool/old.age.part"), "x")
      writeFileSync(join(state, "spool/kept.age"), "x")
      yield* store.sweep([order.id], [join(state, "spool/kept.age")])
      assert.deepStrictEqual(readdirSync(join(state, "packages")), [order.id])
      assert.deepStrictEqual(readdirSync(join(state, "spool")), ["kept.age"])
    })
  )

  it.effect.skipIf(!hasSmallDisk())("say so when the disk is full, and leave nothing half unpacked", () =>
    Effect.gen(function* () {
      const { ciphertext, folder, order } = yield* prepared
      const mount = yield* smallDisk(folder, 100)
      const store = yield* storeIn(join(mount, "state"))
      yield* store.download(order, 0, Stream.make(new Uint8Array(ciphertext)), noProgress)
      const error = yield* Effect.flip(store.stage(order))
      assert.strictEqual(error._tag, "StorageError")
      if (error._tag === "StorageError") assert.match(error.reason, /the disk is full/)
      assert.deepStrictEqual(readdirSync(join(mount, "state/packages", order.id)), ["payload.age"])
      yield* store.remove(order.id, false)
      const tooLarge = yield* Effect.flip(
        store
          .download(order, 0, Stream.fromIterable(pieces(new Uint8Array(200_000), 1000)), noProgress)
          .pipe(
            Effect.mapError((failure) => (failure._tag === "PackageRefused" ? failure.code : failure._tag))
          )
      )
      assert.strictEqual(tooLarge, "payload_size")
    })
  )
})
