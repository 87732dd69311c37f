/**
 * The port `PackageStore` on a device's disk, below its state folder:
 *
 *     packages/<order>/payload.age   the ciphertext, growing while it is downloaded
 *     packages/<order>/payload.age.parts   which parts of it are there, while they come out of order
 *     packages/<order>/package/      unpacked and proved, fresh for each run
 *     packages/<order>/scratch/      room for the run
 *     spool/<order>.age              artifacts on their way out
 *
 * @module
 */
import { mkdir, open, readdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { Effect, Layer, RcMap, Stream } from "effect"
import { digestOf } from "../crypto/Documents.ts"
import type { InvalidKey } from "../crypto/Keys.ts"
import { cipherEntropyBytes, encryptBytes } from "../crypto/PackageCipher.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { Entropy } from "../ports/Entropy.ts"
import { type PackageRefused, PackageStore, StorageError } from "../ports/PackageStore.ts"
import type { OrderId } from "../schemas/Ids.ts"
import type { JailArtifact } from "../schemas/JailProfile.ts"
import { Limits } from "../schemas/Limits.ts"
import { missingSpans, spannedBytes } from "../schemas/Spans.ts"
import type { WorkOrder } from "../schemas/WorkOrder.ts"
import { requirePrivateFolder } from "./files/AtomicFile.ts"
import { storage, storageError } from "./files/StorageFailure.ts"
import { NodeKeys } from "./NodeKeys.ts"
import { packFiles } from "./packages/BuildPackage.ts"
import { type GrowingFile, heldSpans, openGrowing } from "./packages/GrowingFile.ts"
import { openPackage, removeTree } from "./packages/OpenPackage.ts"
import { refused } from "./packages/PackageContent.ts"
import type { BuildError, SourceFile } from "./packages/SourceFiles.ts"

type Store = PackageStore["Service"]

const places = (stateFolder: string) => {
  const packages = join(stateFolder, "packages")
  const spool = join(stateFolder, "spool")
  return {
    packages,
    spool,
    orderFolder: (order: OrderId) => join(packages, order),
    ciphertext: (order: OrderId) => join(packages, order, "payload.age"),
    staged: (order: OrderId) => join(packages, order, "package"),
    scratch: (order: OrderId) => join(packages, order, "scratch"),
    spooled: (order: OrderId) => join(spool, `${order}.age`)
  }
}
type Places = ReturnType<typeof places>

const downloads = (
  at: Places,
  open: RcMap.RcMap<OrderId, GrowingFile, StorageError>
): Pick<Store, "downloaded" | "missing" | "download"> => ({
  downloaded: (order) => Effect.map(heldSpans(at.ciphertext(order)), spannedBytes),

  missing: (order) =>
    Effect.map(heldSpans(at.ciphertext(order.id)), (held) => missingSpans(held, order.payload.size_bytes)),

  download: (order, offset, bytes, onProgress) =>
    Effect.scoped(
      Effect.gen(function* () {
        const file = yield* RcMap.get(open, order.id)
        const total = order.payload.size_bytes
        let reached = offset
        const take = (block: Uint8Array) =>
          Effect.gen(function* () {
            if (reached + block.length > total) {
              file.abandon()
              yield* removeTree(at.orderFolder(order.id))
              return yield* refused("payload_size", `more than ${total} bytes came`)
            }
            yield* file.write(reached, block)
            reached += block.length
            yield* onProgress(reached)
          })
        // Also after an error or an interruption: what came is kept for the next attempt.
        yield* Effect.onExit(Stream.runForEach(bytes, take), () => file.flush)
      })
    )
})

const sourceOf = (artifact: JailArtifact): SourceFile => ({
  path: artifact.path,
  sizeBytes: artifact.size_bytes,
  executable: artifact.executable,
  content: { hostPath: artifact.host_path }
})

/** What a job left cannot be packed: it is the job's doing, unless the disk failed. */
const explainPacking = (error: BuildError | StorageError | InvalidKey): PackageRefused | StorageError => {
  switch (error._tag) {
    case "StorageError":
      return error
    case "BuildError":
      return refused("entry_forbidden", error.message)
    case "InvalidKey":
      return refused("malformed", `a recipient of the results: ${error.message}`)
  }
}

const packing = (
  at: Places,
  engine: CryptoEngine["Service"],
  entropy: Entropy["Service"]
): Pick<Store, "packArtifacts" | "sealChunk"> => ({
  packArtifacts: Effect.fnUntraced(function* (order, artifacts, recipients, limits) {
    if (artifacts.length === 0) return null
    const bytes = artifacts.reduce((sum, artifact) => sum + artifact.size_bytes, 0)
    if (bytes > limits.bytes)
      return yield* refused("payload_unpacked_size", `the artifacts have more than ${limits.bytes} bytes`)
    if (artifacts.length > limits.entries)
      return yield* refused("payload_entries", `there are more than ${limits.entries} artifacts`)
    const path = at.spooled(order)
    const files = artifacts.map(sourceOf)
    const maximumBytes = 2 * Limits.artifactBytes
    const packed = yield* packFiles({ files, recipients, target: path, maximumBytes }).pipe(
      Effect.provideService(CryptoEngine, engine),
      Effect.provideService(Entropy, entropy),
      Effect.mapError(explainPacking)
    )
    return {
      path,
      summary: {
        digest: packed.digest,
        size_bytes: packed.sizeBytes,
        entries: packed.entries,
        unpacked_bytes: packed.unpackedBytes
      }
    }
  }),

  sealChunk: Effect.fnUntraced(function* (plaintext, recipients) {
    const entropyBytes = yield* entropy.bytes(cipherEntropyBytes(recipients.length))
    const sealed = encryptBytes(engine, { recipients, entropyBytes }, plaintext)
    const bytes = yield* Effect.fromResult(sealed).pipe(
      Effect.mapError(
        (error) => new StorageError({ operation: "encrypt", path: "output", reason: error.message })
      )
    )
    return { bytes, digest: digestOf(engine, bytes) }
  })
})

const spooling = (at: Places): Pick<Store, "readBlock" | "removeSpooled"> => ({
  readBlock: (path, offset, maximumBytes) =>
    storage("read", path, async () => {
      const handle = await open(path, "r")
      try {
        const block = new Uint8Array(maximumBytes)
        let filled = 0
        while (filled < maximumBytes) {
          const { bytesRead } = await handle.read(block, filled, maximumBytes - filled, offset + filled)
          if (bytesRead === 0) break
          filled += bytesRead
        }
        return block.subarray(0, filled)
      } finally {
        await handle.close()
      }
    }),
  removeSpooled: (path) =>
    path.startsWith(`${at.spool}/`)
      ? storage("remove", path, () => rm(path, { force: true }))
      : Effect.fail(new StorageError({ operation: "remove", path, reason: "it does not lie in the spool" }))
})

/** Whatever is in `folder` and not among `keep`. */
const sweepFolder = (folder: string, keep: ReadonlySet<string>): Effect.Effect<void, StorageError> =>
  storage("sweep", folder, async (signal) => {
    for (const name of await readdir(folder)) {
      signal.throwIfAborted()
      const path = join(folder, name)
      if (!keep.has(path)) await rm(path, { recursive: true, force: true })
    }
  })

const makeStore = (
  at: Places,
  engine: CryptoEngine["Service"],
  entropy: Entropy["Service"],
  keys: NodeKeys["Service"],
  open: RcMap.RcMap<OrderId, GrowingFile, StorageError>
): Store => ({
  ...downloads(at, open),
  ...packing(at, engine, entropy),
  ...spooling(at),

  stage: (order: WorkOrder) => {
    const ciphertext = at.ciphertext(order.id)
    const folder = at.staged(order.id)
    const open = openPackage({
      engine,
      identities: keys.ageIdentities,
      ciphertext,
      payload: order.payload,
      folder
    })
    return removeTree(folder).pipe(
      Effect.andThen(open),
      // A refused payload is of no more use; after a failure of the disk it is kept for another attempt.
      Effect.tapError((error) =>
        error._tag === "PackageRefused" ? Effect.ignore(removeTree(at.orderFolder(order.id))) : Effect.void
      ),
      Effect.map(({ manifest }) => ({ manifest, folder }))
    )
  },

  scratch: (order) =>
    Effect.acquireRelease(
      removeTree(at.scratch(order)).pipe(
        Effect.andThen(
          storage("make folder", at.scratch(order), () =>
            mkdir(at.scratch(order), { recursive: true, mode: 0o700 })
          )
        ),
        Effect.as(at.scratch(order))
      ),
      (folder) => Effect.ignore(removeTree(folder))
    ),

  remove: (order, spooled) =>
    removeTree(at.orderFolder(order)).pipe(
      Effect.andThen(spooled ? removeTree(at.spooled(order)) : Effect.void)
    ),

  sweep: (keep, keepSpooled) =>
    sweepFolder(at.packages, new Set(keep.map(at.orderFolder))).pipe(
      Effect.andThen(sweepFolder(at.spool, new Set(keepSpooled)))
    )
})

/** The store below a state folder, which is made 0700 where it is missing. */
export const PackageFiles = (options: {
  readonly stateFolder: string
}): Layer.Layer<PackageStore, StorageError, NodeKeys | CryptoEngine | Entropy> =>
  Layer.effect(
    PackageStore,
    Effect.gen(function* () {
      const at = places(options.stateFolder)
      yield* Effect.try({
        try: () => [options.stateFolder, at.packages, at.spool].forEach(requirePrivateFolder),
        catch: (error) => storageError("make folder", options.stateFolder, error)
      })
      // One for all who write a payload at the moment; it closes with the last of them.
      const open = yield* RcMap.make({
        lookup: (order: OrderId) =>
          Effect.acquireRelease(openGrowing(at.ciphertext(order)), (file) => Effect.ignore(file.close))
      })
      return makeStore(at, yield* CryptoEngine, yield* Entropy, yield* NodeKeys, open)
    })
  )
