/**
 * A file that is written only where it is not already what it must be: a full disk then keeps nothing from working that
 * worked before.
 *
 * @module
 */
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { equalBytes } from "../../crypto/Bytes.ts"

/** Whether a file has just this content. What cannot be read has not: to write it anew will say what is wrong. */
export const holdsContent = (path: string, content: Uint8Array): boolean => {
  try {
    return equalBytes(readFileSync(path), content)
  } catch {
    return false
  }
}

/**
 * Puts a file in place, whole, for its owner alone; gives whether it was not so before. What stood there stays where the
 * new one cannot be written. Nothing is flushed to the disk: what a power cut leaves is put right by the next call.
 *
 * @throws what the file system refuses
 */
export const putFile = (path: string, content: Uint8Array): boolean => {
  if (holdsContent(path, content)) return false
  const temporary = `${path}.new`
  try {
    writeFileSync(temporary, content, { mode: 0o600 })
    renameSync(temporary, path)
  } finally {
    rmSync(temporary, { force: true })
  }
  return true
}
