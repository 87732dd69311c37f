/**
 * The job's bounded tmpfs as the client sees it: an open folder. It stays readable after the last process of the job,
 * and with it the mount, is gone, and the kernel frees it when the folder is closed.
 */
import { closeSync, constants, openSync } from "node:fs"
import { chmod, lstat, opendir, statfs } from "node:fs/promises"
import { join } from "node:path"
import type { Scope } from "effect"
import { Effect, Schema } from "effect"
import { LaunchFolder } from "./Launch.ts"

/** A step on the file system failed: which, and why. */
export class ScratchError extends Schema.TaggedError<ScratchError>()("ScratchError", {
  detail: Schema.String
}) {}

const attempt = <A>(what: string, step: () => Promise<A>): Effect.Effect<A, ScratchError> =>
  Effect.tryPromise({
    try: step,
    catch: (error) =>
      new ScratchError({ detail: `${what}: ${error instanceof Error ? error.message : String(error)}` })
  })

const tmpfsMagic = 0x01021994

/**
 * Opens the tmpfs through the eyes of a process that has it mounted. That it is one, and not the host's own folder, is
 * checked: everything done through it later relies on that.
 *
 * @returns its path, good in this process alone, until the scope closes
 */
export const openScratch = (viewer: number): Effect.Effect<string, ScratchError, Scope.Scope> =>
  Effect.gen(function* () {
    const seen = `/proc/${viewer}/root${LaunchFolder.scratch}`
    const descriptor = yield* Effect.acquireRelease(
      Effect.try({
        try: () => openSync(seen, constants.O_RDONLY | constants.O_DIRECTORY),
        catch: (error) => new ScratchError({ detail: `opening the job's file system: ${String(error)}` })
      }),
      (open) => Effect.sync(() => closeSync(open))
    )
    const path = `/proc/${process.pid}/fd/${descriptor}`
    const [kind, inside, outside] = yield* attempt("looking at the job's file system", () =>
      Promise.all([statfs(`${path}/`), lstat(`${path}/`), lstat(`${LaunchFolder.scratch}/`)])
    )
    if (kind.type !== tmpfsMagic || inside.dev === outside.dev) {
      return yield* new ScratchError({ detail: "the job's file system is not the one that was made for it" })
    }
    return path
  })

const refuseEntry = (path: string, why: string): never => {
  throw new Error(`${path} ${why}`)
}

const openTree = async (folder: string, left: { entries: number }): Promise<void> => {
  for await (const entry of await opendir(folder)) {
    const path = join(folder, entry.name)
    left.entries -= 1
    if (left.entries < 0) refuseEntry(folder, "holds too many entries")
    const found = await lstat(path)
    // A second name of the same file could stand anywhere on the host; a plain package has none.
    if (found.isFile() && found.nlink !== 1) refuseEntry(path, "has more than one name")
    if (!found.isFile() && !found.isDirectory()) refuseEntry(path, "is neither a file nor a folder")
    if (found.isDirectory()) await openTree(path, left)
    await chmod(path, openMode(found.mode))
  }
}

/** For others as for the owner, but for writing. */
const openMode = (mode: number): number => (mode & 0o700) | ((mode & 0o500) >> 3) | ((mode & 0o500) >> 6)

/**
 * Checks that the package's folder is there and, where jobs have a uid of their own, lets others read the tree: a job
 * sees it through a mount, past the folders above it, which stay closed to everybody else.
 */
export const lendPackage = (
  folder: string,
  separateUid: boolean,
  maximumEntries: number
): Effect.Effect<void, ScratchError> =>
  attempt("lending the package to the jail", async () => {
    const found = await lstat(folder)
    if (!found.isDirectory()) refuseEntry(folder, "is not a folder")
    if (!separateUid) return
    await openTree(folder, { entries: maximumEntries })
    await chmod(folder, openMode(found.mode))
  })
