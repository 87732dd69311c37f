/**
 * A payload's way to the server: in blocks, going on where an earlier attempt ended.
 *
 * @module
 */
import { type FileHandle, open } from "node:fs/promises"
import { Effect } from "effect"
import { errorText } from "../../adapters/files/AtomicFile.ts"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import { Limits } from "../../schemas/Limits.ts"
import type { PayloadReference } from "../../schemas/WorkOrder.ts"
import { failure } from "./Failure.ts"
import { progressBar } from "./Progress.ts"

/** How often one block is sent when the server is not reached. */
const blockAttempts = 5
const retryDelayMs = 1_000
/** A block takes as long as a slow line needs for it. */
const blockTimeoutMs = 10 * 60_000

const readBlock = (handle: FileHandle, path: string, offset: number, sizeBytes: number) =>
  Effect.tryPromise({
    try: async () => {
      const block = new Uint8Array(Math.min(Limits.blockBytes, sizeBytes - offset))
      let filled = 0
      while (filled < block.length) {
        const { bytesRead } = await handle.read(block, filled, block.length - filled, offset + filled)
        if (bytesRead === 0) throw new Error("it became shorter")
        filled += bytesRead
      }
      return block
    },
    catch: (error) => failure(`Could not read ${path}: ${errorText(error)}`)
  })

/** Uploads a payload file; where the server has all of it already, one block goes over. */
export const uploadPayload = (path: string, payload: typeof PayloadReference.Type) =>
  Effect.scoped(
    Effect.gen(function* () {
      const client = yield* ManagementClient
      const bar = yield* progressBar("uploading", payload.size_bytes)
      const handle = yield* Effect.acquireRelease(
        Effect.tryPromise({
          try: () => open(path, "r"),
          catch: (error) => failure(`Could not open ${path}: ${errorText(error)}`)
        }),
        (opened) => Effect.promise(() => opened.close())
      )
      const send = (
        offset: number,
        block: Uint8Array,
        left: number
      ): Effect.Effect<
        { readonly received_bytes: number; readonly complete: boolean },
        Effect.Error<ReturnType<typeof client.call>>
      > =>
        client
          .call(
            "upload the package",
            (api) =>
              api.jobs.uploadPayload({
                params: { digest: payload.digest },
                query: { offset, total: payload.size_bytes },
                payload: block
              }),
            blockTimeoutMs
          )
          .pipe(
            Effect.catchIf(
              (problem) => left > 0 && (problem.kind === "unreachable" || problem.kind === "unavailable"),
              () =>
                Effect.andThen(
                  Effect.sleep(retryDelayMs),
                  Effect.suspend(() => send(offset, block, left - 1))
                )
            )
          )
      let offset = 0
      for (;;) {
        const block = yield* readBlock(handle, path, offset, payload.size_bytes)
        const answer = yield* send(offset, block, blockAttempts)
        yield* bar.update(Math.min(answer.received_bytes, payload.size_bytes))
        if (answer.complete) return
        if (answer.received_bytes <= offset) {
          return yield* failure(
            `The server has ${answer.received_bytes} bytes of the package and takes no more. Submit again later`
          )
        }
        offset = answer.received_bytes
      }
    })
  )
