/**
 * Files of packages on a device: the ciphertext being downloaded, the unpacked package, the encrypted artifacts on
 * their way out. All below one state folder (0700); nothing of an order is left after {@link remove}.
 */
import type { Effect, Scope, Stream } from "effect"
import { Context, Schema } from "effect"
import type { Digest, OrderId, Recipient } from "../schemas/Ids.ts"
import type { JailArtifact } from "../schemas/JailProfile.ts"
import type { Manifest } from "../schemas/Manifest.ts"
import type { ArtifactSummary } from "../schemas/Receipt.ts"
import { RefusalCode } from "../schemas/Refusals.ts"
import type { Spans } from "../schemas/Spans.ts"
import type { WorkOrder } from "../schemas/WorkOrder.ts"

/** The payload is not what the operator signed, or unsafe: `code` says how. The folder is gone. */
export class PackageRefused extends Schema.TaggedError<PackageRefused>()("PackageRefused", {
  code: RefusalCode,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.code}: ${this.detail}`
  }
}

/** The device's own disk failed (full, read-only, damaged). */
export class StorageError extends Schema.TaggedError<StorageError>()("StorageError", {
  operation: Schema.String,
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.operation} ${this.path}: ${this.reason}`
  }
}

/** A package proved and unpacked: what to run and the folder with its files. */
export interface StagedPackage {
  readonly manifest: Manifest
  readonly folder: string
}

export class PackageStore extends Context.Service<
  PackageStore,
  {
    /** Bytes of the ciphertext already on disk (0 if none). */
    readonly downloaded: (order: OrderId) => Effect.Effect<number, StorageError>
    /** The parts of the ciphertext that are not on disk, in rising order: where a download goes on. */
    readonly missing: (order: WorkOrder) => Effect.Effect<Spans, StorageError>
    /**
     * Writes the stream into the ciphertext file from `offset` on, flushed; other parts may be written at the same time.
     * Fails with `payload_size` as soon as more comes than the order says. Tells after each block where the next one goes.
     */
    readonly download: <E>(
      order: WorkOrder,
      offset: number,
      bytes: Stream.Stream<Uint8Array, E>,
      onProgress: (reached: number) => Effect.Effect<void>
    ) => Effect.Effect<void, E | StorageError | PackageRefused>
    /**
     * Checks length and digest of the whole ciphertext, then decrypts and unpacks it in constant memory into a fresh
     * 0700 folder, with every check of the manifest. On any refusal the folder and the ciphertext are dropped.
     */
    readonly stage: (order: WorkOrder) => Effect.Effect<StagedPackage, StorageError | PackageRefused>
    /**
     * Packs what a job left (as the jail lists it) into an age file in the spool, in constant memory, and returns its
     * path and summary. Null when there is nothing. Refused when a file changed, or is more than `limits` allow.
     */
    readonly packArtifacts: (
      order: OrderId,
      files: ReadonlyArray<JailArtifact>,
      recipients: ReadonlyArray<Recipient>,
      limits: { readonly bytes: number; readonly entries: number }
    ) => Effect.Effect<
      { readonly path: string; readonly summary: ArtifactSummary } | null,
      StorageError | PackageRefused
    >
    /** Reads a block of a spooled file. */
    readonly readBlock: (
      path: string,
      offset: number,
      maximumBytes: number
    ) => Effect.Effect<Uint8Array, StorageError>
    readonly removeSpooled: (path: string) => Effect.Effect<void, StorageError>
    /** Encrypts one output chunk to the recipients (an age file of its own) and gives its digest. */
    readonly sealChunk: (
      plaintext: Uint8Array,
      recipients: ReadonlyArray<Recipient>
    ) => Effect.Effect<{ readonly bytes: Uint8Array; readonly digest: Digest }, StorageError>
    /** An empty scratch folder for the run, removed with the scope. */
    readonly scratch: (order: OrderId) => Effect.Effect<string, StorageError, Scope.Scope>
    /**
     * Removes ciphertext, folder and scratch of an order; what is spooled for sending only with `spooled`: it belongs to an
     * attempt that no receipt speaks of.
     */
    readonly remove: (order: OrderId, spooled: boolean) => Effect.Effect<void, StorageError>
    /** Removes everything that belongs to none of `keep`; called at start. */
    readonly sweep: (
      keep: ReadonlyArray<OrderId>,
      keepSpooled: ReadonlyArray<string>
    ) => Effect.Effect<void, StorageError>
  }
>()("postern/ports/PackageStore") {}
