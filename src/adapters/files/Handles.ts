/**
 * Two things Node's file handles leave to the caller.
 *
 * @module
 */
import { type FileHandle, open } from "node:fs/promises"

/** Writes all bytes at the handle's own position; a single write may take fewer. */
export const writeFully = async (handle: FileHandle, bytes: Uint8Array): Promise<void> => {
  let offset = 0
  while (offset < bytes.length)
    offset += (await handle.write(bytes, offset, bytes.length - offset)).bytesWritten
}

/** Makes changes of names in a folder durable. */
export const syncFolder = async (path: string): Promise<void> => {
  const handle = await open(path, "r")
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
