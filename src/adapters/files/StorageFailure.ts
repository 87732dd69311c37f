/**
 * The device's disk failing, told as the port's `StorageError`.
 *
 * @module
 */
import { Effect } from "effect"
import { StorageError } from "../../ports/PackageStore.ts"
import { abortable } from "./Abortable.ts"
import { errorCode, errorText } from "./AtomicFile.ts"

const remedies: Readonly<Record<string, string>> = {
  ENOSPC: "the disk is full: free some room",
  EDQUOT: "the user's disk quota is used up",
  EROFS: "the file system is read-only: look for a worn-out card in the system's log",
  EIO: "the disk could not be read or written: look for a worn-out card in the system's log",
  EACCES: "this program's user may not do that",
  EMFILE: "too many files are open"
}

/** A failed operation on a path. */
export const storageError = (operation: string, path: string, error: unknown): StorageError => {
  const remedy = remedies[errorCode(error) ?? ""]
  return new StorageError({
    operation,
    path,
    reason: remedy === undefined ? errorText(error) : `${remedy} (${errorText(error)})`
  })
}

/** Work on files; what it throws becomes a `StorageError`. Waits for the work's own end when interrupted. */
export const storage = <A>(
  operation: string,
  path: string,
  work: (signal: AbortSignal) => Promise<A>
): Effect.Effect<A, StorageError> =>
  abortable(work).pipe(Effect.mapError((error) => storageError(operation, path, error)))
