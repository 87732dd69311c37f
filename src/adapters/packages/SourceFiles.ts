/**
 * What goes into a package: plain files and folders of the operator's machine, or bytes made by a program.
 *
 * @module
 */
import { constants } from "node:fs"
import { type FileHandle, lstat, open, readdir } from "node:fs/promises"
import { join } from "node:path"
import { Effect, Schema } from "effect"
import { Limits } from "../../schemas/Limits.ts"
import { manifestPath } from "../../schemas/Manifest.ts"
import { abortable } from "../files/Abortable.ts"
import { errorText } from "../files/AtomicFile.ts"
import { isSafePath } from "./PackageContent.ts"

/** A package cannot be built from this: `path` is the file or folder in question. */
export class BuildError extends Schema.TaggedError<BuildError>()("BuildError", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.reason}`
  }
}

/** A file to pack. Its content stands on disk or in memory. */
export interface SourceFile {
  /** Inside the package. */
  readonly path: string
  readonly sizeBytes: number
  readonly executable: boolean
  readonly content: { readonly hostPath: string } | { readonly bytes: Uint8Array }
}

/** Files, and folders to make even where no file is in them. */
export interface Source {
  readonly files: ReadonlyArray<SourceFile>
  readonly folders: ReadonlyArray<string>
}

/** A source of bytes in memory, e.g. a script written by `postern run`. */
export const sourceBytes = (path: string, bytes: Uint8Array, executable = false): SourceFile => ({
  path,
  sizeBytes: bytes.length,
  executable,
  content: { bytes }
})

const requireName = (path: string, hostPath: string): void => {
  if (!isSafePath(path) || path.split("/").includes("__proto__")) {
    throw new BuildError({
      path: hostPath,
      reason: `this name cannot stand in a package: at most ${Limits.packagePathLength} characters and ${Limits.packageDepth} levels, no control characters, no backslash`
    })
  }
  if (path === manifestPath) {
    throw new BuildError({
      path: hostPath,
      reason: `${manifestPath} is made by the build: give the file another name`
    })
  }
}

const walk = async (
  root: string,
  isExcluded: (path: string) => boolean,
  signal: AbortSignal
): Promise<Source> => {
  const files: Array<SourceFile> = []
  const folders: Array<string> = []
  const visit = async (below: string): Promise<void> => {
    const names = await readdir(join(root, below), { encoding: "utf8" })
    for (const name of names) {
      signal.throwIfAborted()
      const path = below === "" ? name : `${below}/${name}`
      if (isExcluded(path)) continue
      const hostPath = join(root, path)
      requireName(path, hostPath)
      if (files.length + folders.length + 2 > Limits.packageEntries) {
        throw new BuildError({
          path: root,
          reason: `it holds more than ${Limits.packageEntries} files and folders`
        })
      }
      const found = await lstat(hostPath)
      if (found.isDirectory()) {
        folders.push(path)
        await visit(path)
      } else if (found.isFile()) {
        files.push({
          path,
          sizeBytes: found.size,
          executable: (found.mode & 0o111) !== 0,
          content: { hostPath }
        })
      } else {
        throw new BuildError({
          path: hostPath,
          reason: "it is neither a plain file nor a folder (links are not followed)"
        })
      }
    }
  }
  const top = await lstat(root)
  if (!top.isDirectory()) throw new BuildError({ path: root, reason: "it is not a folder" })
  await visit("")
  return { files, folders }
}

/**
 * All files and folders below a folder. Links, devices and names that no package may hold are an error, not left out.
 * `exclude` are paths relative to the folder that stay outside.
 */
export const readSource = (
  folder: string,
  options: { readonly exclude?: ReadonlyArray<string> } = {}
): Effect.Effect<Source, BuildError> => {
  const excluded = new Set(options.exclude ?? [])
  return abortable((signal) => walk(folder, (path) => excluded.has(path), signal)).pipe(
    Effect.mapError((error) =>
      error instanceof BuildError ? error : new BuildError({ path: folder, reason: errorText(error) })
    )
  )
}

const blockBytes = 64 * 1024

async function* handleBlocks(handle: FileHandle, limitBytes: number) {
  const buffer = new Uint8Array(Math.min(blockBytes, limitBytes + 1))
  let position = 0
  // One byte more than expected is asked for, so that a file that grew is noticed.
  while (position <= limitBytes) {
    const wanted = Math.min(blockBytes, limitBytes - position + 1)
    const { bytesRead } = await handle.read(buffer, 0, wanted, position)
    if (bytesRead === 0) return
    position += bytesRead
    yield buffer.subarray(0, bytesRead)
  }
}

/**
 * A file's bytes in blocks of at most 64 KiB, each valid until the next is asked for. Rejects with {@link BuildError} when the file is
 * not plain, or does not have the size it is listed with.
 */
export async function* sourceBlocks(file: SourceFile, signal: AbortSignal) {
  if ("bytes" in file.content) {
    for (let start = 0; start < file.content.bytes.length; start += blockBytes) {
      yield file.content.bytes.subarray(start, start + blockBytes)
    }
    return
  }
  const path = file.content.hostPath
  const handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  try {
    if (!(await handle.stat()).isFile())
      throw new BuildError({ path, reason: "it is no longer a plain file" })
    let seen = 0
    for await (const block of handleBlocks(handle, file.sizeBytes)) {
      signal.throwIfAborted()
      seen += block.length
      if (seen > file.sizeBytes) break
      yield block
    }
    if (seen !== file.sizeBytes) throw new BuildError({ path, reason: "its size changed while it was read" })
  } finally {
    await handle.close()
  }
}
