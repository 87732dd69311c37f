/**
 * A job's artifacts on their way home: fetched in blocks, held against the verified receipt, decrypted and unpacked.
 *
 * @module
 */
import { mkdtemp, open, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect } from "effect"
import { errorText } from "../../adapters/files/AtomicFile.ts"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import type { OperatorKeys } from "../../adapters/operator/OperatorKeys.ts"
import { openArtifacts } from "../../adapters/packages/OpenPackage.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import type { OrderId } from "../../schemas/Ids.ts"
import type { ArtifactSummary } from "../../schemas/Receipt.ts"
import { failure } from "./Failure.ts"
import { progressBar } from "./Progress.ts"

const blockTimeoutMs = 10 * 60_000

/** A folder of our own below the system's temporary one, gone with the scope. */
export const temporaryFolder = Effect.acquireRelease(
  Effect.tryPromise({
    try: () => mkdtemp(join(tmpdir(), "postern-")),
    catch: (error) => failure(`Could not make a temporary folder: ${errorText(error)}`)
  }),
  (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
)

/** Downloads the encrypted artifacts into a file; never more than the receipt says. */
const download = (order: OrderId, summary: ArtifactSummary, path: string) =>
  Effect.gen(function* () {
    const client = yield* ManagementClient
    const bar = yield* progressBar("fetching", summary.size_bytes)
    const handle = yield* Effect.acquireRelease(
      Effect.tryPromise({
        try: () => open(path, "wx", 0o600),
        catch: (error) => failure(`Could not write ${path}: ${errorText(error)}`)
      }),
      (opened) => Effect.promise(() => opened.close())
    )
    let offset = 0
    while (offset < summary.size_bytes) {
      const block = yield* client.call(
        "fetch the artifacts",
        (api) => api.jobs.artifacts({ params: { id: order }, query: { offset } }),
        blockTimeoutMs
      )
      if (block.length === 0)
        return yield* failure(
          `The server has only ${offset} of the ${summary.size_bytes} bytes of the artifacts. Try again later`
        )
      if (offset + block.length > summary.size_bytes)
        return yield* failure("The server sends more than the receipt says. Nothing was kept")
      yield* Effect.tryPromise({
        try: () => handle.writeFile(block),
        catch: (error) => failure(`Could not write ${path}: ${errorText(error)}`)
      })
      offset += block.length
      yield* bar.update(offset)
    }
  })

/** Fetches, proves and unpacks a job's artifacts into `folder`, which must be absent or empty. */
export const fetchResults = (order: OrderId, summary: ArtifactSummary, keys: OperatorKeys, folder: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const engine = yield* CryptoEngine
      const ciphertext = join(yield* temporaryFolder, "artifacts.age")
      yield* Effect.scoped(download(order, summary, ciphertext))
      return yield* openArtifacts({ engine, identities: keys.ageIdentities, ciphertext, summary, folder })
    })
  )
