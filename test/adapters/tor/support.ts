/** A tor without a network, and settings for one. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Schema, type Scope } from "effect"
import { type TorSettings, torSettings, torSocks } from "../../../src/schemas/TorSettings.ts"

const Settings = Schema.Struct({ ...torSettings, socks: torSocks })

/** Settings as a configuration would give them; by default of a tor that must not speak to anybody. */
export const settingsOf = (given: Partial<typeof Settings.Encoded> = {}): TorSettings =>
  Schema.decodeUnknownSync(Settings, { onExcessProperty: "error" })({
    options: ["DisableNetwork 1"],
    ...given
  })

/** A folder that goes with the scope. */
export const folderOf = (name: string): Effect.Effect<string, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), `${name}-`))),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
  )

/** Whether a process is there. A zombie is not. */
export const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
