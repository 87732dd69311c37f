/**
 * The folder of a private Tor network, and the guard that removes it, and ends what runs from it, even when the program
 * that made it is killed: a shell that waits for the end of its input, which only that program holds open.
 *
 * @module
 */
import { type ChildProcess, spawn } from "node:child_process"
import { chmod, mkdtemp, rm } from "node:fs/promises"
import { join } from "node:path"
import { Effect, type Scope } from "effect"
import { labFailure, type TorLabError } from "./LabFailure.ts"

/**
 * The first line names the folder. A second one says that all is done already. The end of the input without it means that
 * the program is gone: whatever was started with a file of that folder is killed, and the folder removed.
 */
const guardScript = `
IFS= read -r folder || exit 0
if IFS= read -r word; then exit 0; fi
turn=0
while [ -e "$folder" ] && [ "$turn" -lt 100 ]; do
  for file in $(grep -lF -e "$folder/" /proc/[0-9]*/cmdline 2>/dev/null); do
    pid=\${file#/proc/}
    kill -9 "\${pid%/cmdline}" 2>/dev/null
  done
  rm -rf -- "$folder" 2>/dev/null
  turn=$((turn + 1))
  sleep 0.05
done
`

const startGuard = (folder: string): ChildProcess => {
  const guard = spawn("/bin/sh", ["-c", guardScript], {
    cwd: "/",
    env: { PATH: "/usr/bin:/bin" },
    // A session of its own, so that a signal to the program's group does not reach it.
    detached: true,
    stdio: ["pipe", "ignore", "ignore"]
  })
  guard.on("error", () => guard.stdin?.destroy())
  guard.stdin?.on("error", () => undefined)
  guard.stdin?.write(`${folder}\n`)
  guard.unref()
  return guard
}

const dismiss = (guard: ChildProcess): Promise<void> =>
  new Promise((resolve) => {
    if (guard.pid === undefined || guard.exitCode !== null || guard.signalCode !== null) return resolve()
    guard.once("exit", () => resolve())
    guard.ref()
    guard.stdin?.end("done\n")
  })

/** Makes a folder below `parent` that only this user may enter, and that is gone when the scope, or this program, ends. */
export const openLabFolder = (parent: string): Effect.Effect<string, TorLabError, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.tryPromise({
        try: async () => {
          const folder = await mkdtemp(join(parent, "postern-tor-"))
          await chmod(folder, 0o700)
          return { folder, guard: startGuard(folder) }
        },
        catch: (error) => labFailure(`A folder could not be made below ${parent}`, error)
      }),
      ({ folder, guard }) =>
        Effect.promise(async () => {
          await rm(folder, { recursive: true, force: true, maxRetries: 10 })
          await dismiss(guard)
        })
    ),
    ({ folder }) => folder
  )
