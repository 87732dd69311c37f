/**
 * Small files that must be whole or absent after a power cut: written beside their place, flushed, put in place, and the
 * folder flushed too. Synchronous, for start-up and for files of some kilobytes.
 *
 * @module
 */
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fstatSync,
  fsyncSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  writeSync
} from "node:fs"
import { dirname, resolve } from "node:path"

/** A file or folder that is not as it must be; `message` says what and how to mend it. */
export class UnsafeFile extends Error {
  override readonly name = "UnsafeFile"
}

/** The `code` of a Node error (`ENOENT` …), if it has one. */
export const errorCode = (error: unknown): string | undefined =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined

/** What an error says, for a message to people. */
export const errorText = (error: unknown): string => (error instanceof Error ? error.message : String(error))

const octal = (mode: number): string => (mode & 0o7777).toString(8).padStart(4, "0")

const requireOwner = (path: string, uid: number): void => {
  const own = process.geteuid?.()
  if (own !== undefined && uid !== own) {
    throw new UnsafeFile(
      `${path} belongs to uid ${uid}, but this program runs as uid ${own}: give it to that user`
    )
  }
}

/**
 * Makes a folder and what is missing above it, one level after the other. Node's own `recursive` spins for ever where
 * the system answers ENOENT to making a folder in one that is there, as /proc and /sys do.
 *
 * @returns whether the folder itself is new
 */
export const makeFolders = (path: string, mode = 0o700): boolean => {
  const missing: Array<string> = []
  let above = resolve(path)
  while (!existsSync(above) && above !== dirname(above)) {
    missing.push(above)
    above = dirname(above)
  }
  for (const folder of missing.reverse()) {
    try {
      mkdirSync(folder, { mode })
    } catch (error) {
      // Another program was faster; whose folder it is, and what it is, the caller looks at.
      if (errorCode(error) !== "EEXIST") throw error
    }
  }
  return missing.length > 0
}

/**
 * Makes a folder that only its owner can enter, with what is missing above it, or checks that it is one.
 *
 * @throws UnsafeFile when it is a link, another's, or open to others
 */
export const requirePrivateFolder = (path: string): void => {
  if (makeFolders(path)) chmodSync(path, 0o700)
  const found = lstatSync(path)
  if (!found.isDirectory()) throw new UnsafeFile(`${path} is not a folder: move it away`)
  requireOwner(path, found.uid)
  if ((found.mode & 0o077) !== 0) {
    throw new UnsafeFile(`${path} is open to other users (mode ${octal(found.mode)}): run chmod 0700 on it`)
  }
}

/** Makes changes of names in a folder durable. */
export const flushFolder = (path: string): void => {
  const handle = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    fsyncSync(handle)
  } finally {
    closeSync(handle)
  }
}

const writeAll = (handle: number, bytes: Uint8Array): void => {
  let offset = 0
  while (offset < bytes.length) offset += writeSync(handle, bytes, offset)
}

/** Writes a new 0600 file and flushes it. Fails where something stands there already. */
const writeNew = (path: string, bytes: Uint8Array): void => {
  const handle = openSync(
    path,
    constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
    0o600
  )
  try {
    fchmodSync(handle, 0o600)
    writeAll(handle, bytes)
    fsyncSync(handle)
  } finally {
    closeSync(handle)
  }
}

const viaTemporary = (path: string, bytes: Uint8Array, place: (temporary: string) => void): void => {
  const temporary = `${path}.new`
  // What a crash in the middle left behind was never in place.
  rmSync(temporary, { force: true })
  try {
    writeNew(temporary, bytes)
    place(temporary)
  } finally {
    rmSync(temporary, { force: true })
  }
  flushFolder(dirname(path))
}

/** Creates a 0600 file with this content; never replaces one (Node's `EEXIST`). */
export const createPrivateFile = (path: string, bytes: Uint8Array): void =>
  viaTemporary(path, bytes, (temporary) => linkSync(temporary, path))

/**
 * Creates a file to be carried away, perhaps on a stick whose file system knows neither links nor modes; 0600 where it
 * does. Never replaces one (Node's `EEXIST`), and leaves none that is not whole.
 */
export const createCarriedFile = (path: string, bytes: Uint8Array): void => {
  const handle = openSync(
    path,
    constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
    0o600
  )
  try {
    writeAll(handle, bytes)
    fsyncSync(handle)
  } catch (error) {
    rmSync(path, { force: true })
    throw error
  } finally {
    closeSync(handle)
  }
}

/** Writes a 0600 file with this content in the place of whatever stood there. */
export const replacePrivateFile = (path: string, bytes: Uint8Array): void =>
  viaTemporary(path, bytes, (temporary) => renameSync(temporary, path))

/**
 * Reads a 0600 file of at most `maximumBytes`; undefined where there is none.
 *
 * @throws UnsafeFile when it is a link, another's, open to others, or larger
 */
export const readPrivateFile = (path: string, maximumBytes: number): Uint8Array | undefined => {
  let handle: number
  try {
    handle = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined
    if (errorCode(error) === "ELOOP") throw new UnsafeFile(`${path} is a link: put the file itself there`)
    throw error
  }
  try {
    const found = fstatSync(handle)
    if (!found.isFile()) throw new UnsafeFile(`${path} is not a plain file`)
    requireOwner(path, found.uid)
    if ((found.mode & 0o077) !== 0) {
      throw new UnsafeFile(`${path} is open to other users (mode ${octal(found.mode)}): run chmod 0600 on it`)
    }
    if (found.size > maximumBytes)
      throw new UnsafeFile(`${path} has ${found.size} bytes, more than ${maximumBytes}`)
    const bytes = new Uint8Array(found.size)
    let offset = 0
    while (offset < bytes.length) {
      const count = readSync(handle, bytes, offset, bytes.length - offset, offset)
      if (count === 0) throw new UnsafeFile(`${path} became shorter while it was read`)
      offset += count
    }
    return bytes
  } finally {
    closeSync(handle)
  }
}
