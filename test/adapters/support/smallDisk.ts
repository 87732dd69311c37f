import { execFileSync, spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, type Scope } from "effect"
import { requires } from "../../support/requires.ts"

const mounts = (): boolean => {
  const folder = mkdtempSync(join(tmpdir(), "postern-mount-"))
  const { status } = spawnSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", folder])
  if (status === 0) execFileSync("umount", [folder])
  rmSync(folder, { recursive: true })
  return status === 0
}

/** Whether this machine lets the test mount a small file system. */
export const hasSmallDisk = (): boolean => {
  if (!requires("root", "mount")) return false
  if (mounts()) return true
  if (process.env["CI"])
    throw new Error("in CI nothing may be missing, but mounting a tmpfs is not allowed here")
  process.stderr.write("skipped, because mounting a tmpfs is not allowed here\n")
  return false
}

/** A folder below `parent` that holds at most `kilobytes`, gone with the scope. */
export const smallDisk = (parent: string, kilobytes: number): Effect.Effect<string, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const folder = join(parent, "small-disk")
      mkdirSync(folder)
      execFileSync("mount", ["-t", "tmpfs", "-o", `size=${kilobytes}k,mode=0700`, "tmpfs", folder])
      return folder
    }),
    (folder) => Effect.sync(() => execFileSync("umount", ["-l", folder]))
  )
