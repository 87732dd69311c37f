/**
 * Writes the steps of unpacking down below a fresh folder: folders 0700, files 0600 or 0700, nothing replaced, no link
 * followed.
 *
 * @module
 */
import { constants } from "node:fs"
import { type FileHandle, mkdir, open } from "node:fs/promises"
import { join } from "node:path"
import { writeFully } from "../files/Handles.ts"
import { storageError } from "../files/StorageFailure.ts"
import type { UnpackStep } from "./PackageContent.ts"

/** Takes steps in order. All methods reject with `StorageError` only. */
export interface Unpacker {
  readonly take: (step: UnpackStep) => Promise<void>
  /** Closes what is open; to be called however it ended. */
  readonly close: () => Promise<void>
}

/** Judges without writing. */
export const noUnpacker: Unpacker = { take: () => Promise.resolve(), close: () => Promise.resolve() }

const newFile = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW

/** Writes below `folder`, which must exist and be empty. */
export const folderUnpacker = (folder: string): Unpacker => {
  let current: { readonly handle: FileHandle; readonly path: string } | undefined

  const attempt = async (operation: string, path: string, work: () => Promise<unknown>): Promise<void> => {
    try {
      await work()
    } catch (error) {
      throw storageError(operation, path, error)
    }
  }
  const begin = async (path: string, executable: boolean): Promise<void> => {
    current = { handle: await open(path, newFile, executable ? 0o700 : 0o600), path }
  }
  const close = async (): Promise<void> => {
    const closing = current
    current = undefined
    if (closing !== undefined) await attempt("close", closing.path, () => closing.handle.close())
  }
  const write = async (bytes: Uint8Array): Promise<void> => {
    if (current === undefined) return
    const { handle, path } = current
    await attempt("write", path, () => writeFully(handle, bytes))
  }

  return {
    take: (step) => {
      switch (step._tag) {
        case "Folder": {
          const path = join(folder, step.path)
          return attempt("make folder", path, () => mkdir(path, { mode: 0o700 }))
        }
        case "File": {
          const path = join(folder, step.path)
          return attempt("create", path, () => begin(path, step.executable))
        }
        case "Data":
          return write(step.bytes)
        case "FileEnd":
          return close()
      }
    },
    close
  }
}
