/**
 * Ciphertext files on the server: payloads by digest, artifacts by order. Written in blocks at rising offsets, resumed
 * after a crash, complete only when length (and for payloads the digest) is right. Never decrypted here.
 */
import type { Effect, Stream } from "effect"
import { Context, Schema } from "effect"
import type { Digest, OrderId } from "../schemas/Ids.ts"

export class BlobError extends Schema.TaggedError<BlobError>()("BlobError", {
  operation: Schema.String,
  reason: Schema.String,
  /** Whether it is only that the disk has no room. */
  full: Schema.Boolean
}) {}

/** The blob is not there, or not complete. */
export class BlobMissing extends Schema.TaggedError<BlobMissing>()("BlobMissing", {
  name: Schema.String
}) {}

/** The content is not what its name promises (digest, length), or a block does not continue what is there. */
export class BlobConflict extends Schema.TaggedError<BlobConflict>()("BlobConflict", {
  name: Schema.String,
  reason: Schema.String,
  /** Bytes that are there: where to go on. */
  receivedBytes: Schema.Finite
}) {}

export type BlobName =
  | { readonly kind: "payload"; readonly digest: Digest }
  | { readonly kind: "artifacts"; readonly order: OrderId }

/** A file as it lies there. */
export interface StoredBlob {
  readonly name: BlobName
  readonly sizeBytes: number
  /** When it was last written, or last asked to be. */
  readonly changedAtMs: number
}

export class BlobStore extends Context.Service<
  BlobStore,
  {
    /** Writes a block durably; returns the bytes there are now. A block that is there already is answered likewise. */
    readonly write: (
      name: BlobName,
      offset: number,
      totalBytes: number,
      block: Uint8Array
    ) => Effect.Effect<number, BlobError | BlobConflict>
    /** Bytes received so far and whether the blob is complete. */
    readonly state: (
      name: BlobName
    ) => Effect.Effect<{ readonly receivedBytes: number; readonly complete: boolean }, BlobError>
    /** The bytes of a complete blob from `offset` on, and its size. */
    readonly read: (
      name: BlobName,
      offset: number
    ) => Effect.Effect<
      { readonly sizeBytes: number; readonly bytes: Stream.Stream<Uint8Array, BlobError> },
      BlobError | BlobMissing
    >
    /** Removes a blob, or what there is of it; with `unchangedSinceMs` only if nobody wrote it after that. */
    readonly remove: (name: BlobName, unchangedSinceMs?: number) => Effect.Effect<void, BlobError>
    /** All files of a kind, complete or not. */
    readonly list: (kind: BlobName["kind"]) => Effect.Effect<ReadonlyArray<StoredBlob>, BlobError>
    /** Room on the disk for more, in bytes; null where there is no telling. */
    readonly freeBytes: Effect.Effect<number | null>
  }
>()("postern/ports/BlobStore") {}
